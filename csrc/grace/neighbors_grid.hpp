// Bins of the CPU neighbour list: wrapped atoms of every structure, sorted into bins. Internal to neighbors_*.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/neighbors.hpp"

namespace grace {

// Everything about one structure that the search needs.
struct Grid {
  std::int64_t first_atom = 0;
  std::int64_t n_atoms = 0;
  std::int64_t first_bin = 0;
  const double* cell = nullptr;
  bool periodic[3] = {false, false, false};
  double inverse[9] = {};     // of the completed cell
  double low[3] = {0, 0, 0};  // fractional coordinate of the first bin
  double bins_per_unit[3] = {1, 1, 1};
  int n_bins[3] = {1, 1, 1};
  int reach[3] = {0, 0, 0};  // bins to search on either side
  double rounding = 0.0;     // bound of the error of a coordinate relative to a tile computed in double, A
};

// Atoms in the order of the bins.
struct SortedAtoms {
  std::vector<double> x, y, z;
  std::vector<std::int32_t> species;
  std::vector<std::int32_t> index;      // in the concatenated atoms
  std::vector<std::int64_t> bin_start;  // [bins of all structures + 1]
};

// Checks sizes, values and species; throws Error naming the structure and atom.
void check_batch(const StructureBatch& batch, int n_species);

// Bins for a search radius `cutoff` (A). Fills list.wrap, list.structure, the wrapped positions [n_atoms][3] and the
// sorted atoms.
std::vector<Grid> make_grids(const StructureBatch& batch, int n_species, double cutoff, int n_threads,
                             NeighborList& list, std::vector<double>& wrapped, SortedAtoms& sorted);

}  // namespace grace
