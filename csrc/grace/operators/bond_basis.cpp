#include <algorithm>
#include <vector>

#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/parallel.hpp"

namespace grace::ops {
namespace {

constexpr Index atoms_per_piece = 8;

// Partial sums of the chemical slot: at most this many, of at least atoms_per_sum atoms each, whatever the number of
// threads, so that the order of the additions is always the same.
constexpr Index max_sums = 64;
constexpr Index atoms_per_sum = 16;

template <class Real>
void check(BondSlot slot, const BondBasis<Real>& form, const Real* out) {
  check_rows(form.n_atoms, form.n_bonds, form.first);
  check_degree(form.lmax);
  check_size("n_channels", form.n_channels, 1);
  check_indices("bond_species", form.n_bonds, form.species, form.n_elements);
  const Index rows = (form.lmax + 1) * (form.lmax + 1);
  const struct {
    BondSlot slot;
    const char* name;
    const Real* data;
    Index size;
  } operands[] = {
      {BondSlot::atoms, "atoms", form.atoms, form.n_atoms * rows * form.n_channels},
      {BondSlot::radial, "radial", form.radial, form.n_bonds * (form.lmax + 1) * form.n_channels},
      {BondSlot::harmonics, "harmonics", form.harmonics, form.n_bonds * rows},
      {BondSlot::chemical, "chemical", form.chemical, form.n_elements * form.n_channels},
  };
  for (const auto& operand : operands)
    check_pointer(operand.name, operand.slot == slot ? out : operand.data, operand.size);
}

template <class Real>
void chemical_slot(const BondBasis<Real>& form, Real* out, int n_threads) {
  const Index size = form.n_elements * form.n_channels;
  const Index n_sums = std::max<Index>(1, std::min(max_sums, form.n_atoms / atoms_per_sum));
  std::vector<Real> sums(static_cast<std::size_t>(n_sums * size), Real(0));
  const auto& kernels = selected_kernels<Real>();
  parallel_for(n_sums, thread_count(n_threads), 1, [&](Index begin, Index end) {
    for (Index s = begin; s < end; ++s)
      kernels.basis_chemical(form, s * form.n_atoms / n_sums, (s + 1) * form.n_atoms / n_sums, &sums[s * size]);
  });
  for (Index k = 0; k < size; ++k) {
    double total = 0.0;
    for (Index s = 0; s < n_sums; ++s) total += sums[s * size + k];
    out[k] = static_cast<Real>(total);
  }
}

}  // namespace

template <class Real>
void bond_basis(BondSlot slot, const BondBasis<Real>& form, Real* out, int n_threads) {
  check(slot, form, out);
  if (slot == BondSlot::chemical) return chemical_slot(form, out, n_threads);
  const auto& kernels = selected_kernels<Real>();
  const auto kernel = slot == BondSlot::atoms    ? kernels.basis_atoms
                      : slot == BondSlot::radial ? kernels.basis_radial
                                                 : kernels.basis_harmonics;
  parallel_for(form.n_atoms, thread_count(n_threads), atoms_per_piece,
               [&](Index begin, Index end) { kernel(form, begin, end, out); });
}

template void bond_basis<double>(BondSlot, const BondBasis<double>&, double*, int);
template void bond_basis<float>(BondSlot, const BondBasis<float>&, float*, int);

}  // namespace grace::ops
