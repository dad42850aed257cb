// Kernels of the dense maps: channel mixes, reductions and their adjoints.
//
// fp64 uses the vector units. fp32 uses tensor cores, with products that are as exact as those of fp32
// (row_gemm_tensor_kernels.hpp); the environment variable GRACE_MD_GEMM = ffma | tensor, read once, chooses for a
// comparison. Either way a number depends on its atom, target and matrices only, and on no order of threads.
#pragma once

#include "grace/evaluator_cuda/plan.hpp"

namespace grace::gpu {

enum class GemmUnits { vector, tensor };
GemmUnits gemm_units();  // of fp32; throws Error when GRACE_MD_GEMM is neither

// Sources are read from `arena` and `block` by their place, targets written likewise to `arena_out` and `block_out`.
// Targets never overlap sources, and every target has a source.
template <class Device, class Real>
void row_gemm(Device& device, const RowGemm<Real>& gemm, const Chunk& chunk, const Real* arena, const Real* block,
              Real* arena_out, Real* block_out, GemmUnits units = gemm_units());

}  // namespace grace::gpu
