// Kernels of product.hpp. A row of a chunk is one array of n_atoms * stride numbers, and a product acts on every number
// by itself, so a block takes a piece of that array without asking which atom or channel it is.
#pragma once

#include <cstdint>
#include <utility>

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/product.hpp"
#include "grace/evaluator_cuda/product_pattern.hpp"

namespace grace::gpu {

// The sources of a piece of `columns` x 32 lanes (8 bytes each) are staged in shared memory. Then every warp has one
// column and some of the targets: sums and the multiplets of a piece are in registers, and each staged number is read
// once per piece, not once per term.
template <class Real>
struct ProductKernel {
  static constexpr int threads = 128;
  static constexpr int min_blocks = sizeof(Real) == 4 ? 5 : 4;  // 96 or 128 registers
  static constexpr int lanes = 32;                              // of a column
  static constexpr int most_columns = threads / lanes;
  static constexpr int per_lane = 8 / sizeof(Real);
  using Private = device::NoPrivate;
  struct alignas(8) Lane {
    Real of[per_lane];
  };
  struct alignas(16) Two {
    Lane of[2];
  };
  struct alignas(16) Coefficients {
    Real of[2 * per_lane];
  };

  ProductGather<Real> gather;
  const Real* arena;
  const Real* rows;  // of the block
  Real* out;
  int n_atoms;
  int stride;
  int column_bits;  // a block has 1 << column_bits columns

  static std::size_t shared_bytes(int n_sources, int bits) {
    return device::shared_size<Lane>(static_cast<std::size_t>(n_sources) * lanes << bits);
  }

  // staged[column][source][lane]
  GRACE_DEVICE void stage(int thread, std::int64_t first_lane, std::int64_t n_lanes, Lane* staged) const {
    constexpr int twos = lanes / 2, ahead = 4;  // loads that travel together
    const int two = thread & ((twos << column_bits) - 1), step = threads / twos >> column_bits;
    const std::int64_t lane = first_lane + 2 * two;
    if (lane >= n_lanes) return;
    Two* to = reinterpret_cast<Two*>(staged) + two / twos * gather.n_sources * twos + two % twos;
    for (int s = thread / twos >> column_bits; s < gather.n_sources; s += ahead * step) {
      Two value[ahead] = {};
      for (int i = 0; i < ahead; ++i)
        if (s + i * step < gather.n_sources) {
          const RowAddress row = gather.sources[s + i * step];
          const Real* from = row.place == Place::block ? rows : arena;
          value[i] = *reinterpret_cast<const Two*>(from + row.start(n_atoms) + lane * per_lane);
        }
      for (int i = 0; i < ahead; ++i)
        if (s + i * step < gather.n_sources) to[(s + i * step) * twos] = value[i];
    }
  }

  // What the terms of a piece share: four of the coefficients, and the number of the first multiplet in use.
  struct Moving {
    Coefficients coefficients;
    Lane first;
  };
  template <int I, int L, int L1, int L2>
  static GRACE_DEVICE void add_term(const Coefficients* coefficients, const Lane* first, Moving& now,
                                    const Lane* second, Lane* sum) {
    constexpr int packed = 2 * per_lane;
    constexpr PatternTerm term = coupling_pattern(L, L1, L2).terms[I];
    if constexpr (I % packed == 0) now.coefficients = coefficients[I / packed];
    if constexpr (I == 0 || coupling_pattern(L, L1, L2).terms[I == 0 ? 0 : I - 1].first != term.first)
      now.first = first[term.first * lanes];
    for (int i = 0; i < per_lane; ++i)
      math::coupling_term(now.coefficients.of[I % packed], now.first.of[i], second[term.second].of[i],
                          sum[term.row].of[i]);
  }
  template <int L, int L1, int L2, int... I>
  static GRACE_DEVICE void add_terms(const Real* coefficients, const Lane* first, const Lane* second, Lane* sum,
                                     std::integer_sequence<int, I...>) {
    Moving now = {};
    (add_term<I, L, L1, L2>(reinterpret_cast<const Coefficients*>(coefficients), first, now, second, sum), ...);
  }

  // first, second: in shared memory
  template <int L, int pair>
  static GRACE_DEVICE void add_piece(const Real* coefficients, const Lane* first, const Lane* second, Lane* sum) {
    constexpr int L1 = smaller_degree(pair), L2 = larger_degree(pair);
    if constexpr (degrees_couple(L, L1, L2)) {
      Lane all[2 * L2 + 1];
      for (int m = 0; m < 2 * L2 + 1; ++m) all[m] = second[m * lanes];
      add_terms<L, L1, L2>(coefficients, first, all, sum,
                           std::make_integer_sequence<int, coupling_pattern(L, L1, L2).size>());
    }
  }
  template <int L, int... pair>
  GRACE_DEVICE void add_any_piece(const ProductPiece& piece, const Lane* staged, Lane* sum,
                                  std::integer_sequence<int, pair...>) const {
    const Real* c = gather.coefficients + piece.coefficients;
    const Lane *first = staged + piece.first * lanes, *second = staged + piece.second * lanes;
    (..., (piece.kind == pair ? add_piece<L, pair>(c, first, second, sum) : void()));
  }

