// What the kernels of row_gemm.hpp share: which numbers a block computes, how the sources come into shared memory, and
// how partial sums are added.
//
// A block makes a tile of one target, `atoms` x `columns`. The inner dimension of all its sources is walked in slabs:
// the slab of the rows, [atoms][slab], and of the matrix, [slab][columns], are copied to shared memory asynchronously,
// gemm_stages - 1 slabs ahead of the one that is multiplied. Rows of atoms beyond the tile and columns beyond the
// target are not copied; what they hold reaches only sums that are never stored. Teams of threads each take a part of
// every slab, and their sums are added in a fixed order at the end.
#pragma once

#include <type_traits>

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/row_gemm.hpp"

namespace grace::gpu {

constexpr int gemm_stages = 3;

template <class Real>
struct alignas(16) Packet {
  static constexpr int size = 16 / sizeof(Real);
  Real x[size];
};

// Slabs of the tiles whose blocks hold so many atoms: 64 for mixes; 32 for narrow targets, which are reductions of few
// rows, so that a chunk makes more blocks.
constexpr int tile_atoms(int columns) { return columns >= 32 ? gemm_atoms : gemm_atoms / 2; }
template <class Real>
constexpr int slab_size(int columns) {
  return (columns >= 32 ? 128 : 256) / static_cast<int>(sizeof(Real));
}

// A slab of a source.
struct GemmStep {
  int source = 0;
  int k = 0;       // first row of the matrix
  int inputs = 0;  // rows of the matrix in this slab
};

// Atoms and columns of a block.
struct GemmPlace {
  int begin = 0;
  int count = 0;  // of at most Tile::atoms; zero or less: nothing to do
  int element = 0;
  int column0 = 0;
  int n_columns = 0;
};

// Tile: constants atoms, columns, slab, row_pitch, matrix_pitch, threads.
template <class Real, class Tile>
struct GemmInput {
  RowGemm<Real> gemm;
  Chunk chunk;
  const Real* arena;
  const Real* block_rows;
  Real* arena_out;
  Real* block_out;
  int column_blocks;

  static constexpr int stage_numbers = Tile::atoms * Tile::row_pitch + Tile::slab * Tile::matrix_pitch;
  static constexpr std::size_t shared_bytes() { return device::shared_size<Real>(gemm_stages * stage_numbers); }

  // Parts of an AtomTile, or of the chunk where all elements share their matrices.
  static constexpr int tile_parts = gemm_atoms / Tile::atoms;
  unsigned blocks() const {
    const unsigned tiles = gemm.element_stride != 0 ? static_cast<unsigned>(chunk.n_tiles * tile_parts)
                                                    : device::blocks_for(chunk.n_atoms, Tile::atoms);
    return tiles * static_cast<unsigned>(column_blocks);
  }

  GRACE_DEVICE GemmPlace place(unsigned x) const {
    const int tile = static_cast<int>(x) / column_blocks;
    GemmPlace p;
    p.column0 = (static_cast<int>(x) - tile * column_blocks) * Tile::columns;
    p.n_columns = gemm.n_columns - p.column0 < Tile::columns ? gemm.n_columns - p.column0 : Tile::columns;
    if (gemm.element_stride == 0) {
      p.begin = tile * Tile::atoms;
      p.count = chunk.n_atoms - p.begin;
    } else {
      const AtomTile of = chunk.tiles[tile / tile_parts];
      const int skipped = tile % tile_parts * Tile::atoms;
      p.begin = of.begin + skipped;
      p.count = of.count - skipped;
      p.element = of.element;
    }
    if (p.count > Tile::atoms) p.count = Tile::atoms;
    return p;
  }

  // ---- steps: the slabs of the sources [first, last) of a target; inputs == 0 after the last one

  GRACE_DEVICE GemmStep step(int source, int k, int last) const {
    if (source >= last) return {source, 0, 0};
    const int left = gemm.sources[source].row.stride - k;
    return {source, k, left < Tile::slab ? left : Tile::slab};
  }
  GRACE_DEVICE GemmStep next(const GemmStep& now, int last) const {
    if (now.inputs == 0) return now;
    const int k = now.k + now.inputs;
    return k < gemm.sources[now.source].row.stride ? step(now.source, k, last) : step(now.source + 1, 0, last);
  }

  // ---- shared memory: gemm_stages times rows [atoms][row_pitch] and matrix [slab][matrix_pitch]

  static GRACE_DEVICE const Real* rows(const Real* memory, int stage) { return memory + stage * stage_numbers; }
  static GRACE_DEVICE const Real* matrix(const Real* memory, int stage) {
    return rows(memory, stage) + Tile::atoms * Tile::row_pitch;
  }

