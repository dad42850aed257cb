// The four slots of F = sum_b sum_lm A[i_b, lm] R[b, l(lm)] Y[b, lm] z[s_b], channel by channel, for the bonds of a
// range of atoms. Rows lm of a group of degrees LA..LB are held in registers.
#pragma once

#include "grace/operators/kernels.hpp"
#include "grace/operators/lanes.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

// What all four need of one call.
template <class Real>
struct BasisRange {
  const BondBasis<Real>& form;
  Index begin, end;  // atoms
  Real* out;
  Index n_rows;       // (lmax + 1)^2
  Index bond_stride;  // (lmax + 1) n_channels

  BasisRange(const BondBasis<Real>& form_, Index begin_, Index end_, Real* out_)
      : form(form_),
        begin(begin_),
        end(end_),
        out(out_),
        n_rows((form_.lmax + 1) * (form_.lmax + 1)),
        bond_stride((form_.lmax + 1) * form_.n_channels) {}
};

// A[i, lm] = sum_b R z Y
template <class Real, class L>
struct BasisAtoms : BasisRange<Real> {
  using BasisRange<Real>::BasisRange;
  template <int LA, int LB>
  GRACE_FORCEINLINE void operator()() const {
    using V = typename L::V;
    constexpr int row0 = LA * LA, rows = (LB + 1) * (LB + 1) - row0;
    const BondBasis<Real>& f = this->form;
    const Index nc = f.n_channels;
    for (Index atom = this->begin; atom < this->end; ++atom)
      for_channels<L>(nc, [&](long n, int) __attribute__((always_inline)) {
        V sum[rows];
#pragma GCC unroll 32
        for (int r = 0; r < rows; ++r) sum[r] = L::zero();
        for (Index b = f.first[atom]; b < f.first[atom + 1]; ++b) {
          const V z = L::load(f.chemical + f.species[b] * nc + n);
          const Real* R = f.radial + b * this->bond_stride + n;
          const Real* Y = f.harmonics + b * this->n_rows;
#pragma GCC unroll 16
          for (int l = LA; l <= LB; ++l) {
            const V rz = L::load(R + l * nc) * z;
#pragma GCC unroll 32
            for (int r = l * l; r < (l + 1) * (l + 1); ++r) sum[r - row0] += rz * Y[r];
          }
        }
        Real* A = this->out + (atom * this->n_rows + row0) * nc + n;
#pragma GCC unroll 32
        for (int r = 0; r < rows; ++r) L::store(A + r * nc, sum[r]);
      });
  }
};

// R[b, l] = z sum_m A Y, for NB bonds at once so that a row of A is loaded once for all of them.
template <class Real, class L, int NB>
GRACE_FORCEINLINE void basis_radial_bonds(const BasisRange<Real>& range, Index atom, Index bond) {
  using V = typename L::V;
  const BondBasis<Real>& f = range.form;
  const Index nc = f.n_channels;
  for_channels<L>(nc, [&](long n, int) __attribute__((always_inline)) {
    const Real* A = f.atoms + atom * range.n_rows * nc + n;
    const Real* Y = f.harmonics + bond * range.n_rows;
    Real* R = range.out + bond * range.bond_stride + n;
    V z[NB];
#pragma GCC unroll 8
    for (int k = 0; k < NB; ++k) z[k] = L::load(f.chemical + f.species[bond + k] * nc + n);
    for (int l = 0, row = 0; l <= f.lmax; ++l) {
      V sum[NB];
#pragma GCC unroll 8
      for (int k = 0; k < NB; ++k) sum[k] = L::zero();
      for (; row < (l + 1) * (l + 1); ++row) {
        const V a = L::load(A + row * nc);
#pragma GCC unroll 8
        for (int k = 0; k < NB; ++k) sum[k] += a * Y[k * range.n_rows + row];
      }
#pragma GCC unroll 8
      for (int k = 0; k < NB; ++k) L::store(R + k * range.bond_stride + l * nc, z[k] * sum[k]);
    }
  });
}

