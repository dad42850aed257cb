#include <vector>

#include "grace/error.hpp"
#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/parallel.hpp"

namespace grace::ops {
namespace {

constexpr Index atoms_per_piece = 4;

}  // namespace

template <class Real>
void coupling_product(const CouplingProduct<Real>& form, Real* out, int n_threads) {
  check_size("n_atoms", form.n_atoms);
  check_size("n_terms", form.n_terms);
  check_size("n_channels", form.n_channels, 1);
  check_terms("target row", form.n_terms, form.terms, 0, form.n_targets);
  check_terms("row of the first operand", form.n_terms, form.terms, 1, form.n_first);
  check_terms("row of the second operand", form.n_terms, form.terms, 2, form.n_second);
  check_pointer("coefficients", form.coefficients, form.n_terms);
  check_pointer("first", form.first, form.n_atoms * form.n_first * form.n_channels);
  check_pointer("second", form.second, form.n_atoms * form.n_second * form.n_channels);
  check_pointer("out", out, form.n_atoms * form.n_targets * form.n_channels);

  std::vector<int> first_term(static_cast<std::size_t>(form.n_targets + 1), 0);
  std::vector<math::GatherTerm<Real>> terms(static_cast<std::size_t>(form.n_terms));
  for (Index t = 0; t < form.n_terms; ++t) {
    const std::int32_t* term = form.terms + 3 * t;
    require(t == 0 || term[0] >= term[-3], "terms must be sorted by target row, got ", term[0], " after ",
            t == 0 ? 0 : term[-3]);
    ++first_term[term[0] + 1];
    terms[t] = {term[1], term[2], static_cast<Real>(form.coefficients[t])};
  }
  for (Index row = 0; row < form.n_targets; ++row) first_term[row + 1] += first_term[row];

  const Gather<Real> gather{first_term.data(), terms.data()};
  const auto kernel = selected_kernels<Real>().product;
  parallel_for(form.n_atoms, thread_count(n_threads), atoms_per_piece,
               [&](Index begin, Index end) { kernel(form, gather, begin, end, out); });
}

template void coupling_product<double>(const CouplingProduct<double>&, double*, int);
template void coupling_product<float>(const CouplingProduct<float>&, float*, int);

}  // namespace grace::ops
