// Bonds of a tile: collection, geometry, harmonics and radial functions (table or exact network).
#pragma once

#include "grace/evaluator_cpu/gemm.hpp"
#include "grace/evaluator_cpu/plan.hpp"
#include "grace/evaluator_cpu/tile.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/radial.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

constexpr double bond_regulariser = 1e-10;  // A^2, under the root of every bond length (docs/theory.md, Bonds)

// Compacts the neighbour rows of the tile's atoms to the bonds inside their pair cutoff.
template <class Real>
void collect_bonds(const Inputs& in, Tile<Real>& tile) {
  Bonds<Real>& bonds = tile.bonds;
  double* const dx = bonds.vector;
  double* const dy = dx + bonds.capacity;
  double* const dz = dy + bonds.capacity;
  int n = 0;
  for (int a = 0; a < tile.n_atoms; ++a) {
    bonds.first[a] = n;
    const std::int64_t i = tile.atoms[a];
    const double* xi = in.positions + 3 * i;
    const double* cutoffs = in.pair_cutoffs + static_cast<long>(tile.species[a]) * in.n_elements;
    const double* cell = in.cells == nullptr ? nullptr : in.cells + 9 * (in.structure == nullptr ? 0 : in.structure[i]);
    for (std::int64_t p = in.first[i]; p < in.first[i + 1]; ++p) {
      const std::int64_t j = in.neighbor[p];
      const std::int32_t element = in.species[j];
      if (element < 0) continue;
      const double* xj = in.positions + 3 * j;
      double r[3] = {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]};
      if (in.shift != nullptr) {
        const std::int32_t s = in.shift[p];
        const double sa = (s & 1023) - 512, sb = ((s >> 10) & 1023) - 512, sc = ((s >> 20) & 1023) - 512;
        for (int k = 0; k < 3; ++k) r[k] += sa * cell[k] + sb * cell[3 + k] + sc * cell[6 + k];
      }
      const double r2 = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      const double rc = cutoffs[element];
      if (!(r2 + bond_regulariser < rc * rc)) continue;
      if (r2 < tile.closest2) {
        tile.closest2 = r2;
        tile.closest[0] = i;
        tile.closest[1] = j;
      }
      dx[n] = r[0];
      dy[n] = r[1];
      dz[n] = r[2];
      bonds.neighbor[n] = static_cast<int>(j);
      bonds.species[n] = element;
      bonds.inverse_cutoff[n] = rc;
      ++n;
    }
  }
  bonds.first[tile.n_atoms] = n;
  bonds.count = n;
  // Pad to whole vectors with a harmless bond, so that the loops below have no remainder.
  for (int b = n; b < bonds.capacity && b < (n + 15) / 16 * 16; ++b) {
    dx[b] = dy[b] = 0.0;
    dz[b] = 0.5;
    bonds.inverse_cutoff[b] = 1.0;
  }
  for (int b = 0; b < (n + 15) / 16 * 16; ++b) {
    const double d = __builtin_sqrt(dx[b] * dx[b] + dy[b] * dy[b] + dz[b] * dz[b] + bond_regulariser);
    const double inverse = 1.0 / d;
    bonds.distance[b] = d;
    bonds.inverse_cutoff[b] = 1.0 / bonds.inverse_cutoff[b];
    bonds.direction[b] = static_cast<Real>(dx[b] * inverse);
    bonds.direction[bonds.capacity + b] = static_cast<Real>(dy[b] * inverse);
    bonds.direction[2 * bonds.capacity + b] = static_cast<Real>(dz[b] * inverse);
  }
}

template <class Real, bool Gradient>
void compute_harmonics(const math::HarmonicsTable<Real>& table, Bonds<Real>& bonds) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int slots = (math::max_lmax + 1) * (math::max_lmax + 1);
  const int n = (table.lmax + 1) * (table.lmax + 1);
  V Y[slots], grad[Gradient ? 3 * slots : 1];
  const long stride = bonds.capacity;
  for (int b = 0; b < bonds.count; b += P::width) {
    math::spherical_harmonics<Gradient>(table, P::load(bonds.direction + b), P::load(bonds.direction + stride + b),
                                        P::load(bonds.direction + 2 * stride + b), Y, grad);
    if constexpr (Gradient) {
      for (int s = 0; s < 3 * n; ++s) P::store(bonds.harmonics_gradient + s * stride + b, grad[s]);
    } else {
      for (int s = 0; s < n; ++s) P::store(bonds.harmonics + s * stride + b, Y[s]);
    }
  }
}

// Bonds sorted by table interval (counting sort), so that one interval's coefficients serve all its bonds as one
// matrix.
template <class Real>
void sort_by_interval(const RadialPlan<Real>& radial, Bonds<Real>& bonds) {
  int* count = bonds.interval_count;
  for (int k = 0; k <= radial.n_intervals; ++k) count[k] = 0;
  for (int b = 0; b < bonds.count; ++b) {
    int k;
    double rate, start;
    radial.intervals.locate(bonds.distance[b] * bonds.inverse_cutoff[b], k, rate, start);
    bonds.interval[b] = k;
    ++count[k + 1];
  }
  for (int k = 0; k < radial.n_intervals; ++k) count[k + 1] += count[k];
  for (int b = 0; b < bonds.count; ++b) {
    const int row = count[bonds.interval[b]]++;
    bonds.radial_row[b] = row;
    bonds.order[row] = b;
  }
  // the loop above advanced count[k] to the end of interval k, which is what table_rows needs
}

