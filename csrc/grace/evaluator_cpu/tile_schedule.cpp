#include "grace/evaluator_cpu/tile_schedule.hpp"

#include <algorithm>

namespace grace::cpu {

TileSchedule make_tile_schedule(const std::vector<std::int32_t>& centers, const std::int32_t* species, int n_threads,
                                int chunk, int tile_atoms) {
  TileSchedule schedule;
  schedule.order = centers;
  schedule.tiles.resize(n_threads);
  const std::int64_t n = static_cast<std::int64_t>(centers.size());
  for (int t = 0; t < n_threads; ++t) {
    const std::int64_t begin = n * t / n_threads, end = n * (t + 1) / n_threads;
    for (std::int64_t c = begin; c < end; c += chunk) {
      const std::int64_t stop = std::min<std::int64_t>(end, c + chunk);
      std::stable_sort(schedule.order.begin() + c, schedule.order.begin() + stop,
                       [species](std::int32_t a, std::int32_t b) { return species[a] < species[b]; });
      for (std::int64_t i = c; i < stop; i += tile_atoms)
        schedule.tiles[t].push_back(
            {static_cast<int>(i), static_cast<int>(std::min<std::int64_t>(stop, i + tile_atoms)), 0});
    }
  }
  schedule.species.resize(n);
  for (std::int64_t i = 0; i < n; ++i) schedule.species[i] = species[schedule.order[i]];
  return schedule;
}

}  // namespace grace::cpu
