// Neighbours of atoms with a cutoff radius each, by enumeration of periodic images: for cells of a few atoms, which may
// be smaller than the cutoff. The time grows as the square of the number of atoms of a structure.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/neighbors.hpp"

namespace grace::snap {

// centre: r_c(ij) = cutoffs[i], so that j may see i where i does not see j. pair: (cutoffs[i] + cutoffs[j])/2.
enum class CutoffRule { centre, pair };

struct Pair {
  double direction[3];   // unit vector from i to j
  double length;         // A
  double cutoff;         // A
  std::int32_t neighbor; // index in the concatenated atoms
};

struct PairRows {
  std::vector<std::int64_t> first;  // [n_atoms of the structure + 1]
  std::vector<Pair> pairs;
};

// All pairs of structure `s` with length < cutoff, an atom with its own images included. cutoffs [n_atoms of the
// batch], A. Throws Error for cells without volume and atoms at the same place.
void find_pairs(const StructureBatch& batch, int s, const double* cutoffs, CutoffRule rule, PairRows& out);

}  // namespace grace::snap
