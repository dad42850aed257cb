// Kernel of the dense maps: channel mixes, reductions and their adjoints.
#pragma once

#include "grace/evaluator_cuda/plan.hpp"

namespace grace::gpu {

// Sources are read from `arena` and `block` by their place, targets written likewise to `arena_out` and `block_out`.
// Targets never overlap sources.
template <class Device, class Real>
void row_gemm(Device& device, const RowGemm<Real>& gemm, const Chunk& chunk, const Real* arena, const Real* block,
              Real* arena_out, Real* block_out);

}  // namespace grace::gpu