  // staged: the column of the thread; to: the first row of the target
  template <int n_rows>
  GRACE_DEVICE void finish(const ProductTarget& target, const Lane* sum, Real* to) const {
    const std::int64_t row = std::int64_t{n_atoms} * stride;
    Lane before[n_rows];
    for (int r = 0; r < n_rows; ++r)
      before[r] = (target.accumulate >> r & 1u) != 0 ? *reinterpret_cast<const Lane*>(to + r * row) : Lane{};
    for (int r = 0; r < n_rows; ++r) {
      for (int i = 0; i < per_lane; ++i) before[r].of[i] += sum[r].of[i];
      *reinterpret_cast<Lane*>(to + r * row) = before[r];
    }
  }
  template <int L>
  GRACE_DEVICE void run_multiplet(const ProductTarget& target, const Lane* staged, Real* to) const {
    Lane sum[2 * L + 1] = {};
    for (int p = target.begin; p < target.end; ++p) {
      const ProductPiece piece = gather.pieces[p];
      add_any_piece<L>(piece, staged, sum, std::make_integer_sequence<int, n_pattern_pairs>());
    }
    finish<2 * L + 1>(target, sum, to);
  }
  GRACE_DEVICE void run_row(const ProductTarget& target, const Lane* staged, Real* to) const {
    Lane sum = {};
    for (int k = target.begin; k < target.end; ++k) {
      const math::GatherTerm<Real> term = gather.terms[k];
      const Lane first = staged[term.first * lanes], second = staged[term.second * lanes];
      for (int i = 0; i < per_lane; ++i) math::coupling_term(term.coefficient, first.of[i], second.of[i], sum.of[i]);
    }
    finish<1>(target, &sum, to);
  }
  template <int... L>
  GRACE_DEVICE void run_any_multiplet(const ProductTarget& target, const Lane* staged, Real* to,
                                      std::integer_sequence<int, L...>) const {
    (..., (target.degree == L ? run_multiplet<L>(target, staged, to) : void()));
  }

  GRACE_DEVICE void run_targets(int thread, std::int64_t first_lane, std::int64_t n_lanes, const Lane* staged) const {
    const int warp = thread / lanes, lane = thread % lanes, column = warp & ((1 << column_bits) - 1);
    const int group = warp >> column_bits, n_groups = most_columns >> column_bits;
    const std::int64_t at = first_lane + column * lanes + lane;
    if (at >= n_lanes) return;
    const Lane* own = staged + column * gather.n_sources * lanes + lane;
    // Targets are sorted by work: dealt out to and fro, every group of warps has about the same.
    for (int round = 0; round * n_groups < gather.n_targets; ++round) {
      const int t = round * n_groups + (round % 2 == 0 ? group : n_groups - 1 - group);
      if (t >= gather.n_targets) continue;
      const ProductTarget target = gather.targets[t];
      Real* to = out + target.offset * n_atoms + at * per_lane;
      if (target.degree == ProductTarget::single_row)
        run_row(target, own, to);
      else
        run_any_multiplet(target, own, to, std::make_integer_sequence<int, most_pattern_degree + 1>());
    }
  }

  // A phase of this length would not be inlined as a lambda, and its parameters would go through local memory.
  struct RunTargets {
    const ProductKernel& kernel;
    std::int64_t first_lane, n_lanes;
    const Lane* staged;
    GRACE_DEVICE void operator()(int thread, Private&) const {
      kernel.run_targets(thread, first_lane, n_lanes, staged);
    }
  };

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    Lane* staged = block.template shared<Lane>(gather.n_sources * lanes << column_bits);
    const std::int64_t n_lanes = std::int64_t{n_atoms} * stride / per_lane;
    const std::int64_t first_lane = std::int64_t{block.x()} * lanes << column_bits;
    block.each_thread([&](int thread, Private&) { stage(thread, first_lane, n_lanes, staged); });
    block.each_thread(RunTargets{*this, first_lane, n_lanes, staged});
  }
};

template <class Real>
struct ProductForward : ProductKernel<Real> {
  static constexpr const char* name = "product_forward";
};
template <class Real>
struct ProductAdjoint : ProductKernel<Real> {
  static constexpr const char* name = "product_adjoint";
};

// Wide blocks keep their warps at the same code and share out the targets evenly; narrow ones fit more sources, and
// occupy a GPU with fewer atoms.
template <class Kernel>
int product_column_bits(int n_sources, std::int64_t n_lanes) {
  constexpr std::size_t good_bytes = 44 * 1024;  // five blocks on a multiprocessor
  constexpr int good_blocks = 660;               // as many on each of a large GPU
  int bits = 0;
  while ((1 << bits) < Kernel::most_columns && Kernel::shared_bytes(n_sources, bits + 1) <= good_bytes &&
         n_lanes >= std::int64_t{good_blocks} * Kernel::lanes << (bits + 1))
    ++bits;
  return bits;
}

template <class Kernel, class Device, class Real>
void run_gathers(Device& device, const std::vector<ProductGather<Real>>& gathers, int stride, int n_atoms,
                 const Real* arena, const Real* rows, Real* out) {
  const std::int64_t n_lanes = std::int64_t{n_atoms} * stride / Kernel::per_lane;
  for (const ProductGather<Real>& gather : gathers) {
    const int bits = product_column_bits<Kernel>(gather.n_sources, n_lanes);
    device.launch(Kernel{{gather, arena, rows, out, n_atoms, stride, bits}},
                  {device::blocks_for(n_lanes, Kernel::lanes << bits), 1},
                  Kernel::shared_bytes(gather.n_sources, bits));
  }
}

template <class Device, class Real>
void product_forward(Device& device, const ProductBlock<Real>& block, int n_atoms, const Real* values, Real* rows) {
  run_gathers<ProductForward<Real>>(device, block.forward, block.stride, n_atoms, values,
                                    static_cast<const Real*>(nullptr), rows);
}

template <class Device, class Real>
void product_adjoint(Device& device, const ProductBlock<Real>& block, int n_atoms, const Real* values,
                     const Real* row_gradients, Real* gradients) {
  run_gathers<ProductAdjoint<Real>>(device, block.adjoint, block.stride, n_atoms, values, row_gradients, gradients);
}

}  // namespace grace::gpu
