#include "grace/neighbors_checks.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"

namespace grace {
namespace {

constexpr double kMinOrthogonality = 1e-8;  // below this a periodic cell counts as flat
constexpr double kMaxCutoff = 1e6;          // A; squares stay far from the limits of float

std::string structure_name(const StructureBatch& batch, int s) {
  return batch.n_structures > 1 ? " of structure " + std::to_string(s) : std::string();
}

}  // namespace

Cutoffs make_cutoffs(int n_species, const double* pair_cutoffs, double skin) {
  require(n_species >= 0, "`n_species` must be >= 0, got ", n_species);
  require(std::isfinite(skin) && skin >= 0.0, "`skin` must be finite and >= 0, got ", skin);
  Cutoffs cutoffs;
  cutoffs.n_species = n_species;
  for (int k = 0; k < n_species * n_species; ++k) {
    const double cutoff = pair_cutoffs[k];
    require(std::isfinite(cutoff) && cutoff + skin <= kMaxCutoff, "`pair_cutoffs` must be finite and at most ",
            kMaxCutoff, " A with skin, got ", cutoff, " for species ", k / n_species, " and ", k % n_species);
    const double radius = cutoff > 0.0 ? cutoff + skin : 0.0;
    cutoffs.largest = std::max(cutoffs.largest, radius);
    cutoffs.squared.push_back(cutoff > 0.0 ? radius * radius : -kNever);
  }
  return cutoffs;
}

void check_structures(const StructureBatch& batch) {
  require(batch.n_structures >= 0, "`n_structures` must be >= 0, got ", batch.n_structures);
  if (batch.n_structures == 0) return;
  require(batch.first_atom != nullptr && batch.first_atom[0] == 0, "`first_atom` must start with 0");
  for (int s = 0; s < batch.n_structures; ++s) {
    const std::int64_t begin = batch.first_atom[s], end = batch.first_atom[s + 1];
    require(begin <= end, "`first_atom` must not decrease, got ", begin, " then ", end, " at structure ", s);
    require(end <= kMaxAtoms, "a batch holds at most ", kMaxAtoms, " atoms, got ", end, "; split the batch");
    for (int k = 0; k < 9; ++k)
      require(std::isfinite(batch.cells[9 * std::int64_t{s} + k]), "`cell`", structure_name(batch, s),
              " has a value that is not finite");
  }
}

void check_atom(const StructureBatch& batch, int s, std::int64_t atom, const double* r, std::int32_t species,
                int n_species) {
  if (std::fabs(r[0]) <= kMaxCoordinate && std::fabs(r[1]) <= kMaxCoordinate && std::fabs(r[2]) <= kMaxCoordinate &&
      species >= 0 && species < n_species)
    return;
  require(std::isfinite(r[0]) && std::isfinite(r[1]) && std::isfinite(r[2]), "`positions` of atom ", atom,
          structure_name(batch, s), " are not finite (", r[0], ", ", r[1], ", ", r[2],
          "); remove the atom or repair its coordinates");
  require(std::max({std::fabs(r[0]), std::fabs(r[1]), std::fabs(r[2])}) <= kMaxCoordinate, "`positions` of atom ", atom,
          structure_name(batch, s), " are beyond ", kMaxCoordinate, " A; remove the atom or repair its coordinates");
  require(species >= 0 && species < n_species, "`species` of atom ", atom, structure_name(batch, s), " is ", species,
          ", must be in [0, ", n_species, ")");
}

void report_far_outside(const StructureBatch& batch, int s, std::int64_t atom, int direction, double fractional) {
  std::ostringstream cells;
  cells.precision(15);
  cells << std::fabs(std::floor(fractional));
  throw Error("`positions` of atom " + std::to_string(atom) + structure_name(batch, s) + " are " + cells.str() +
              " cells outside the cell along direction " + std::to_string(direction) + "; wrap them first");
}

void complete_frame(const StructureBatch& batch, int s, double cutoff, double* inverse, double* heights) {
  const double* cell = batch.cells + 9 * std::int64_t{s};
  const bool* periodic = batch.periodic + 3 * std::int64_t{s};
  for (int k = 0; k < 3; ++k)
    require(!periodic[k] || math::length3(cell + 3 * k) > 0.0, "`cell`", structure_name(batch, s),
            " has zero length along direction ", k,
            ", which is periodic; give the lattice vector or set pbc to False there");
  double full[9];
  math::complete_cell(cell, periodic, full);
  const double orthogonality = math::cell_orthogonality(full);
  require(orthogonality > kMinOrthogonality, "`cell`", structure_name(batch, s),
          " has zero volume: its periodic vectors are linearly dependent (volume / product of lengths = ",
          orthogonality, "); give independent vectors or set pbc to False");
  math::cell_inverse(full, inverse);
  math::cell_heights(inverse, heights);
  for (int k = 0; k < 3; ++k)
    require(!periodic[k] || math::image_bound(heights[k], cutoff) <= kMaxShift, "`cell`", structure_name(batch, s),
            " has a height of ", heights[k], " A along direction ", k, ", too small for a cutoff of ", cutoff,
            " A: more than ", kMaxShift, " images would be needed; use a larger or less skewed cell");
}

}  // namespace grace
