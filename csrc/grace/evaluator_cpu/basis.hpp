// Single-particle basis A[i,n,lm] = f_i sum_j R_nl Y_lm z_n(mu_j) and the equivariant message basis
// T[i,n,lm,r] = f_i sum_j R_nl Y_lm I_j[n,r], with their adjoints down to dE/dr_ij.
#pragma once

#include "grace/evaluator_cpu/bonds.hpp"
#include "grace/evaluator_cpu/product.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// ---- forward: rows of l = LA..LB in registers over all bonds of one atom ------------------------------------------

template <class Real, int LA, int LB>
GRACE_FORCEINLINE void accumulate_basis(const LayerPlan<Real>& layer, const Tile<Real>& tile, int atom, Real* A) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int row0 = LA * LA, n_rows = (LB + 1) * (LB + 1) - row0;
  const RadialPlan<Real>& radial = layer.radial;
  const Bonds<Real>& bonds = tile.bonds;
  const long row_stride = static_cast<long>(tile.n_atoms) * radial.stride, component = bonds.capacity;
  const V factor = P::set(layer.basis_factor[tile.species[atom]]);
  for (int n = 0; n < radial.stride; n += P::width) {
    V sum[n_rows];
#pragma GCC unroll 32
    for (int r = 0; r < n_rows; ++r) sum[r] = P::zero();
    for (int b = bonds.first[atom]; b < bonds.first[atom + 1]; ++b) {
      const Real* R = bonds.radial + static_cast<long>(bonds.radial_row[b]) * radial.width + n;
      const V z = P::load(layer.chemical + static_cast<long>(bonds.species[b]) * radial.stride + n);
      const Real* Y = bonds.harmonics + b;
#pragma GCC unroll 16
      for (int l = LA; l <= LB; ++l) {
        const V rz = P::load(R + l * radial.stride) * z;
#pragma GCC unroll 32
        for (int r = l * l; r < (l + 1) * (l + 1); ++r) sum[r - row0] += rz * Y[r * component];
      }
    }
#pragma GCC unroll 32
    for (int r = 0; r < n_rows; ++r)
      P::store(A + (row0 + r) * row_stride + static_cast<long>(atom) * radial.stride + n, factor * sum[r]);
  }
}

// ---- adjoint of one bond group: dE/dd through R, dE/du through Y ---------------------------------------------------

// Adds sum_n gR R' to `slope` and sum_n (g R)_lm dY_lm to the three `force` packs. `g` rows have stride g_stride.
template <class Real, int LA, int LB>
GRACE_FORCEINLINE void contract_bond(const LayerPlan<Real>& layer, const Bonds<Real>& bonds, int b, const Real* g,
                                     long g_stride, const Real* z, typename Pack<Real>::V& slope,
                                     typename Pack<Real>::V* force) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int row0 = LA * LA, n_rows = (LB + 1) * (LB + 1) - row0;
  const RadialPlan<Real>& radial = layer.radial;
  const long component = bonds.capacity;
  const Real* R = bonds.radial + static_cast<long>(bonds.radial_row[b]) * radial.width;
  const Real* S = bonds.radial_slope + static_cast<long>(bonds.radial_row[b]) * radial.width;
  const Real* Y = bonds.harmonics + b;
  V v[n_rows];
#pragma GCC unroll 32
  for (int r = 0; r < n_rows; ++r) v[r] = P::zero();
  for (int n = 0; n < radial.stride; n += P::width) {
    const V zn = P::load(z + n);
#pragma GCC unroll 16
    for (int l = LA; l <= LB; ++l) {
      const V rz = P::load(R + l * radial.stride + n) * zn;
      V t = P::zero();
#pragma GCC unroll 32
      for (int r = l * l; r < (l + 1) * (l + 1); ++r) {
        const V gr = P::load(g + r * g_stride + n);
        v[r - row0] += gr * rz;
        t += gr * Y[r * component];
      }
      slope += t * (P::load(S + l * radial.stride + n) * zn);
    }
  }
  const Real* dY = bonds.harmonics_gradient + b;
#pragma GCC unroll 32
  for (int r = 0; r < n_rows; ++r)
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) force[k] += v[r] * dY[(3 * (row0 + r) + k) * component];
}

