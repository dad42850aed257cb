// Which atoms are evaluated together on a device: chunks of centres, sorted by element inside a chunk.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/evaluator_cuda/chunk.hpp"

namespace grace::gpu {

// On the host. Chunk c holds the centres [first[c], first[c + 1]) of `centers`; its bond slots start at slot[first[c] +
// c].
struct Schedule {
  std::vector<std::int32_t> centers;
  std::vector<std::int32_t> species;
  std::vector<std::int32_t> slot;  // per chunk n + 1 entries
  std::vector<AtomTile> tiles;
  std::vector<std::int64_t> first;       // [n_chunks + 1]
  std::vector<std::int64_t> first_tile;  // [n_chunks + 1]
  int most_atoms = 0;                    // of a chunk
  std::int64_t most_slots = 0;

  int n_chunks() const { return static_cast<int>(first.size()) - 1; }
};

// rows[n_centers + 1]: where neighbour rows start. Throws Error when the rows of one chunk exceed 2^31 entries.
Schedule make_schedule(const std::vector<std::int32_t>& centers, const std::vector<std::int32_t>& species,
                       const std::vector<std::int64_t>& rows, int n_elements, int chunk_atoms);

}  // namespace grace::gpu
