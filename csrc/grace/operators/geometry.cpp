#include <cmath>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"
#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/operators/scratch.hpp"
#include "grace/parallel.hpp"
#include "grace/plan/harmonics_table.hpp"

namespace grace::ops {
namespace {

constexpr Index bonds_per_piece = 512;
constexpr double bond_regulariser = 1e-10;  // A^2

}  // namespace

void bond_vectors(const BondGeometry& bonds, double* vector, double* distance, double* scaled, int n_threads) {
  check_size("n_atoms", bonds.n_atoms);
  check_size("n_bonds", bonds.n_bonds);
  check_size("n_structures", bonds.n_structures);
  check_pointer("positions", bonds.positions, 3 * bonds.n_atoms);
  check_pointer("cells", bonds.cells, 9 * bonds.n_structures);
  check_pointer("shift", bonds.shift, 3 * bonds.n_bonds);
  check_indices("center", bonds.n_bonds, bonds.center, bonds.n_atoms);
  check_indices("neighbor", bonds.n_bonds, bonds.neighbor, bonds.n_atoms);
  check_indices("structure", bonds.n_atoms, bonds.structure, bonds.n_structures);
  check_pointer("vector", vector, 3 * bonds.n_bonds);
  check_pointer("distance", distance, bonds.n_bonds);
  if (scaled != nullptr) {
    check_indices("species", bonds.n_atoms, bonds.species, bonds.n_elements);
    check_pointer("pair_cutoffs", bonds.pair_cutoffs, bonds.n_elements * bonds.n_elements);
  }
  parallel_for(bonds.n_bonds, thread_count(n_threads), bonds_per_piece, [&](Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      const Index i = bonds.center[b], j = bonds.neighbor[b];
      const double* cell = bonds.cells + 9 * bonds.structure[i];
      const double* s = bonds.shift + 3 * b;
      double* r = vector + 3 * b;
      double offset[3];
      for (int x = 0; x < 3; ++x) offset[x] = s[0] * cell[x] + s[1] * cell[3 + x] + s[2] * cell[6 + x];
      math::pair_vector(bonds.positions + 3 * i, bonds.positions + 3 * j, offset, r);
      distance[b] = std::sqrt(math::dot3(r, r) + bond_regulariser);
      if (scaled != nullptr)
        scaled[b] = distance[b] / bonds.pair_cutoffs[bonds.species[i] * bonds.n_elements + bonds.species[j]];
    }
  });
}

template <class Real>
void bond_harmonics(int lmax, Index n_bonds, const double* vector, Real* harmonics, Real* gradient, int n_threads) {
  check_degree(lmax);
  check_size("n_bonds", n_bonds);
  check_pointer("vector", vector, 3 * n_bonds);
  check_pointer("harmonics", harmonics, n_bonds);
  const math::HarmonicsTable<double> table = plan::harmonics_table<double>(lmax);
  const auto kernel = selected_kernels<Real>().harmonics;
  parallel_for(n_bonds, thread_count(n_threads), bonds_per_piece,
               [&](Index begin, Index end) { kernel(table, begin, end, vector, harmonics, gradient); });
}

template <class Real>
void bond_radial_basis(int n_basis, int order, Index n_bonds, const double* scaled, Real* basis, Real* slope,
                       int n_threads) {
  check_size("n_basis", n_basis, 1);
  check_size("order", order, 1);
  check_size("n_bonds", n_bonds);
  check_pointer("scaled", scaled, n_bonds);
  check_pointer("basis", basis, n_bonds * n_basis);
  check_pointer("slope", slope, n_bonds * n_basis);
  const auto kernel = selected_kernels<Real>().radial_basis;
  parallel_for(n_bonds, thread_count(n_threads), bonds_per_piece, [&](Index begin, Index end) {
    AlignedScratch<double> scratch(radial_basis_scratch(n_basis));
    kernel(n_basis, order, begin, end, scaled, basis, slope, scratch.data());
  });
}

template void bond_harmonics<double>(int, Index, const double*, double*, double*, int);
template void bond_harmonics<float>(int, Index, const double*, float*, float*, int);
template void bond_radial_basis<double>(int, int, Index, const double*, double*, double*, int);
template void bond_radial_basis<float>(int, int, Index, const double*, float*, float*, int);

}  // namespace grace::ops
