// Second-layer bonds: T[lm, r] = sum_j R_nl Y_lm I_j[n, r] per atom and channel vector, coupled to YI; and the adjoint.
//
// One atom and one vector of channels at a time: the (lm, r) pairs (at most 25 x 16 vectors) live in L1.
#pragma once

#include "grace/evaluator_cpu/basis.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// pairs[lm * n_rows + r] for r in a register block of NR message rows and the 2l + 1 rows of one l in blocks of NL.
template <class Real, int NL, int NR>
GRACE_FORCEINLINE void accumulate_pairs(const LayerPlan<Real>& layer, const Tile<Real>& tile, int atom, int n, int l,
                                        int lm0, int r0, Real* pairs) {
  using P = Pack<Real>;
  using V = typename P::V;
  const Bonds<Real>& bonds = tile.bonds;
  const RadialPlan<Real>& radial = layer.radial;
  const long component = bonds.capacity, atom_stride = static_cast<long>(layer.n_message_rows) * radial.stride;
  V sum[NL][NR];
#pragma GCC unroll 8
  for (int m = 0; m < NL; ++m)
#pragma GCC unroll 8
    for (int r = 0; r < NR; ++r) sum[m][r] = P::zero();
  for (int b = bonds.first[atom]; b < bonds.first[atom + 1]; ++b) {
    const long j = tile.owner == nullptr ? bonds.neighbor[b] : tile.owner[bonds.neighbor[b]];
    const Real* I = tile.message + j * atom_stride + static_cast<long>(r0) * radial.stride + n;
    const V R = P::load(bonds.radial + static_cast<long>(bonds.radial_row[b]) * radial.width + l * radial.stride + n);
    const Real* Y = bonds.harmonics + lm0 * component + b;
    V value[NR];
#pragma GCC unroll 8
    for (int r = 0; r < NR; ++r) value[r] = R * P::load(I + r * radial.stride);
#pragma GCC unroll 8
    for (int m = 0; m < NL; ++m) {
      const V y = P::set(Y[m * component]);
#pragma GCC unroll 8
      for (int r = 0; r < NR; ++r) sum[m][r] += y * value[r];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < NL; ++m)
#pragma GCC unroll 8
    for (int r = 0; r < NR; ++r)
      P::store(pairs + ((lm0 + m) * layer.n_message_rows + r0 + r) * static_cast<long>(P::width), sum[m][r]);
}

template <class Real, int NR>
GRACE_FORCEINLINE void accumulate_pairs_l(const LayerPlan<Real>& layer, const Tile<Real>& tile, int atom, int n, int l,
                                          int r0, Real* pairs) {
  // 2l + 1 rows in blocks that leave no remainder: 5 x 4 sums of 32 registers, 2 x 4 of 16.
  int lm = l * l;
  const int end = (l + 1) * (l + 1);
  if constexpr (vector_bytes == 64) {
    for (; end - lm >= 9 || end - lm == 5; lm += 5)
      accumulate_pairs<Real, 5, NR>(layer, tile, atom, n, l, lm, r0, pairs);
    for (; end - lm >= 7 || end - lm == 4; lm += 4)
      accumulate_pairs<Real, 4, NR>(layer, tile, atom, n, l, lm, r0, pairs);
    for (; end - lm >= 3; lm += 3) accumulate_pairs<Real, 3, NR>(layer, tile, atom, n, l, lm, r0, pairs);
  }
  for (; end - lm >= 2; lm += 2) accumulate_pairs<Real, 2, NR>(layer, tile, atom, n, l, lm, r0, pairs);
  for (; lm < end; ++lm) accumulate_pairs<Real, 1, NR>(layer, tile, atom, n, l, lm, r0, pairs);
}

// Rows of one vector each: out[target] = factor * sum c in[first].
template <class Real>
GRACE_FORCEINLINE void couple_pairs(const GatherTable<Real>& table, const Real* in, long in_stride, Real* out,
                                    long out_stride, Real factor) {
  using P = Pack<Real>;
  for (int t = 0; t < table.n_targets; ++t) {
    typename P::V sum = P::zero();
    for (int k = table.first_term[t]; k < table.first_term[t + 1]; ++k)
      sum += table.terms[k].coefficient * P::load(in + table.terms[k].first * in_stride);
    P::store(out + table.target[t] * out_stride, factor * sum);
  }
}

template <class Real>
void message_forward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  using P = Pack<Real>;
  const RadialPlan<Real>& radial = layer.radial;
  Real* YI = slot_rows(tile.values, layer.slots[layer.message_basis], tile);
  const long row_stride = static_cast<long>(tile.n_atoms) * radial.stride;
  Real* pairs = tile.pair_buffer;
  for (int atom = 0; atom < tile.n_atoms; ++atom)
    for (int n = 0; n < radial.stride; n += P::width) {
      for (int l = 0; l <= radial.lmax; ++l) {
        int r = 0;
        for (; r + 4 <= layer.n_message_rows; r += 4) accumulate_pairs_l<Real, 4>(layer, tile, atom, n, l, r, pairs);
        for (; r < layer.n_message_rows; ++r) accumulate_pairs_l<Real, 1>(layer, tile, atom, n, l, r, pairs);
      }
      couple_pairs(layer.message_forward, pairs, P::width, YI + static_cast<long>(atom) * radial.stride + n, row_stride,
                   layer.message_factor[tile.species[atom]]);
    }
}

// For NR message rows of one bond, in registers: gI[r] += sum_lm ry[lm] gT[lm][r] and gry[lm] += sum_r gT[lm][r] I[r].
template <class Real, int NR>
GRACE_FORCEINLINE void pair_adjoint(int n_lm, int n_rows, int row, int stride, const Real* gT, const Real* I,
                                    const Real* ry, Real* gI, Real* gry) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int W = P::width;
  V value[NR], sum[NR];
