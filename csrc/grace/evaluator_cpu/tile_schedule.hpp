// Order of the atoms: a contiguous share per thread, chunks within a share, species order within a chunk, then tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace grace::cpu {

struct TileRange {
  int begin = 0, end = 0;  // in TileSchedule::order
  std::size_t kept = 0;    // where its layer-1 values are kept between the passes of a two-layer model
};

struct TileSchedule {
  std::vector<std::int32_t> order;            // centres
  std::vector<std::int32_t> species;          // of order
  std::vector<std::vector<TileRange>> tiles;  // [thread]
};

// `species` is indexed by centre. Atoms of a tile are mostly of one element, so that element-dependent weights are
// matrices for whole tiles. The order depends on the number of threads only through the shares.
TileSchedule make_tile_schedule(const std::vector<std::int32_t>& centers, const std::int32_t* species, int n_threads,
                                int chunk, int tile_atoms);

}  // namespace grace::cpu
