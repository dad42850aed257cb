// Dense maps in fp32 on tensor cores. A number is the sum of two in TF32, x = big + small, to the last bit or two of
// fp32, and
//   x y = big big + (big small + small big) + small small, of which the last is below fp32.
// The products of a slice of the inner dimension are added on the tensor cores, the small ones first, and the slice is
// added to the sums by the threads: tensor cores round towards zero, which makes long sums there several times less
// exact than those of fp32. Sliced they are as exact, or better where sums are long (test_gpu_row_gemm.cpp).
#pragma once

#include "grace/device/mma.hpp"
#include "grace/evaluator_cuda/row_gemm_staging.hpp"

namespace grace::gpu {

// Four warps, each with m_tiles x n_tiles products of 16 x 8 numbers: two times two warps on 64 atoms; on 32 atoms two
// warps, and two teams that take turns with the slices. The pitch of the matrix is an odd multiple of 8, that of the
// rows one of 4, so that the 32 lanes of a load meet different banks.
template <int columns_>
struct TensorTile {
  static constexpr int columns = columns_;
  static constexpr int atoms = tile_atoms(columns);
  static constexpr int threads = 128;
  static constexpr int atom_warps = 2;
  static constexpr int column_warps = atoms == gemm_atoms ? 2 : 1;
  static constexpr int teams = 4 / (atom_warps * column_warps);
  static constexpr int team_threads = threads / teams;
  static constexpr int m_tiles = atoms / 16 / atom_warps;
  static constexpr int n_tiles = columns / 8 / column_warps;
  static constexpr int slab = slab_size<float>(columns);
  static constexpr int row_pitch = slab + 4;
  static constexpr int matrix_pitch = columns % 16 == 0 ? columns + 8 : columns;
  static constexpr int most_targets = most_block_targets;
};

template <int columns_>
struct RowGemmTensor {
  using Tile = TensorTile<columns_>;
  using Input = GemmInput<float, Tile>;
  static constexpr const char* name = "row_gemm_tensor";
  static constexpr int threads = Tile::threads;
  static constexpr int min_blocks = 4;
  static constexpr int n_sums = Tile::m_tiles * Tile::n_tiles;
  struct Private {
    device::MmaC sum[n_sums];  // [m_tiles][n_tiles]
    device::MmaC slice;
    device::MmaA row_big[Tile::m_tiles], row_small[Tile::m_tiles];
    device::MmaB matrix_big, matrix_small;
  };
  struct alignas(8) Pair {
    float x[2];
  };

  Input in;

  // A thread's place among the lanes (device/mma.hpp) and its warp's in the tile.
  struct Unit {
    int team, atom, column;  // of the warp
    int g, t;
  };
  static GRACE_DEVICE Unit unit_of(int thread) {
    const int warp = thread / 32, of_team = warp % (Tile::atom_warps * Tile::column_warps);
    return {warp / (Tile::atom_warps * Tile::column_warps), of_team % Tile::atom_warps * (16 * Tile::m_tiles),
            of_team / Tile::atom_warps * (8 * Tile::n_tiles), thread % 32 / 4, thread % 4};
  }

  static GRACE_DEVICE void split(float x, device::Tf32& big, device::Tf32& small) {
    big = device::nearest_tf32(x);
    small = device::as_tf32(x - device::from_tf32(big));
  }

  template <class Warp>
  static GRACE_DEVICE void multiply(Warp& warp, const GemmPlace& place, const float* rows, const float* matrix,
                                    int inputs) {
    const Unit of_warp = unit_of(32 * warp.index());
    if (of_warp.atom >= place.count) return;
    for (int k = 8 * of_warp.team; k < inputs; k += 8 * Tile::teams) {
      warp.each_lane([&](int thread, Private& own) {
        const Unit u = unit_of(thread);
        const float* from = rows + (u.atom + u.g) * Tile::row_pitch + k + u.t;
        for (int m = 0; m < Tile::m_tiles; ++m)
          for (int i = 0; i < 4; ++i)
            split(from[(16 * m + i % 2 * 8) * Tile::row_pitch + i / 2 * 4], own.row_big[m].x[i], own.row_small[m].x[i]);
      });
      for (int n = 0; n < Tile::n_tiles; ++n) {
        warp.each_lane([&](int thread, Private& own) {
          const Unit u = unit_of(thread);
          const float* from = matrix + (k + u.t) * Tile::matrix_pitch + u.column + 8 * n + u.g;
          for (int i = 0; i < 2; ++i)
            split(from[4 * i * Tile::matrix_pitch], own.matrix_big.x[i], own.matrix_small.x[i]);
        });
        for (int m = 0; m < Tile::m_tiles; ++m) {
          using device::MmaOperands;
          warp.each_lane([&](int, Private& own) { own.slice = {}; });
          warp.multiply_add([&](Private& own) { return MmaOperands{&own.slice, &own.row_small[m], &own.matrix_big}; });
          warp.multiply_add([&](Private& own) { return MmaOperands{&own.slice, &own.row_big[m], &own.matrix_small}; });
          warp.multiply_add([&](Private& own) { return MmaOperands{&own.slice, &own.row_big[m], &own.matrix_big}; });
          warp.each_lane([&](int, Private& own) {
            for (int i = 0; i < 4; ++i) own.sum[m * Tile::n_tiles + n].x[i] += own.slice.x[i];
          });
        }
      }
    }
  }

  // Calls visit(atom, column, two numbers) for every pair of the thread that exists.
  template <class Visit>
  static GRACE_DEVICE void each_pair(int thread, const GemmPlace& place, Private& own, Visit visit) {
    const Unit u = unit_of(thread);
    if (u.team != 0) return;
    for (int m = 0; m < Tile::m_tiles; ++m)
      for (int n = 0; n < Tile::n_tiles; ++n)
        for (int half = 0; half < 2; ++half) {
          const int atom = u.atom + 16 * m + 8 * half + u.g, column = u.column + 8 * n + 2 * u.t;
          if (atom < place.count && column < place.n_columns)
            visit(atom, column, own.sum[m * Tile::n_tiles + n].x + 2 * half);
        }
  }

  GRACE_DEVICE void start(int thread, const GemmPlace& place, const GemmTarget& target, Private& own) const {
    for (int i = 0; i < n_sums; ++i) own.sum[i] = {};
    if (target.accumulate == 0) return;
    const float* const tile = in.target(target, place);
    const int pitch = in.gemm.n_columns;
    each_pair(thread, place, own, [&](int atom, int column, float* sum) {
      const Pair before = *reinterpret_cast<const Pair*>(tile + atom * pitch + column);
      sum[0] = before.x[0];
      sum[1] = before.x[1];
    });
  }

  GRACE_DEVICE void finish(int thread, const GemmPlace& place, const GemmTarget& target, Private& own) const {
    float* const tile = in.target(target, place);
    const int pitch = in.gemm.n_columns;
    each_pair(thread, place, own, [&](int atom, int column, const float* sum) {
      *reinterpret_cast<Pair*>(tile + atom * pitch + column) = Pair{{sum[0], sum[1]}};
    });
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    walk_slabs<RowGemmTensor, float>(*this, block);
  }
};

}  // namespace grace::gpu
