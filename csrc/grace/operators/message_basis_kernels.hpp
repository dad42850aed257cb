// The four slots of F = sum_b sum_t c_t YI[i_b, f_t] R[b, l(y_t)] Y[b, y_t] I[j_b, w_t], channel by channel, for the
// bonds of a range of atoms.
//
// Per atom and vector of channels all goes through the pairs T[y, w] = sum_b R Y I (forward) and gT[y, w] = sum_t c YI
// (the other slots), which stay in the L1 cache: the terms are summed once per atom instead of once per bond.
#pragma once

#include "grace/operators/kernels.hpp"
#include "grace/operators/lanes.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

// One atom and one vector of channels, from channel n on.
template <class Real>
struct MessageBlock {
  const MessageBasis<Real>& form;
  const MessagePlan<Real>& plan;
  Index atom;
  long n;
  Real* pairs;  // [n_harmonics, n_message_rows, width]

  GRACE_FORCEINLINE const Real* message(Index bond) const {
    return form.message + form.neighbor[bond] * form.n_message_rows * form.n_channels + n;
  }
  GRACE_FORCEINLINE const Real* radial(Index bond) const {
    return form.radial + bond * (form.lmax + 1) * form.n_channels + n;
  }
  GRACE_FORCEINLINE const Real* harmonics(Index bond) const { return form.harmonics + bond * plan.n_harmonics; }
};

// T[y, w] of NY harmonics of degree l and NW message rows in registers, over all bonds of the atom.
template <class Real, class L, int NY, int NW>
GRACE_FORCEINLINE void accumulate_pairs(const MessageBlock<Real>& block, int l, int y0, int w0) {
  using V = typename L::V;
  const MessageBasis<Real>& f = block.form;
  const Index nc = f.n_channels;
  V sum[NY][NW];
#pragma GCC unroll 8
  for (int y = 0; y < NY; ++y)
#pragma GCC unroll 8
    for (int w = 0; w < NW; ++w) sum[y][w] = L::zero();
  for (Index b = f.first[block.atom]; b < f.first[block.atom + 1]; ++b) {
    const Real* I = block.message(b) + w0 * nc;
    const Real* Y = block.harmonics(b) + y0;
    const V R = L::load(block.radial(b) + l * nc);
    V value[NW];
#pragma GCC unroll 8
    for (int w = 0; w < NW; ++w) value[w] = R * L::load(I + w * nc);
#pragma GCC unroll 8
    for (int y = 0; y < NY; ++y)
#pragma GCC unroll 8
      for (int w = 0; w < NW; ++w) sum[y][w] += Y[y] * value[w];
  }
  const Index rows = f.n_message_rows;
#pragma GCC unroll 8
  for (int y = 0; y < NY; ++y)
#pragma GCC unroll 8
    for (int w = 0; w < NW; ++w) L::store(block.pairs + ((y0 + y) * rows + w0 + w) * L::width, sum[y][w]);
}

template <class Real, class L, int NW>
GRACE_FORCEINLINE void accumulate_rows(const MessageBlock<Real>& block, int w0) {
  for (int l = 0; l <= block.form.lmax; ++l) {
    int y = l * l;
    const int end = (l + 1) * (l + 1);
    if constexpr (cpu::vector_bytes == 64)  // up to 5 x 4 sums of 32 registers
      for (; end - y >= 5; y += 5) accumulate_pairs<Real, L, 5, NW>(block, l, y, w0);
    for (; end - y >= 3; y += 3) accumulate_pairs<Real, L, 3, NW>(block, l, y, w0);
    for (; y < end; ++y) accumulate_pairs<Real, L, 1, NW>(block, l, y, w0);
  }
}

