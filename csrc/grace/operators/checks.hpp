// Checks that operators share: sizes, rows of bonds, indices, terms.
#pragma once

#include <cstdint>

#include "grace/operators/operators.hpp"

namespace grace::ops {

void check_size(const char* name, Index value, Index least = 0);
void check_pointer(const char* name, const void* pointer, Index size);
void check_degree(int lmax);

// first[0] = 0, not decreasing, first[n_atoms] = n_bonds.
void check_rows(Index n_atoms, Index n_bonds, const Index* first);

// 0 <= index[k] < limit
void check_indices(const char* name, Index n, const Index* index, Index limit);

// Column `column` of terms [n_terms, 3] within 0 .. limit - 1.
void check_terms(const char* name, Index n_terms, const std::int32_t* terms, int column, Index limit);

}  // namespace grace::ops
