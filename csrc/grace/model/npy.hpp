// The npy format of one numpy array, versions 1 to 3 (numpy.lib.format).
#pragma once

#include <string>
#include <vector>

#include "grace/model/weights.hpp"

namespace grace {

// Parses a whole npy member. `what` names it in messages: "array 'X' in FILE". Throws Error for Fortran order,
// big-endian, object and structured arrays, and for sizes that contradict the number of bytes.
Array parse_npy(const std::vector<unsigned char>& bytes, const std::string& what);

}  // namespace grace
