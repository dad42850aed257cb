// What the kernels of row_gemm.hpp share: which numbers a block computes, how the sources come into shared memory, and
// how partial sums are added.
//
// A block makes a tile, `atoms` x `columns`, of some targets one after another. The inner dimension of all their
// sources is walked in slabs: the slab of the rows, [atoms][slab], and of the matrix, [slab][columns], are copied to
// shared memory asynchronously, gemm_stages - 1 slabs ahead of the one that is multiplied, also beyond the end of a
// target. Targets of one multiplet follow each other, so that their matrices are still in the L1 cache. Rows of atoms
// beyond the tile and columns beyond the target are not copied; what they hold reaches only sums that are never stored.
// Teams of threads each take a part of every slab, and their sums are added in a fixed order at the end.
#pragma once

#include <algorithm>
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

// Blocks that a launch should have, some waves on the largest GPUs, before a block makes more than one target.
constexpr int wanted_blocks = 1024;
constexpr int most_block_targets = 8;

// A slab of a source of a target.
struct GemmStep {
  int target = -1;
  int source = 0;
  int end = 0;     // of the target's sources
  int k = 0;       // first row of the matrix
  int inputs = 0;  // rows of the matrix in this slab; 0: there are no more slabs
};

// Atoms and columns of a block.
struct GemmPlace {
  int begin = 0;
  int count = 0;  // of at most Tile::atoms; zero or less: nothing to do
  int element = 0;
  int column0 = 0;
  int n_columns = 0;
};

// Tile: constants atoms, columns, slab, row_pitch, matrix_pitch, threads, teams, team_threads, most_targets.
template <class Real, class Tile>
struct GemmInput {
  RowGemm<Real> gemm;
  Chunk chunk;
  const Real* arena;
  const Real* block_rows;
  Real* arena_out;
  Real* block_out;
  int column_blocks;
  int block_targets;

  static constexpr int stage_numbers = Tile::atoms * Tile::row_pitch + Tile::slab * Tile::matrix_pitch;