template <class Real>
void message_atoms(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Index begin, Index end, Real* out,
                   Real* scratch) {
  const Index nc = form.n_channels;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    for (Index atom = begin; atom < end; ++atom)
      for_channels<L>(nc, [&](long n, int) __attribute__((always_inline)) {
        const MessageBlock<Real> block{form, plan, atom, n, scratch};
        int w = 0;
        for (; w + 4 <= form.n_message_rows; w += 4) accumulate_rows<Real, L, 4>(block, w);
        for (; w < form.n_message_rows; ++w) accumulate_rows<Real, L, 1>(block, w);
        for (Index row = 0; row < form.n_rows; ++row) {
          typename L::V sum = L::zero();
          for (int t = plan.rows.first_term[row]; t < plan.rows.first_term[row + 1]; ++t)
            sum += plan.rows.terms[t].coefficient * L::load(scratch + plan.rows.terms[t].first * long(L::width));
          L::store(out + (atom * form.n_rows + row) * nc + n, sum);
        }
      });
  });
}

// gT[y, w] = sum over terms of c YI[f]
template <class Real, class L>
GRACE_FORCEINLINE void spread_rows(const MessageBlock<Real>& block) {
  const MessageBasis<Real>& f = block.form;
  const Real* YI = f.atoms + block.atom * f.n_rows * f.n_channels + block.n;
  const Gather<Real>& pairs = block.plan.pairs;
  const long n_pairs = long(block.plan.n_harmonics) * f.n_message_rows;
  for (long p = 0; p < n_pairs; ++p) {
    typename L::V sum = L::zero();
    for (int t = pairs.first_term[p]; t < pairs.first_term[p + 1]; ++t)
      sum += pairs.terms[t].coefficient * L::load(YI + pairs.terms[t].first * f.n_channels);
    L::store(block.pairs + p * L::width, sum);
  }
}

// u[y] (+)= sum of NW message rows of gT[y, w] I[w], for one bond
template <class Real, class L, int NW>
GRACE_FORCEINLINE void contract_message(const MessageBlock<Real>& block, const Real* I, int w0, typename L::V* u) {
  using V = typename L::V;
  const Index rows = block.form.n_message_rows;
  V value[NW];
#pragma GCC unroll 8
  for (int w = 0; w < NW; ++w) value[w] = L::load(I + (w0 + w) * block.form.n_channels);
  const Real* T = block.pairs + w0 * L::width;
  for (int y = 0; y < block.plan.n_harmonics; ++y, T += rows * L::width) {
    V even = w0 == 0 ? L::zero() : u[y], odd = L::zero();
#pragma GCC unroll 8
    for (int w = 0; w < NW; ++w) {
      if (w % 2 == 0)
        even += L::load(T + w * L::width) * value[w];
      else
        odd += L::load(T + w * L::width) * value[w];
    }
    u[y] = even + odd;
  }
}

// f(atom, n, overlap, bond, u) with u[y] = sum_t c YI I of every bond: what R and Y share.
template <class Real, class L, class Function>
GRACE_FORCEINLINE void for_contracted_bonds(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Index begin,
                                            Index end, Real* scratch, Function f) {
  typename L::V u[(math::max_lmax + 1) * (math::max_lmax + 1)];
  for (Index atom = begin; atom < end; ++atom)
    for_channels<L>(form.n_channels, [&](long n, int overlap) __attribute__((always_inline)) {
      const MessageBlock<Real> block{form, plan, atom, n, scratch};
      spread_rows<Real, L>(block);
      for (Index b = form.first[atom]; b < form.first[atom + 1]; ++b) {
        const Real* I = block.message(b);
        int w = 0;
        for (; w + 8 <= form.n_message_rows; w += 8) contract_message<Real, L, 8>(block, I, w, u);
        for (; w + 4 <= form.n_message_rows; w += 4) contract_message<Real, L, 4>(block, I, w, u);
        for (; w < form.n_message_rows; ++w) contract_message<Real, L, 1>(block, I, w, u);
        f(n, overlap, b, u);
      }
    });
}

// R[b, l] = sum_y Y u
template <class Real>
void message_radial(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Index begin, Index end, Real* out,
                    Real* scratch) {
  const Index nc = form.n_channels;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    using V = typename L::V;
    for_contracted_bonds<Real, L>(form, plan, begin, end, scratch,
                                  [&](long n, int, Index b, const V* u) __attribute__((always_inline)) {
                                    const Real* Y = form.harmonics + b * plan.n_harmonics;
                                    Real* R = out + b * (form.lmax + 1) * nc + n;
                                    for (int l = 0, y = 0; l <= form.lmax; ++l) {
                                      V sum = L::zero();
                                      for (; y < (l + 1) * (l + 1); ++y) sum += u[y] * Y[y];
                                      L::store(R + l * nc, sum);
                                    }
                                  });
  });
}

