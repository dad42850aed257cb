// Neighbour lists: every directed pair (i, j, image) with |r_j + S H - r_i| < pair cutoff + skin, as compressed rows.
#pragma once

#include <cstdint>
#include <vector>

namespace grace {

// Lattice image (a, b, c) packed in one integer, each in [-511, 511].
std::int32_t pack_shift(int a, int b, int c);
inline void unpack_shift(std::int32_t packed, int& a, int& b, int& c) {
  a = (packed & 1023) - 512;
  b = ((packed >> 10) & 1023) - 512;
  c = ((packed >> 20) & 1023) - 512;
}

// Structures to list, concatenated. All pointers belong to the caller.
struct StructureBatch {
  int n_structures = 1;
  const std::int64_t* first_atom = nullptr;  // [n_structures + 1]
  const double* positions = nullptr;         // [n_atoms][3], A; may lie outside the cell
  const std::int32_t* species = nullptr;     // [n_atoms]
  const double* cells =
      nullptr;  // [n_structures][3][3], rows are lattice vectors; rows of non-periodic directions may be zero
  const bool* periodic = nullptr;  // [n_structures][3]
};

struct NeighborList {
  std::int64_t n_atoms = 0;
  std::vector<std::int64_t> first;      // [n_atoms + 1]
  std::vector<std::int32_t> neighbor;   // [n_pairs], index in the concatenated atoms
  std::vector<std::int32_t> shift;      // [n_pairs], packed image, relative to wrapped positions
  std::vector<std::int32_t> wrap;       // [n_atoms][3]: wrapped position = position - wrap . cell
  std::vector<std::int32_t> structure;  // [n_atoms]
};

// pair_cutoffs: [n_species][n_species], A (row = centre); a pair with cutoff <= 0 is never listed. Rows are sorted by
// (neighbor, shift a, b, c), so the result is deterministic and does not depend on the builder or the thread count.
// Throws Error for non-finite positions or cells, a periodic cell of zero volume, species out of range and shifts
// beyond 511.
NeighborList build_neighbors(const StructureBatch& batch, int n_species, const double* pair_cutoffs, double skin,
                             int n_threads = 0);

// shifts[n_pairs][3]: images relative to the positions as the caller gave them, r_ij = r_j - r_i + S . H.
void unwrapped_shifts(const NeighborList& list, std::int32_t* shifts);

// vectors[n_pairs][3] from i to j, A. `batch` may hold other positions and cells than the list was built for.
void pair_vectors(const NeighborList& list, const StructureBatch& batch, double* vectors);

// True when a list built for `built` with `skin` could miss a pair within its cutoff at other positions and cells.
// Atoms may have left the cell since, provided that their positions were not wrapped again. Cutoffs: the smallest and
// largest listed, A.
bool max_displacement_exceeds(const StructureBatch& built, const double* positions, const double* cells,
                              double smallest_cutoff, double largest_cutoff, double skin);

}  // namespace grace
