// Instruction sets that kernels are compiled for, and the one that this process uses.
#pragma once

namespace grace {

// baseline: what every processor of the architecture has. v3: AVX2 and FMA. v4: AVX-512 (x86-64 levels).
enum class IsaLevel { baseline, v3, v4 };

// The best level that this build has and this processor runs. GRACE_MD_ISA = baseline | v3 | v4 forces one (Error if
// the build or the processor lacks it).
IsaLevel select_isa();

}  // namespace grace
