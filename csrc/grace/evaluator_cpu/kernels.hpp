// Tables of kernels, one per instruction set this build contains.
#pragma once

#include "grace/evaluator_cpu/tile.hpp"
#include "grace/macros.hpp"

namespace grace::cpu {

namespace isa_baseline {
Kernels kernels();
}
namespace isa_v3 {
Kernels kernels();  // x86-64-v3: AVX2 and FMA
}
namespace isa_v4 {
Kernels kernels();  // x86-64-v4: AVX-512
}

}  // namespace grace::cpu
