// Entry points of one instruction-set unit of the SNAP kernels. Each works on one tile: as many atoms as a vector has
// lanes. Arrays of a tile are [row][width], aligned to 64 bytes. Plain data.
#pragma once

#include <cstdint>

#include "grace/isa.hpp"
#include "grace/math/snap.hpp"
#include "grace/snap/tables.hpp"

namespace grace::snap {

// Rows of one neighbour of each atom of a tile: n_x, n_y, n_z, r (A), 1 / (rc - rmin0) (1/A). A lane without a
// neighbour has r = rmin0 + 2 and 1.0, which is beyond the cutoff.
constexpr int pair_rows = 5;

// Tables as pointers, for code that may not use std::vector.
struct Plan {
  math::SnapShape shape;
  int twojmax = 0, n_features = 0, n_half = 0, n_full = 0, n_value = 0, n_elements = 0;
  const Element* elements = nullptr;
  const Term* terms = nullptr;
  const double* norms = nullptr;
  const double* self = nullptr;
  const Mirror* mirrors = nullptr;
};

struct Kernels {
  int width = 0;
  // density [n_half, 2]: U of the self term and of n_neighbors neighbours, pairs [n_neighbors, pair_rows].
  void (*density)(const Plan&, std::int64_t n_neighbors, const double* pairs, double* density,
                  double* scratch) = nullptr;
  // features [n_features]
  void (*bispectrum)(const Plan&, const double* density, double* features, double* scratch) = nullptr;
  // coefficients for beta [n_features]: Y of level 0, then those of snap_add_gradient for every p below the last level
  void (*adjoint)(const Plan&, const double* density, const double* beta, double* coefficients,
                  double* scratch) = nullptr;
  // gradients [n_neighbors, 3] of sum beta . B of each atom by its pair vectors
  void (*pair_gradients)(const Plan&, std::int64_t n_neighbors, const double* pairs, const double* coefficients,
                         double* gradients, double* scratch) = nullptr;
};

// Rows of scratch that any of the kernels needs, and of `coefficients` (the first is Y of level 0).
constexpr std::int64_t scratch_rows(const Plan& plan) { return 2 * (plan.n_full + plan.n_half) + 4; }
constexpr std::int64_t coefficient_rows(const Plan& plan) {
  return 1 + std::int64_t{math::snap_n_coefficients} * math::snap_half_offset(plan.twojmax);
}

const Kernels& kernels_of(IsaLevel level);

}  // namespace grace::snap
