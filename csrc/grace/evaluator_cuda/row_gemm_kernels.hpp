// Launches of the kernels of row_gemm.hpp: which tile, and on which units.
#pragma once

#include <type_traits>

#include "grace/evaluator_cuda/row_gemm_tensor_kernels.hpp"
#include "grace/evaluator_cuda/row_gemm_vector_kernels.hpp"

namespace grace::gpu {

// Width of the tiles of n columns, in one of the sizes that kernels are compiled for. A block costs its width, padding
// included, and the copy of its rows, which counts like some columns more.
inline int tile_columns(int n) {
  constexpr int of_copy = 16;
  int best = 0, least = 0;
  for (int width : {64, 48, 32, 24, 16}) {
    const int cost = (n + width - 1) / width * (width + of_copy);
    if (best == 0 || cost < least) {
      best = width;
      least = cost;
    }
  }
  return best;
}

template <class Launch>
void with_columns(int width, Launch launch) {
  if (width == 64) return launch(std::integral_constant<int, 64>());
  if (width == 48) return launch(std::integral_constant<int, 48>());
  if (width == 32) return launch(std::integral_constant<int, 32>());
  if (width == 24) return launch(std::integral_constant<int, 24>());
  launch(std::integral_constant<int, 16>());
}

template <class Device, class Real>
void row_gemm(Device& device, const RowGemm<Real>& gemm, const Chunk& chunk, const Real* arena, const Real* block,
              Real* arena_out, Real* block_out, GemmUnits units) {
  if (chunk.n_atoms == 0 || gemm.n_targets == 0) return;
  with_columns(tile_columns(gemm.n_columns), [&](auto columns) {
    const auto launch = [&](auto kernel) {
      kernel.in = {gemm, chunk, arena, block, arena_out, block_out, 0, 0};
      const device::Grid grid = kernel.in.grid();
      device.launch(kernel, grid, gemm_shared_bytes<decltype(kernel)>());
    };
    if constexpr (sizeof(Real) == 4)
      if (units == GemmUnits::tensor) return launch(RowGemmTensor<decltype(columns)::value>());
    launch(RowGemmVector<Real, decltype(columns)::value>());
  });
}

}  // namespace grace::gpu