#pragma GCC unroll 8
  for (int k = 0; k < NR; ++k) {
    value[k] = P::load(I + static_cast<long>(row + k) * stride);
    sum[k] = P::load(gI + static_cast<long>(row + k) * stride);
  }
  const Real* T = gT + static_cast<long>(row) * W;
  for (int lm = 0; lm < n_lm; ++lm, T += static_cast<long>(n_rows) * W) {
    const V a = P::load(ry + lm * W);
    V g = P::load(gry + lm * W), g2 = P::zero();
#pragma GCC unroll 8
    for (int k = 0; k < NR; ++k) {
      const V t = P::load(T + k * W);
      sum[k] += a * t;
      if (k % 2 == 0)
        g += t * value[k];
      else
        g2 += t * value[k];
    }
    P::store(gry + lm * W, g + g2);
  }
#pragma GCC unroll 8
  for (int k = 0; k < NR; ++k) P::store(gI + static_cast<long>(row + k) * stride, sum[k]);
}

// Adjoint of the message basis and of the chemical basis (B0) of the same bonds, which share R and Y:
//   g_lm = sum_r gT[lm, r] I_j[r] + z(mu_j) gB0[lm]      (gradient of R_nl Y_lm)
//   gI_j[r] += sum_lm R_nl Y_lm gT[lm, r]
template <class Real>
void message_backward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int W = P::width;
  Bonds<Real>& bonds = tile.bonds;
  const RadialPlan<Real>& radial = layer.radial;
  const long component = bonds.capacity, atom_stride = static_cast<long>(layer.n_message_rows) * radial.stride;
  const long row_stride = static_cast<long>(tile.n_atoms) * radial.stride;
  const int n_lm = layer.n_harmonics, n_rows = layer.n_message_rows;
  const Real* gYI = slot_rows(tile.gradients, layer.slots[layer.message_basis], tile);
  const Real* gB0 = layer.basis < 0 ? nullptr : slot_rows(tile.gradients, layer.slots[layer.basis], tile);
  Real* gT = tile.pair_buffer;                           // [n_lm][n_rows][W]
  Real* ry = gT + static_cast<long>(n_lm) * n_rows * W;  // [n_lm][W]
  Real* g0 = ry + static_cast<long>(n_lm) * W;           // [n_lm][W] factor * gB0
  Real* gry = g0 + static_cast<long>(n_lm) * W;          // [n_lm][W] gradient of R Y of one bond
  for (int atom = 0; atom < tile.n_atoms; ++atom) {
    const int begin = bonds.first[atom], end = bonds.first[atom + 1];
    for (int n = 0; n < radial.stride; n += W) {
      const long channel = static_cast<long>(atom) * radial.stride + n;
      couple_pairs(layer.message_adjoint, gYI + channel, row_stride, gT, W, layer.message_factor[tile.species[atom]]);
      for (int lm = 0; lm < n_lm; ++lm)
        P::store(g0 + lm * W, gB0 == nullptr
                                  ? P::zero()
                                  : layer.basis_factor[tile.species[atom]] * P::load(gB0 + lm * row_stride + channel));
      for (int b = begin; b < end; ++b) {
        const long j = tile.owner == nullptr ? bonds.neighbor[b] : tile.owner[bonds.neighbor[b]];
        const Real* I = tile.message + j * atom_stride + n;
        Real* gI = tile.message_gradient + j * atom_stride + n;
        const Real* R = bonds.radial + static_cast<long>(bonds.radial_row[b]) * radial.width + n;
        const Real* S = bonds.radial_slope + static_cast<long>(bonds.radial_row[b]) * radial.width + n;
        const Real* Y = bonds.harmonics + b;
        const Real* dY = bonds.harmonics_gradient + b;
        const V z = gB0 == nullptr ? P::zero()
                                   : P::load(layer.chemical + static_cast<long>(bonds.species[b]) * radial.stride + n);
        for (int l = 0, lm = 0; l <= radial.lmax; ++l) {
          const V r = P::load(R + l * radial.stride);
          for (; lm < (l + 1) * (l + 1); ++lm) {
            P::store(ry + lm * W, r * Y[lm * component]);
            P::store(gry + lm * W, z * P::load(g0 + lm * W));
          }
        }
        int row = 0;
        if constexpr (vector_bytes == 64)
          for (; row + 8 <= n_rows; row += 8)
            pair_adjoint<Real, 8>(n_lm, n_rows, row, radial.stride, gT, I, ry, gI, gry);
        for (; row + 4 <= n_rows; row += 4) pair_adjoint<Real, 4>(n_lm, n_rows, row, radial.stride, gT, I, ry, gI, gry);
        for (; row < n_rows; ++row) pair_adjoint<Real, 1>(n_lm, n_rows, row, radial.stride, gT, I, ry, gI, gry);
        // gradient of R Y, contracted with dR/dx and dY/du
        V slope = P::zero(), fx = P::zero(), fy = P::zero(), fz = P::zero();
        for (int l = 0, lm = 0; l <= radial.lmax; ++l) {
          const V rl = P::load(R + l * radial.stride);
          V t = P::zero();
          for (; lm < (l + 1) * (l + 1); ++lm) {
            const V g = P::load(gry + lm * W);
            t += g * Y[lm * component];
            const V gr = g * rl;
            fx += gr * dY[(3 * lm) * component];
            fy += gr * dY[(3 * lm + 1) * component];
            fz += gr * dY[(3 * lm + 2) * component];
          }
          slope += t * P::load(S + l * radial.stride);
        }
        add_bond_gradient(bonds, b, P::sum(slope), P::sum(fx), P::sum(fy), P::sum(fz));
      }
    }
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
