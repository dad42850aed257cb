// Harmonics and radial basis of bonds in double, eight or so bonds at a time, stored bond by bond as Real.
#pragma once

#include "grace/math/radial.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/operators/lanes.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

constexpr double bond_regulariser = 1e-10;  // A^2, under the root of every bond length (docs/theory.md, Bonds)

// Y(u) and dY/dr_a = (dY/du_a - (dY/du . u) u_a) / d of the `count` bonds of one vector.
template <class Real, bool Gradient>
GRACE_FORCEINLINE void harmonics_of(const math::HarmonicsTable<double>& table, int count, const double* vector,
                                    Real* values, Real* gradient) {
  using P = cpu::Pack<double>;
  using V = typename P::V;
  constexpr int slots = (math::max_lmax + 1) * (math::max_lmax + 1);
  const int n_rows = (table.lmax + 1) * (table.lmax + 1);
  double u[3][P::width], inverse[P::width];
  for (int b = 0; b < P::width; ++b) {
    const double* r = vector + 3 * (b < count ? b : 0);
    inverse[b] = 1.0 / __builtin_sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2] + bond_regulariser);
    for (int k = 0; k < 3; ++k) u[k][b] = r[k] * inverse[b];
  }
  V Y[slots], dY[Gradient ? 3 * slots : 1];
  const V x = P::load(u[0]), y = P::load(u[1]), z = P::load(u[2]);
  math::spherical_harmonics<Gradient>(table, x, y, z, Y, dY);
  const double* lanes = reinterpret_cast<const double*>(Y);
  for (int b = 0; b < count; ++b)
    for (int r = 0; r < n_rows; ++r)
      values[static_cast<long>(b) * n_rows + r] = static_cast<Real>(lanes[r * P::width + b]);
  if constexpr (Gradient) {
    const V scale = P::load(inverse);
    for (int r = 0; r < n_rows; ++r) {
      V* g = dY + 3 * r;
      const V along = g[0] * x + g[1] * y + g[2] * z;
      g[0] = (g[0] - along * x) * scale;
      g[1] = (g[1] - along * y) * scale;
      g[2] = (g[2] - along * z) * scale;
    }
    const double* slopes = reinterpret_cast<const double*>(dY);
    for (int b = 0; b < count; ++b)
      for (int e = 0; e < 3 * n_rows; ++e)
        gradient[static_cast<long>(b) * 3 * n_rows + e] = static_cast<Real>(slopes[e * P::width + b]);
  }
}

template <class Real>
void harmonics(const math::HarmonicsTable<double>& table, Index begin, Index end, const double* vector, Real* values,
               Real* gradient) {
  const int n_rows = (table.lmax + 1) * (table.lmax + 1);
  constexpr int width = cpu::Pack<double>::width;
  for (Index b = begin; b < end; b += width) {
    const int count = end - b < width ? static_cast<int>(end - b) : width;
    if (gradient != nullptr)
      harmonics_of<Real, true>(table, count, vector + 3 * b, values + b * n_rows, gradient + 3 * b * n_rows);
    else
      harmonics_of<Real, false>(table, count, vector + 3 * b, values + b * n_rows, nullptr);
  }
}

template <class Real>
void radial_basis(int n_basis, int order, Index begin, Index end, const double* scaled, Real* basis, Real* slope,
                  double* scratch) {
  using P = cpu::Pack<double>;
  using V = typename P::V;
  V* g = reinterpret_cast<V*>(scratch);
  V* dg = g + n_basis;
  for (Index b = begin; b < end; b += P::width) {
    const int count = end - b < P::width ? static_cast<int>(end - b) : P::width;
    double x[P::width], inside[P::width];
    for (int k = 0; k < P::width; ++k) {
      x[k] = scaled[k < count ? b + k : b];
      inside[k] = x[k] < 1.0 ? 1.0 : 0.0;
      if (!(x[k] < 1.0)) x[k] = 1.0;  // keeps what is multiplied by 0 finite
    }
    const V mask = P::load(inside);
    math::chebyshev_basis(P::load(x), n_basis, order, 1.0, g, dg);
    for (int k = 0; k < n_basis; ++k) {
      double value[P::width], derivative[P::width];
      P::store(value, g[k] * mask);
      P::store(derivative, dg[k] * mask);
      for (int i = 0; i < count; ++i) {
        basis[(b + i) * n_basis + k] = static_cast<Real>(value[i]);
        slope[(b + i) * n_basis + k] = static_cast<Real>(derivative[i]);
      }
    }
  }
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