  // One group of copies of the thread, empty after the last step.
  template <class Block>
  GRACE_DEVICE void copy(Block& block, int thread, const GemmPlace& p, const GemmStep& now, Real* memory,
                         int stage) const {
    if (now.inputs > 0) {
      const GemmSource& source = gemm.sources[now.source];
      const int stride = source.row.stride;
      const Real* from = (source.row.place == Place::arena ? arena : block_rows) + source.row.start(chunk.n_atoms) +
                         std::int64_t{p.begin} * stride + now.k;
      Real* to = memory + stage * stage_numbers;
      copy_part<false, Tile::atoms, Tile::slab>(block, thread, from, stride, to, Tile::row_pitch, p.count, now.inputs);
      from = gemm.weights + p.element * gemm.element_stride + source.weights + std::int64_t{now.k} * gemm.n_columns +
             p.column0;
      to += Tile::atoms * Tile::row_pitch;
      copy_part<true, Tile::slab, Tile::columns>(block, thread, from, gemm.n_columns, to, Tile::matrix_pitch,
                                                 now.inputs, p.n_columns);
    }
    block.commit_copies();
  }

  // Address of number (atom, column) of the block's tile.
  GRACE_DEVICE Real* target(const GemmTarget& target, const GemmPlace& p, int atom, int column) const {
    Real* row = (target.row.place == Place::arena ? arena_out : block_out) + target.row.start(chunk.n_atoms);
    return row + std::int64_t{p.begin + atom} * gemm.n_columns + p.column0 + column;
  }

 private:
  // Copies the first `lines` lines and `columns` columns of a matrix of at most most_lines x most_columns. A thread
  // keeps to one column, so that its addresses are those of the first line and steps.
  template <bool keep, int most_lines, int most_columns, class Block>
  static GRACE_DEVICE void copy_part(Block& block, int thread, const Real* from, int from_pitch, Real* to, int to_pitch,
                                     int lines, int columns) {
    constexpr int packet = Packet<Real>::size, of_line = most_columns / packet, step = Tile::threads / of_line;
    const int line = thread / of_line, column = (thread - line * of_line) * packet;
    if ((Tile::threads % of_line != 0 && line >= step) || column >= columns) return;
    from += line * from_pitch + column;
    to += line * to_pitch + column;
    for (int i = 0; i < (most_lines + step - 1) / step; ++i) {
      if (line + i * step < lines) block.template copy_async<keep>(to + i * step * to_pitch, from);
      from += step * from_pitch;
    }
  }
};

// Walks the slabs of all sources of a target. start(thread, own) sets the sums while the first slabs are on their way;
// multiply(warp, rows, matrix, inputs) adds the products of a slab, as code of block.each_warp.
template <class Private, class Input, class Block, class Real, class Start, class Multiply>
GRACE_DEVICE void walk_slabs(const Input& in, Block& block, const GemmPlace& place, const GemmTarget& target,
                             Real* memory, Start start, Multiply multiply) {
  const int last = target.first_source + target.n_sources;
  GemmStep now = in.step(target.first_source, 0, last), ahead = now;
  for (int stage = 0; stage < gemm_stages - 1; ++stage) {
    block.each_thread([&](int thread, Private&) { in.copy(block, thread, place, ahead, memory, stage); });
    ahead = in.next(ahead, last);
  }
  block.each_thread([&](int thread, Private& own) {
    start(thread, own);
    block.template wait_copies<gemm_stages - 2>();
  });
  for (int stage = 0; now.inputs > 0; stage = (stage + 1) % gemm_stages) {
    block.each_warp([&](auto& warp) {
      warp.each_lane([&](int thread, Private&) {
        in.copy(block, thread, place, ahead, memory, (stage + gemm_stages - 1) % gemm_stages);
      });
      multiply(warp, Input::rows(memory, stage), Input::matrix(memory, stage), now.inputs);
      warp.each_lane([&](int, Private&) { block.template wait_copies<gemm_stages - 2>(); });
    });
    now = in.next(now, last);
    ahead = in.next(ahead, last);
  }
}

// Adds the sums of all teams to those of the first one; (0 + 2) + (1 + 3) for four. Private::sum is an array of packets
// `x`; memory: half the block's sums.
template <int teams, int team_threads, class Private, class Block>
GRACE_DEVICE void add_teams(Block& block, void* memory) {
  using Sums = decltype(Private::sum);
  using Sum = std::remove_extent_t<Sums>;
  constexpr int n = std::extent_v<Sums>;
  Sum* partial = static_cast<Sum*>(memory);
  for (int half = teams / 2; half > 0; half /= 2) {
    const int pitch = half * team_threads;
    block.each_thread([&](int thread, Private& own) {
      if (thread < pitch || thread >= 2 * pitch) return;
      for (int i = 0; i < n; ++i) partial[i * pitch + thread - pitch] = own.sum[i];
    });
    block.each_thread([&](int thread, Private& own) {
      if (thread >= pitch) return;
      for (int i = 0; i < n; ++i) {
        const Sum other = partial[i * pitch + thread];
        for (unsigned e = 0; e < sizeof(other.x) / sizeof(other.x[0]); ++e) own.sum[i].x[e] += other.x[e];
      }
    });
  }
}

}  // namespace grace::gpu