// Y[b, y] = sum_n R u; out is zero before.
template <class Real>
void message_harmonics(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Index begin, Index end, Real* out,
                       Real* scratch) {
  const Index nc = form.n_channels;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    using V = typename L::V;
    for_contracted_bonds<Real, L>(form, plan, begin, end, scratch,
                                  [&](long n, int overlap, Index b, V* u) __attribute__((always_inline)) {
                                    const Real* R = form.radial + b * (form.lmax + 1) * nc + n;
                                    const V fresh = fresh_lanes<L>(overlap);
                                    for (int l = 0, y = 0; l <= form.lmax; ++l) {
                                      const V r = L::load(R + l * nc) * fresh;
                                      for (; y < (l + 1) * (l + 1); ++y) u[y] *= r;
                                    }
                                    add_lane_sums<L>(u, plan.n_harmonics, out + b * plan.n_harmonics);
                                  });
  });
}

// G[w] = sum_y gT[y, w] R Y of NW message rows of one bond
template <class Real, class L, int NW>
GRACE_FORCEINLINE void message_rows(const MessageBlock<Real>& block, const typename L::V* ry, int w0, Real* out) {
  using V = typename L::V;
  const Index rows = block.form.n_message_rows;
  V sum[NW];
#pragma GCC unroll 8
  for (int w = 0; w < NW; ++w) sum[w] = L::zero();
  const Real* T = block.pairs + w0 * L::width;
  for (int y = 0; y < block.plan.n_harmonics; ++y, T += rows * L::width)
#pragma GCC unroll 8
    for (int w = 0; w < NW; ++w) sum[w] += L::load(T + w * L::width) * ry[y];
#pragma GCC unroll 8
  for (int w = 0; w < NW; ++w) L::store(out + (w0 + w) * block.form.n_channels, sum[w]);
}

// Contribution [n_message_rows, n_channels] of every bond b to I[j_b], stored at out + (b - first_bond) * its size.
template <class Real>
void message_bonds(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Index begin, Index end,
                   Index first_bond, Real* out, Real* scratch) {
  const Index nc = form.n_channels, size = form.n_message_rows * nc;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    typename L::V ry[(math::max_lmax + 1) * (math::max_lmax + 1)];
    for (Index atom = begin; atom < end; ++atom)
      for_channels<L>(nc, [&](long n, int) __attribute__((always_inline)) {
        const MessageBlock<Real> block{form, plan, atom, n, scratch};
        spread_rows<Real, L>(block);
        for (Index b = form.first[atom]; b < form.first[atom + 1]; ++b) {
          const Real* R = block.radial(b);
          const Real* Y = block.harmonics(b);
          for (int l = 0, y = 0; l <= form.lmax; ++l) {
            const typename L::V r = L::load(R + l * nc);
            for (; y < (l + 1) * (l + 1); ++y) ry[y] = r * Y[y];
          }
          Real* G = out + (b - first_bond) * size + n;
          int w = 0;
          for (; w + 8 <= form.n_message_rows; w += 8) message_rows<Real, L, 8>(block, ry, w, G);
          for (; w + 4 <= form.n_message_rows; w += 4) message_rows<Real, L, 4>(block, ry, w, G);
          for (; w < form.n_message_rows; ++w) message_rows<Real, L, 1>(block, ry, w, G);
        }
      });
  });
}

// sum[0 .. n - 1] += values[0 .. n - 1]
template <class Real>
void add_to(Index n, const Real* values, Real* sum) {
  using L = Lanes<Real, native_width<Real>>;
  Index k = 0;
  for (; k + L::width <= n; k += L::width) L::store(sum + k, L::load(sum + k) + L::load(values + k));
  for (; k < n; ++k) sum[k] += values[k];
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
