// Neighbours of atoms with a cutoff radius each, by enumeration of periodic images: for cells of a few atoms, which may
// be smaller than the cutoff. The time grows as the square of the number of atoms of a structure.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/neighbors.hpp"
#include "grace/snap/image_walk.hpp"

namespace grace::snap {

// centre: r_c(ij) = cutoffs[i], so that j may see i where i does not see j. pair: (cutoffs[i] + cutoffs[j])/2.
enum class CutoffRule { centre, pair };

GRACE_HD GRACE_FORCEINLINE double pair_cutoff(CutoffRule rule, double own, double other) {
  return rule == CutoffRule::centre ? own : 0.5 * (own + other);
}

struct Pair {
  double direction[3];    // unit vector from i to j
  double length;          // A
  double cutoff;          // A
  std::int32_t neighbor;  // index in the concatenated atoms
};

struct PairRows {
  std::vector<std::int64_t> first;  // [n_atoms of the structure + 1]
  std::vector<Pair> pairs;
};

// A structure with its atoms wrapped into the cell.
struct WrappedStructure {
  SearchFrame frame;
  std::vector<double> positions, fractional;  // [n_atoms, 3]
};

// Both throw Error for values that are not finite or out of range, wrap_structure also for cells without volume.
// cutoff: the largest of the structure.
void check_cutoffs(const StructureBatch& batch, const double* cutoffs, double least);
WrappedStructure wrap_structure(const StructureBatch& batch, int s, double cutoff);

// All pairs with length < cutoff, an atom with its own images included, for every structure of the batch (`species` is
// not read); cutoffs [n_atoms], A, each above `least`. Throws Error for sizes that disagree, values that are not finite
// or out of range, cells without volume and atoms in the same place.
void find_all_pairs(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double least,
                    std::vector<PairRows>& rows, int n_threads = 0);

}  // namespace grace::snap
