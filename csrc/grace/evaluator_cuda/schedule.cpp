#include "grace/evaluator_cuda/schedule.hpp"

#include <algorithm>
#include <limits>

#include "grace/error.hpp"

namespace grace::gpu {

Schedule make_schedule(const std::vector<std::int32_t>& centers, const std::vector<std::int32_t>& species,
                       const std::vector<std::int64_t>& rows, int n_elements, int chunk_atoms) {
  Schedule schedule;
  const std::int64_t n = static_cast<std::int64_t>(centers.size());
  schedule.centers.resize(n);
  schedule.species.resize(n);
  schedule.slot.reserve(n + n / chunk_atoms + 1);
  schedule.first.push_back(0);
  schedule.first_tile.push_back(0);
  std::vector<std::int64_t> position(n_elements + 1);
  for (std::int64_t begin = 0; begin < n; begin += chunk_atoms) {
    const std::int64_t end = std::min<std::int64_t>(n, begin + chunk_atoms);
    std::fill(position.begin(), position.end(), 0);
    for (std::int64_t k = begin; k < end; ++k) ++position[species[centers[k]] + 1];
    for (int e = 0; e < n_elements; ++e) {
      for (std::int64_t a = 0; a < position[e + 1]; a += gemm_atoms)
        schedule.tiles.push_back({static_cast<int>(position[e] + a),
                                  static_cast<int>(std::min<std::int64_t>(gemm_atoms, position[e + 1] - a)), e});
      position[e + 1] += position[e];
    }
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t at = begin + position[species[centers[k]]]++;
      schedule.centers[at] = centers[k];
      schedule.species[at] = species[centers[k]];
    }
    std::int64_t slot = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      schedule.slot.push_back(static_cast<std::int32_t>(slot));
      const std::int32_t i = schedule.centers[k];
      slot += rows[i + 1] - rows[i];
      require(slot <= std::numeric_limits<std::int32_t>::max(), "the neighbour rows of ", end - begin, " atoms hold ",
              slot, " entries or more; check the cell and the cutoff, or lower chunksize");
    }
    schedule.slot.push_back(static_cast<std::int32_t>(slot));
    schedule.most_atoms = std::max(schedule.most_atoms, static_cast<int>(end - begin));
    schedule.most_slots = std::max(schedule.most_slots, slot);
    schedule.first.push_back(end);
    schedule.first_tile.push_back(static_cast<std::int64_t>(schedule.tiles.size()));
  }
  return schedule;
}

}  // namespace grace::gpu
