// The trilinear form behind every product of the model: P[row] = sum_terms c L[left] R[right].
//
// Its three adjoints are the same form with another slot left free, so one function serves forward and backward: the
// "gather" out[target] (+)= sum c first[a] second[b] over terms sorted by target.
#pragma once

#include "grace/macros.hpp"

namespace grace::math {

// Data, the same in every instruction-set unit (so outside of GRACE_ISA).
template <class Real>
struct GatherTerm {
  int first = 0;
  int second = 0;
  Real coefficient = 0;
};

inline namespace GRACE_ISA {

template <class T>
GRACE_HD GRACE_FORCEINLINE void coupling_term(T coefficient, T first, T second, T& sum) {
  sum += (coefficient * first) * second;
}

}  // namespace GRACE_ISA
}  // namespace grace::math
