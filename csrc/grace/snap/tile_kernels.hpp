// The passes over one tile: lanes are atoms.
#pragma once

#include "grace/evaluator_cpu/simd.hpp"
#include "grace/snap/kernels.hpp"

namespace grace::snap {
inline namespace GRACE_ISA {

using Lanes = cpu::Pack<double>;
using V = Lanes::V;

GRACE_FORCEINLINE const V* vectors(const double* p) { return reinterpret_cast<const V*>(p); }
GRACE_FORCEINLINE V* vectors(double* p) { return reinterpret_cast<V*>(p); }

GRACE_FORCEINLINE math::SnapPair<Lanes> load_pair(const double* pairs, std::int64_t k) {
  const V* row = vectors(pairs) + pair_rows * k;
  return {row[0], row[1], row[2], row[3], row[4]};
}

// U = norm sum_k f p + 1
inline void density_pass(const Plan& plan, std::int64_t n_neighbors, const double* pairs, double* density,
                         double* scratch) {
  V* sum = vectors(density);
  for (int e = 0; e < 2 * plan.n_half; ++e) sum[e] = Lanes::zero();
  V* levels[2] = {vectors(scratch), vectors(scratch) + 2 * math::snap_half_size(plan.twojmax)};
  for (std::int64_t k = 0; k < n_neighbors; ++k) {
    const auto point = math::snap_point<Lanes>(plan.shape, load_pair(pairs, k));
    V *before = levels[0], *after = levels[1], *level_sum = sum;
    before[0] = point.f;
    before[1] = Lanes::zero();
    level_sum[0] += before[0];
    level_sum += 2;
    for (int J = 1; J <= plan.twojmax; ++J) {
      math::snap_next_level(J, point, before, after);
      const int size = 2 * math::snap_half_rows(J) * (J + 1);
      for (int e = 0; e < size; ++e) level_sum[e] += after[e];
      level_sum += size;
      V* const swapped = before;
      before = after;
      after = swapped;
    }
  }
  for (int e = 0; e < plan.n_half; ++e) {
    sum[2 * e] = sum[2 * e] * plan.norms[e] + plan.self[e];
    sum[2 * e + 1] = sum[2 * e + 1] * plan.norms[e];
  }
}

GRACE_FORCEINLINE void expand(const Plan& plan, const V* half, V* full) {
  for (int e = 0; e < plan.n_full; ++e) {
    const Mirror& mirror = plan.mirrors[e];
    full[2 * e] = half[2 * mirror.half] * mirror.sign;
    full[2 * e + 1] = half[2 * mirror.half + 1] * mirror.imaginary;
  }
}

// One element of Z: real and imaginary part of the sum of its terms; two sums each, so that additions overlap.
GRACE_FORCEINLINE void contract(const Term* terms, int n_terms, const V* U, V& z_r, V& z_i) {
  math::SnapSums<Lanes> even{Lanes::zero(), Lanes::zero(), Lanes::zero(), Lanes::zero()}, odd = even;
  const auto add = [&](const Term& term, math::SnapSums<Lanes>& sums) {
    math::snap_term(term.coefficient, U + 2 * static_cast<std::size_t>(term.first),
                    U + 2 * static_cast<std::size_t>(term.second), sums);
  };
  int t = 0;
  for (; t + 2 <= n_terms; t += 2) {
    add(terms[t], even);
    add(terms[t + 1], odd);
  }
  if (t < n_terms) add(terms[t], even);
  z_r = (even.rr + odd.rr) - (even.ii + odd.ii);
  z_i = (even.ri + odd.ri) + (even.ir + odd.ir);
}

inline void bispectrum_pass(const Plan& plan, const double* density, double* features, double* scratch) {
  const V* half = vectors(density);
  V *U = vectors(scratch), *B = vectors(features);
  expand(plan, half, U);
  for (int f = 0; f < plan.n_features; ++f) B[f] = Lanes::zero();
  const Term* terms = plan.terms;
  for (int k = 0; k < plan.n_value; ++k) {
    const Element& element = plan.elements[k];
    V z_r, z_i;
    contract(terms, element.n_terms, U, z_r, z_i);
    terms += element.n_terms;
    B[element.feature] += element.weight * (half[2 * element.half] * z_r + half[2 * element.half + 1] * z_i);
  }
}

// Y of the half matrices, with the norms of the p; then what each p contributes to gradients.
inline void adjoint_pass(const Plan& plan, const double* density, const double* beta, double* coefficients,
                         double* scratch) {
  V *U = vectors(scratch), *Y = U + 2 * plan.n_full;
  expand(plan, vectors(density), U);
  for (int e = 0; e < 2 * plan.n_half; ++e) Y[e] = Lanes::zero();
  const Term* terms = plan.terms;
  for (int k = 0; k < plan.n_elements; ++k) {
    const Element& element = plan.elements[k];
    V z_r, z_i;
    contract(terms, element.n_terms, U, z_r, z_i);
    terms += element.n_terms;
    const V factor = element.factor * vectors(beta)[element.feature];
    Y[2 * element.half] += factor * z_r;
    Y[2 * element.half + 1] += factor * z_i;
  }
  for (int J = 2; J <= plan.twojmax; J += 2) {  // the second half of the middle row mirrors the first
    V* row = Y + 2 * (math::snap_half_offset(J) + J / 2 * (J + 1));
    for (int n = J / 2 + 1; n <= J; ++n) {
      const double sign = (n - J / 2) % 2 == 0 ? 1.0 : -1.0;
      row[2 * n] = sign * row[2 * (J - n)];
      row[2 * n + 1] = -sign * row[2 * (J - n) + 1];
    }
  }
  for (int e = 0; e < plan.n_half; ++e) {
    Y[2 * e] *= plan.norms[e];
    Y[2 * e + 1] *= plan.norms[e];
  }
  V* out = vectors(coefficients);
  *out++ = Y[0];
  for (int J = 1; J <= plan.twojmax; ++J)
    for (int m = 0; m <= (J - 1) / 2; ++m)
      for (int n = 0; n < J; ++n, out += math::snap_n_coefficients)
        math::snap_gradient_coefficients(J, m, n, Y + 2 * math::snap_half_offset(J), out);
}

inline void gradient_pass(const Plan& plan, std::int64_t n_neighbors, const double* pairs, const double* coefficients,
                          double* gradients, double* scratch) {
  V* levels[2] = {vectors(scratch), vectors(scratch) + 2 * math::snap_half_size(plan.twojmax)};
  for (std::int64_t k = 0; k < n_neighbors; ++k) {
    const auto pair = load_pair(pairs, k);
    const auto point = math::snap_point<Lanes>(plan.shape, pair);
    V *before = levels[0], *after = levels[1];
    before[0] = Lanes::set(1.0);
    before[1] = Lanes::zero();
    const V* c = vectors(coefficients);
    V value = *c++;
    math::SnapGradient<Lanes> total{Lanes::zero(), Lanes::zero(), Lanes::zero(), Lanes::zero()};
    for (int J = 1; J <= plan.twojmax; ++J) {
      if (J > 1) {
        math::snap_next_level(J - 1, point, before, after);
        V* const swapped = before;
        before = after;
        after = swapped;
      }
      math::SnapGradient<Lanes> G{Lanes::zero(), Lanes::zero(), Lanes::zero(), Lanes::zero()};
      const int size = math::snap_half_rows(J - 1) * J;
      for (int e = 0; e < size; ++e, c += math::snap_n_coefficients)
        math::snap_add_gradient(c, before[2 * e], before[2 * e + 1], G);
      value += (1.0 / J) * math::snap_level_value(point, G);
      total.a_r += G.a_r;
      total.a_i += G.a_i;
      total.b_r += G.b_r;
      total.b_i += G.b_i;
    }
    math::snap_pair_gradient(pair, point, value, total, vectors(gradients) + 3 * k);
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::snap
