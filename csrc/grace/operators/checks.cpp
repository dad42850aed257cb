#include "grace/operators/checks.hpp"

#include "grace/error.hpp"
#include "grace/math/spherical_harmonics.hpp"

namespace grace::ops {

void check_size(const char* name, Index value, Index least) {
  require(value >= least, "`", name, "` must be >= ", least, ", got ", value);
}

void check_pointer(const char* name, const void* pointer, Index size) {
  require(pointer != nullptr || size == 0, "`", name, "` is missing: an array of ", size, " numbers is needed");
}

void check_degree(int lmax) {
  require(lmax >= 0 && lmax <= math::max_lmax, "`lmax` must be 0 .. ", math::max_lmax, ", got ", lmax);
}

void check_rows(Index n_atoms, Index n_bonds, const Index* first) {
  check_size("n_atoms", n_atoms);
  check_size("n_bonds", n_bonds);
  check_pointer("first_bond", first, n_atoms + 1);
  require(first[0] == 0, "`first_bond` must start with 0, got ", first[0]);
  for (Index i = 0; i < n_atoms; ++i)
    require(first[i] <= first[i + 1], "`first_bond` must not decrease, got ", first[i], " then ", first[i + 1]);
  require(first[n_atoms] == n_bonds, "`first_bond` must end with the number of bonds ", n_bonds, ", got ",
          first[n_atoms]);
}

void check_indices(const char* name, Index n, const Index* index, Index limit) {
  check_pointer(name, index, n);
  for (Index k = 0; k < n; ++k)
    require(index[k] >= 0 && index[k] < limit, "`", name, "` must be 0 .. ", limit - 1, ", got ", index[k], " at ", k);
}

void check_terms(const char* name, Index n_terms, const std::int32_t* terms, int column, Index limit) {
  check_pointer("terms", terms, 3 * n_terms);
  for (Index t = 0; t < n_terms; ++t) {
    const std::int32_t row = terms[3 * t + column];
    require(row >= 0 && row < limit, "term ", t, " names ", name, " ", row, ", which must be 0 .. ", limit - 1);
  }
}

}  // namespace grace::ops