// Calls f<LA, LB>() over l groups that fit the registers: {0..3}, {4}, {5}, ... (32 registers) or {0..2}, {3}, ...
// (16).
template <class Function>
GRACE_FORCEINLINE void for_l_groups(int lmax, Function f) {
  constexpr bool wide = vector_bytes == 64;
  if (lmax == 0) f.template operator()<0, 0>();
  if (lmax == 1) f.template operator()<0, 1>();
  if (lmax == 2 || (!wide && lmax > 2)) f.template operator()<0, 2>();
  if (wide && lmax >= 3) f.template operator()<0, 3>();
  if (!wide && lmax >= 3) f.template operator()<3, 3>();
  if (lmax >= 4) f.template operator()<4, 4>();
  if (lmax >= 5) f.template operator()<5, 5>();
  if (lmax >= 6) f.template operator()<6, 6>();
  if (lmax >= 7) f.template operator()<7, 7>();
  if (lmax >= 8) f.template operator()<8, 8>();
}

template <class Real>
struct AccumulateBasis {
  const LayerPlan<Real>& layer;
  const Tile<Real>& tile;
  int atom;
  Real* A;
  template <int LA, int LB>
  GRACE_FORCEINLINE void operator()() const {
    accumulate_basis<Real, LA, LB>(layer, tile, atom, A);
  }
};

template <class Real>
struct ContractBond {
  const LayerPlan<Real>& layer;
  const Bonds<Real>& bonds;
  int b;
  const Real* g;
  long g_stride;
  const Real* z;
  typename Pack<Real>::V& slope;
  typename Pack<Real>::V* force;
  template <int LA, int LB>
  GRACE_FORCEINLINE void operator()() const {
    contract_bond<Real, LA, LB>(layer, bonds, b, g, g_stride, z, slope, force);
  }
};

// dE/dr from dE/dx (x = d / rc) and dE/du: dE/dr_a = dE/dd u_a + sum_b dE/du_b (delta_ab - u_a u_b) / d.
template <class Real>
GRACE_FORCEINLINE void add_bond_gradient(Bonds<Real>& bonds, int b, double slope, double fx, double fy, double fz) {
  const long c = bonds.capacity;
  const double inverse = 1.0 / bonds.distance[b];
  const double ux = bonds.vector[b] * inverse, uy = bonds.vector[c + b] * inverse,
               uz = bonds.vector[2 * c + b] * inverse;
  const double radial = slope * bonds.inverse_cutoff[b] - (fx * ux + fy * uy + fz * uz) * inverse;
  bonds.gradient[b] += fx * inverse + radial * ux;
  bonds.gradient[c + b] += fy * inverse + radial * uy;
  bonds.gradient[2 * c + b] += fz * inverse + radial * uz;
}

template <class Real>
void basis_forward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  Real* A = slot_rows(tile.values, layer.slots[layer.basis], tile);
  for (int atom = 0; atom < tile.n_atoms; ++atom)
    for_l_groups(layer.radial.lmax, AccumulateBasis<Real>{layer, tile, atom, A});
}

template <class Real>
void basis_backward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  using P = Pack<Real>;
  using V = typename P::V;
  Bonds<Real>& bonds = tile.bonds;
  const int stride = layer.radial.stride;
  const Real* gA = slot_rows(tile.gradients, layer.slots[layer.basis], tile);
  for (int atom = 0; atom < tile.n_atoms; ++atom) {
    const double factor = layer.basis_factor[tile.species[atom]];
    for (int b = bonds.first[atom]; b < bonds.first[atom + 1]; ++b) {
      V slope = P::zero(), force[3] = {P::zero(), P::zero(), P::zero()};
      for_l_groups(layer.radial.lmax,
                   ContractBond<Real>{layer, bonds, b, gA + static_cast<long>(atom) * stride,
                                      static_cast<long>(tile.n_atoms) * stride,
                                      layer.chemical + static_cast<long>(bonds.species[b]) * stride, slope, force});
      add_bond_gradient(bonds, b, factor * P::sum(slope), factor * P::sum(force[0]), factor * P::sum(force[1]),
                        factor * P::sum(force[2]));
    }
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
