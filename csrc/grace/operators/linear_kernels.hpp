// Rows times matrices: for up to linear_tile atoms that share their matrices, out[target] = sum over terms of x M, and
// the sum over atoms of x^T y. Sums stay in registers over all terms.
#pragma once

#include "grace/operators/kernels.hpp"
#include "grace/operators/lanes.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

// Register tile of MR atoms and NV vectors of columns: MR NV sums, NV vectors of the matrix, one number of x.
template <class Real, class L, int MR, int NV>
GRACE_FORCEINLINE void linear_block(const LinearRows<Real>& rows, Index target, const Index* atoms, long column,
                                    Real* out) {
  using V = typename L::V;
  V sum[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[m][v] = L::zero();
  const Index nc = rows.n_columns;
  for (int t = rows.first_term[target]; t < rows.first_term[target + 1]; ++t) {
    const LinearTerm<Real>& term = rows.terms[t];
    const Real* x[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) x[m] = term.x + atoms[m] * term.stride;
    const Real* matrix = term.matrix + column;
    for (int k = 0; k < term.depth; ++k, matrix += nc) {
      V b[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) b[v] = L::load(matrix + v * L::width);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const V a = L::set(x[m][k]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sum[m][v] += a * b[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      L::store(out + (atoms[m] * rows.n_targets + target) * nc + column + v * L::width, sum[m][v]);
}

template <class Real, class L, int NV>
GRACE_FORCEINLINE void linear_columns(const LinearRows<Real>& rows, Index target, const Index* atoms, int count,
                                      long column, Real* out) {
  constexpr int MR = cpu::vector_bytes == 64 ? (NV == 4 ? 6 : 8) : 4;  // 24 of 32 registers, 8 of 16
  int m = 0;
  for (; m + MR <= count; m += MR) linear_block<Real, L, MR, NV>(rows, target, atoms + m, column, out);
  if constexpr (MR > 4)
    for (; m + 4 <= count; m += 4) linear_block<Real, L, 4, NV>(rows, target, atoms + m, column, out);
  for (; m < count; ++m) linear_block<Real, L, 1, NV>(rows, target, atoms + m, column, out);
}

template <class Real>
void linear(const LinearRows<Real>& rows, const Index* atoms, int count, Real* out) {
  constexpr bool wide = cpu::vector_bytes == 64;
  const Index nc = rows.n_columns;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    for (Index target = 0; target < rows.n_targets; ++target) {
      long n = 0;
      if constexpr (wide)
        for (; n + 4 * L::width <= nc; n += 4 * L::width)
          linear_columns<Real, L, 4>(rows, target, atoms, count, n, out);
      for (; n + 2 * L::width <= nc; n += 2 * L::width) linear_columns<Real, L, 2>(rows, target, atoms, count, n, out);
      for (; n + L::width <= nc; n += L::width) linear_columns<Real, L, 1>(rows, target, atoms, count, n, out);
      if (n < nc) linear_columns<Real, L, 1>(rows, target, atoms, count, nc - L::width, out);
    }
  });
}

// Rows r .. r + MR - 1 and NV vectors of columns of one group; `overlap` of the first lanes were in the vector before.
template <class Real, class L, int MR, int NV>
GRACE_FORCEINLINE void outer_block(const OuterRows<Real>& rows, Index group, const Index* atoms, int count, Index row,
                                   long column, int overlap, Real* sum) {
  using V = typename L::V;
  V total[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) total[m][v] = L::zero();
  for (int t = rows.first_term[group]; t < rows.first_term[group + 1]; ++t)
    for (int i = 0; i < count; ++i) {
      const Real* x = rows.terms[t].x + atoms[i] * rows.x_stride + row;
      const Real* y = rows.terms[t].y + atoms[i] * rows.y_stride + column;
      V b[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) b[v] = L::load(y + v * L::width);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const V a = L::set(x[m]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) total[m][v] += a * b[v];
      }
    }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      Real* out = sum + (group * rows.n_in + row + m) * rows.n_out + column + v * L::width;
      const V value = overlap > 0 ? total[m][v] * fresh_lanes<L>(overlap) : total[m][v];
      L::store(out, L::load(out) + value);
    }
}

template <class Real, class L, int NV>
GRACE_FORCEINLINE void outer_columns(const OuterRows<Real>& rows, Index group, const Index* atoms, int count,
                                     long column, int overlap, Real* sum) {
  constexpr int MR = cpu::vector_bytes == 64 ? (NV == 4 ? 6 : 8) : 4;
  Index r = 0;
  for (; r + MR <= rows.n_in; r += MR) outer_block<Real, L, MR, NV>(rows, group, atoms, count, r, column, overlap, sum);
  if constexpr (MR > 4)
    for (; r + 4 <= rows.n_in; r += 4) outer_block<Real, L, 4, NV>(rows, group, atoms, count, r, column, overlap, sum);
  for (; r < rows.n_in; ++r) outer_block<Real, L, 1, NV>(rows, group, atoms, count, r, column, overlap, sum);
}

template <class Real>
void outer(const OuterRows<Real>& rows, const Index* atoms, int count, Real* sum) {
  constexpr bool wide = cpu::vector_bytes == 64;
  const Index nc = rows.n_out;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    for (Index group = 0; group < rows.n_groups; ++group) {
      if (rows.first_term[group] == rows.first_term[group + 1]) continue;
      long n = 0;
      if constexpr (wide)
        for (; n + 4 * L::width <= nc; n += 4 * L::width)
          outer_columns<Real, L, 4>(rows, group, atoms, count, n, 0, sum);
      for (; n + 2 * L::width <= nc; n += 2 * L::width) outer_columns<Real, L, 2>(rows, group, atoms, count, n, 0, sum);
      for (; n + L::width <= nc; n += L::width) outer_columns<Real, L, 1>(rows, group, atoms, count, n, 0, sum);
      if (n < nc)
        outer_columns<Real, L, 1>(rows, group, atoms, count, nc - L::width, static_cast<int>(n - (nc - L::width)), sum);
    }
  });
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