// out[row] = sum_d power[row][d] coefficients[interval][d], with powers y^3 t^d (y = 1 - x) for the values and their
// d/dx = y^3 d rate t^(d-1) - 3 y^2 t^d for the slopes.
template <class Real, bool Slope>
void table_rows(const RadialPlan<Real>& radial, Bonds<Real>& bonds, Real* out) {
  const int K = radial.n_coefficients;
  for (int row = 0; row < bonds.count; ++row) {
    const int b = bonds.order[row];
    const double x = bonds.distance[b] * bonds.inverse_cutoff[b], y = 1.0 - x;
    int k;
    double rate, start;
    radial.intervals.locate(x, k, rate, start);
    const Real t = static_cast<Real>(rate * x + start);
    Real* power = bonds.powers + static_cast<long>(row) * K;
    Real p = Slope ? static_cast<Real>(y * y) : static_cast<Real>(y * y * y);
    const Real yr = static_cast<Real>(y * rate);
    Real before = 0;
    for (int d = 0; d < K; ++d) {
      power[d] = Slope ? Real(d) * before * yr - Real(3) * p : p;
      before = p;
      p *= t;
    }
  }
  const long block = static_cast<long>(K) * radial.width;
  for (int k = 0, begin = 0; k < radial.n_intervals; ++k) {
    const int end = bonds.interval_count[k];
    if (end > begin)
      gemm(end - begin, radial.width, K, bonds.powers + static_cast<long>(begin) * K, K,
           radial.coefficients + k * block, out + static_cast<long>(begin) * radial.width, radial.width, false);
    begin = end;
  }
}

// The network itself on all bonds: h <- activation(h W) with derivatives dh/dx carried along (forward mode).
template <class Real>
void exact_rows(const RadialPlan<Real>& radial, Bonds<Real>& bonds, bool slope) {
  using P = Pack<Real>;
  using V = typename P::V;
  const int n = bonds.count, widest = radial.widest;
  const long plane = static_cast<long>(bonds.capacity) * widest;
  Real* h = bonds.hidden;
  Real* dh = h + plane;
  Real* next = dh + plane;
  Real* dnext = next + plane;
  for (int b = 0; b < n; ++b) {
    bonds.radial_row[b] = b;
    const double x = bonds.distance[b] * bonds.inverse_cutoff[b];
    double g[64], dg[64];
    math::chebyshev_basis(x, radial.n_basis, radial.envelope_order, 1.0, g, dg);
    for (int k = 0; k < radial.n_basis; ++k) {
      h[static_cast<long>(b) * widest + k] = static_cast<Real>(g[k]);
      dh[static_cast<long>(b) * widest + k] = static_cast<Real>(dg[k]);
    }
  }
  for (int layer = 0; layer < radial.n_layers; ++layer) {
    const int K = radial.layer_in[layer], N = radial.layer_out[layer];
    const Real* W = radial.layer_weights[layer];
    if (layer + 1 == radial.n_layers) {
      gemm(n, N, K, h, widest, W, bonds.radial, radial.width, false);
      if (slope) gemm(n, N, K, dh, widest, W, bonds.radial_slope, radial.width, false);
      return;
    }
    gemm(n, N, K, h, widest, W, next, widest, false);
    gemm(n, N, K, dh, widest, W, dnext, widest, false);
    for (int b = 0; b < n; ++b) {
      Real* value = next + static_cast<long>(b) * widest;
      Real* derivative = dnext + static_cast<long>(b) * widest;
      for (int k = 0; k < N; k += P::width) {
        V y, dy;
        if (radial.is_tanh)
          math::tanh<P>(P::load(value + k), y, dy);
        else
          math::silu<P>(P::load(value + k), y, dy);
        P::store(value + k, y);
        P::store(derivative + k, dy * P::load(derivative + k));
      }
    }
    Real* swap = h;
    h = next;
    next = swap;
    swap = dh;
    dh = dnext;
    dnext = swap;
  }
}

template <class Real>
void compute_radial(const RadialPlan<Real>& radial, Bonds<Real>& bonds) {
  if (radial.n_intervals > 0) {
    sort_by_interval(radial, bonds);
    table_rows<Real, false>(radial, bonds, bonds.radial);
  } else {
    exact_rows(radial, bonds, false);
  }
}

// Needs compute_radial of the same bonds before; leaves the values in place.
template <class Real>
void compute_radial_slope(const RadialPlan<Real>& radial, Bonds<Real>& bonds) {
  if (radial.n_intervals > 0)
    table_rows<Real, true>(radial, bonds, bonds.radial_slope);
  else
    exact_rows(radial, bonds, true);
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