// Y[b, lm] = sum_n A R z
template <class Real, class L>
struct BasisHarmonics : BasisRange<Real> {
  using BasisRange<Real>::BasisRange;
  template <int LA, int LB>
  GRACE_FORCEINLINE void operator()() const {
    using V = typename L::V;
    constexpr int row0 = LA * LA, rows = (LB + 1) * (LB + 1) - row0;
    const BondBasis<Real>& f = this->form;
    const Index nc = f.n_channels;
    for (Index atom = this->begin; atom < this->end; ++atom)
      for (Index b = f.first[atom]; b < f.first[atom + 1]; ++b) {
        const Real* z = f.chemical + f.species[b] * nc;
        const Real* R = f.radial + b * this->bond_stride;
        const Real* A = f.atoms + (atom * this->n_rows + row0) * nc;
        V sum[rows];
#pragma GCC unroll 32
        for (int r = 0; r < rows; ++r) sum[r] = L::zero();
        for_channels<L>(nc, [&](long n, int overlap) __attribute__((always_inline)) {
          V factor = L::load(z + n);
          if (overlap > 0) factor *= fresh_lanes<L>(overlap);
#pragma GCC unroll 16
          for (int l = LA; l <= LB; ++l) {
            const V rz = L::load(R + l * nc + n) * factor;
#pragma GCC unroll 32
            for (int r = l * l - row0; r < (l + 1) * (l + 1) - row0; ++r) sum[r] += L::load(A + r * nc + n) * rz;
          }
        });
        sum_lanes<L, rows>(sum, this->out + b * this->n_rows + row0);
      }
  }
};

// z[s] += sum_b sum_l R sum_m A Y
template <class Real, class L>
GRACE_FORCEINLINE void basis_chemical_range(const BasisRange<Real>& range) {
  using V = typename L::V;
  const BondBasis<Real>& f = range.form;
  const Index nc = f.n_channels;
  for (Index atom = range.begin; atom < range.end; ++atom)
    for_channels<L>(nc, [&](long n, int overlap) __attribute__((always_inline)) {
      const V fresh = fresh_lanes<L>(overlap);
      const Real* A = f.atoms + atom * range.n_rows * nc + n;
      for (Index b = f.first[atom]; b < f.first[atom + 1]; ++b) {
        const Real* R = f.radial + b * range.bond_stride + n;
        const Real* Y = f.harmonics + b * range.n_rows;
        V total = L::zero();
        for (int l = 0, row = 0; l <= f.lmax; ++l) {
          V sum = L::zero();
          for (; row < (l + 1) * (l + 1); ++row) sum += L::load(A + row * nc) * Y[row];
          total += sum * L::load(R + l * nc);
        }
        Real* out = range.out + f.species[b] * nc + n;
        L::store(out, L::load(out) + total * fresh);
      }
    });
}

template <class Real>
void basis_atoms(const BondBasis<Real>& form, Index begin, Index end, Real* out) {
  with_lanes<Real>(form.n_channels, [&](auto lanes) __attribute__((always_inline)) {
    for_degree_groups(form.lmax, BasisAtoms<Real, decltype(lanes)>(form, begin, end, out));
  });
}

template <class Real>
void basis_radial(const BondBasis<Real>& form, Index begin, Index end, Real* out) {
  const BasisRange<Real> range(form, begin, end, out);
  with_lanes<Real>(form.n_channels, [&](auto lanes) __attribute__((always_inline)) {
    for (Index atom = begin; atom < end; ++atom) {
      Index b = form.first[atom];
      for (; b + 4 <= form.first[atom + 1]; b += 4) basis_radial_bonds<Real, decltype(lanes), 4>(range, atom, b);
      for (; b < form.first[atom + 1]; ++b) basis_radial_bonds<Real, decltype(lanes), 1>(range, atom, b);
    }
  });
}

template <class Real>
void basis_harmonics(const BondBasis<Real>& form, Index begin, Index end, Real* out) {
  with_lanes<Real>(form.n_channels, [&](auto lanes) __attribute__((always_inline)) {
    for_degree_groups(form.lmax, BasisHarmonics<Real, decltype(lanes)>(form, begin, end, out));
  });
}

template <class Real>
void basis_chemical(const BondBasis<Real>& form, Index begin, Index end, Real* sum) {
  const BasisRange<Real> range(form, begin, end, sum);
  with_lanes<Real>(form.n_channels, [&](auto lanes) __attribute__((always_inline)) {
    basis_chemical_range<Real, decltype(lanes)>(range);
  });
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
