// Exclusive prefix sums of int64 on a device, of any length, in place.
#pragma once

#include <cstdint>

#include "grace/device/kernel.hpp"

namespace grace::gpu {

constexpr int kScanThreads = 256;
constexpr int kScanItems = 8;  // of one thread
constexpr std::int64_t kScanTile = kScanThreads * kScanItems;

// Prefix sums within each tile; totals[tile]: its sum.
struct ScanTiles {
  static constexpr const char* name = "scan_tiles";
  static constexpr int threads = kScanThreads;
  struct Private {
    std::int64_t items[kScanItems];
    std::int64_t sum;
  };
  std::int64_t* values;
  std::int64_t* totals;
  std::int64_t n;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    std::int64_t* sums = block.template shared<std::int64_t>(2 * threads);
    const std::int64_t tile = std::int64_t{block.x()} * kScanTile;
    block.each_thread([&](int thread, Private& own) {
      own.sum = 0;
      for (int k = 0; k < kScanItems; ++k) {
        const std::int64_t at = tile + thread * kScanItems + k;
        own.items[k] = at < n ? values[at] : 0;
        own.sum += own.items[k];
      }
      sums[thread] = own.sum;
    });
    int from = 0;
    for (int step = 1; step < threads; step *= 2) {
      const std::int64_t* in = sums + from * threads;
      std::int64_t* out = sums + (1 - from) * threads;
      block.each_thread(
          [&](int thread, Private&) { out[thread] = in[thread] + (thread >= step ? in[thread - step] : 0); });
      from = 1 - from;
    }
    const std::int64_t* inclusive = sums + from * threads;
    block.each_thread([&](int thread, Private& own) {
      std::int64_t place = inclusive[thread] - own.sum;
      for (int k = 0; k < kScanItems; ++k) {
        const std::int64_t at = tile + thread * kScanItems + k;
        if (at < n) values[at] = place;
        place += own.items[k];
      }
      if (thread == threads - 1) totals[block.x()] = place;
    });
  }
};

struct AddTileStarts {
  static constexpr const char* name = "add_tile_starts";
  static constexpr int threads = kScanThreads;
  using Private = device::NoPrivate;
  std::int64_t* values;
  const std::int64_t* starts;
  std::int64_t n;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t tile = std::int64_t{block.x()} * kScanTile;
    block.each_thread([&](int thread, Private&) {
      const std::int64_t start = starts[block.x()];
      for (int k = 0; k < kScanItems; ++k) {
        const std::int64_t at = tile + k * threads + thread;
        if (at < n) values[at] += start;
      }
    });
  }
};

// Elements of `totals` that exclusive_scan of n values needs.
inline std::int64_t scan_memory(std::int64_t n) {
  std::int64_t sum = 0;
  do {
    n = (n + kScanTile - 1) / kScanTile;
    sum += n;
  } while (n > 1);
  return sum;
}

// values[n] becomes the sums of the elements before.
template <class Device>
void exclusive_scan(Device& device, std::int64_t* values, std::int64_t n, std::int64_t* totals) {
  if (n == 0) return;
  const std::int64_t n_tiles = (n + kScanTile - 1) / kScanTile;
  const device::Grid grid{static_cast<unsigned>(n_tiles)};
  device.launch(ScanTiles{values, totals, n}, grid, device::shared_size<std::int64_t>(2 * kScanThreads));
  if (n_tiles == 1) return;
  exclusive_scan(device, totals, n_tiles, totals + n_tiles);
  device.launch(AddTileStarts{values, totals, n}, grid);
}

}  // namespace grace::gpu
