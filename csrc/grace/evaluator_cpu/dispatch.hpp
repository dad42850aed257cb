// Choice of the instruction-set unit at run time.
#pragma once

#include "grace/evaluator_cpu/tile.hpp"

namespace grace::cpu {

// The best unit this build has and this processor runs. GRACE_MD_ISA = baseline | v3 | v4 forces one (Error if the
// build or the processor lacks it).
Kernels select_kernels();

}  // namespace grace::cpu