  // Parts of an AtomTile, or of the chunk where all elements share their matrices.
  static constexpr int tile_parts = gemm_atoms / Tile::atoms;
  unsigned tiles() const {
    return gemm.element_stride != 0 ? static_cast<unsigned>(chunk.n_tiles * tile_parts)
                                    : device::blocks_for(chunk.n_atoms, Tile::atoms);
  }
  device::Grid grid() {
    column_blocks = (gemm.n_columns + Tile::columns - 1) / Tile::columns;
    const unsigned x = tiles() * static_cast<unsigned>(column_blocks);
    const std::int64_t all = std::int64_t{x} * gemm.n_targets;
    block_targets = static_cast<int>(std::clamp<std::int64_t>(all / wanted_blocks, 1, Tile::most_targets));
    return {x, device::blocks_for(gemm.n_targets, block_targets)};
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

  // ---- steps: the slabs of all sources of the targets before `end`

  GRACE_DEVICE GemmStep slab(GemmStep at) const {
    const int left = gemm.sources[at.source].row.stride - at.k;
    at.inputs = left < Tile::slab ? left : Tile::slab;
    return at;
  }
  GRACE_DEVICE GemmStep first_slab(int target, int end) const {
    if (target >= end) return {};
    const GemmTarget& t = gemm.targets[target];
    return slab({target, t.first_source, t.first_source + t.n_sources, 0, 0});
  }
  GRACE_DEVICE GemmStep next_slab(const GemmStep& now, int end) const {
    if (now.inputs == 0) return now;
    const int k = now.k + now.inputs;
    if (k < gemm.sources[now.source].row.stride) return slab({now.target, now.source, now.end, k, 0});
    if (now.source + 1 < now.end) return slab({now.target, now.source + 1, now.end, 0, 0});
    return Tile::most_targets > 1 ? first_slab(now.target + 1, end) : GemmStep();
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

  // The block's tile of a target, [atom][gemm.n_columns]. To be asked for once: what is stored there may be the
  // description of targets for all a compiler knows.
  GRACE_DEVICE Real* target(const GemmTarget& target, const GemmPlace& p) const {
    Real* row = (target.row.place == Place::arena ? arena_out : block_out) + target.row.start(chunk.n_atoms);
    return row + std::int64_t{p.begin} * gemm.n_columns + p.column0;
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

// The sums of a block's threads: Private::sum is an array of packets `x`.
template <class Private>
struct GemmSums {
  using Sum = std::remove_extent_t<decltype(Private::sum)>;
  static constexpr int n = std::extent_v<decltype(Private::sum)>;
};

// Adds the sums of all teams to those of the first one; (0 + 2) + (1 + 3) for four. partial: sums of half the block.
template <class Tile, class Private, class Block, class Sum>
GRACE_DEVICE void add_teams(Block& block, Sum* partial) {
  constexpr int n = GemmSums<Private>::n;
  for (int half = Tile::teams / 2; half > 0; half /= 2) {
    const int pitch = half * Tile::team_threads;
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

// Shared memory of a kernel: the slabs, and sums of half the block where teams add theirs.
template <class Kernel>
GRACE_HD constexpr int partial_sums() {
  return Kernel::Tile::teams > 1 ? GemmSums<typename Kernel::Private>::n * Kernel::threads / 2 : 0;
}
template <class Kernel>
constexpr std::size_t gemm_shared_bytes() {
  using Real = std::remove_cv_t<std::remove_pointer_t<decltype(Kernel::Input::arena)>>;
  return device::shared_size<Real>(gemm_stages * Kernel::Input::stage_numbers) +
         device::shared_size<typename GemmSums<typename Kernel::Private>::Sum>(partial_sums<Kernel>());
}

// The walk over the slabs, which a kernel completes:
//   kernel.start(thread, place, target, own)           sets the sums of a target
//   Kernel::multiply(warp, place, rows, matrix, inputs) adds the products of a slab, as code of block.each_warp
//   kernel.finish(thread, place, target, own)          stores the sums
template <class Kernel, class Real, class Block>
GRACE_DEVICE void walk_slabs(const Kernel& kernel, Block& block) {
  using Private = typename Kernel::Private;
  using Input = typename Kernel::Input;
  using Sum = typename GemmSums<Private>::Sum;
  using Tile = typename Kernel::Tile;
  constexpr bool several = Tile::most_targets > 1;
  const Input& in = kernel.in;
  const GemmPlace place = in.place(block.x());
  if (place.count <= 0) return;
  const int first = static_cast<int>(block.y()) * in.block_targets;
  const int end = first + in.block_targets < in.gemm.n_targets ? first + in.block_targets : in.gemm.n_targets;
  Real* memory = block.template shared<Real>(gemm_stages * Input::stage_numbers);
  Sum* partial = block.template shared<Sum>(partial_sums<Kernel>());

  GemmStep now = in.first_slab(first, end), ahead = now;
  for (int stage = 0; stage < gemm_stages - 1; ++stage) {
    block.each_thread([&](int thread, Private&) { in.copy(block, thread, place, ahead, memory, stage); });
    ahead = in.next_slab(ahead, end);
  }
  block.each_thread([&](int thread, Private& own) {
    kernel.start(thread, place, in.gemm.targets[first], own);
    block.template wait_copies<gemm_stages - 2>();
  });
  const auto add_partial_sums = [&] {
    if (Tile::teams > 1) add_teams<Tile, Private>(block, partial);
  };
  for (int stage = 0; now.inputs > 0; stage = (stage + 1) % gemm_stages) {
    const GemmStep next = in.next_slab(now, end);
    const bool changes = several && next.target != now.target;  // also after the last slab
    const auto change_target = [&](int thread, Private& own) {
      kernel.finish(thread, place, in.gemm.targets[now.target], own);
      if (next.inputs > 0) kernel.start(thread, place, in.gemm.targets[next.target], own);
    };
    block.each_warp([&](auto& warp) {
      warp.each_lane([&](int thread, Private&) {
        in.copy(block, thread, place, ahead, memory, (stage + gemm_stages - 1) % gemm_stages);
      });
      Kernel::multiply(warp, place, Input::rows(memory, stage), Input::matrix(memory, stage), now.inputs);
      warp.each_lane([&](int thread, Private& own) {
        if (Tile::teams == 1 && changes) change_target(thread, own);
        block.template wait_copies<gemm_stages - 2>();
      });
    });
    if (Tile::teams > 1 && changes) {
      add_partial_sums();
      block.each_thread(change_target);
    }
    now = next;
    ahead = in.next_slab(ahead, end);
  }
  if (several) return;
  add_partial_sums();
  block.each_thread([&](int thread, Private& own) { kernel.finish(thread, place, in.gemm.targets[first], own); });
}

}  // namespace grace::gpu
