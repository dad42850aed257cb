// Kernels of search.hpp. Pairs are counted by one launch and stored by another, which must agree to the last of them:
// these kernels are compiled without contraction of multiplications and additions, and find the pairs of the CPU.
#pragma once

#include <cmath>

#include "grace/device/atomics.hpp"
#include "grace/device/kernel.hpp"
#include "grace/neighbors_cuda/scan_kernels.hpp"
#include "grace/snap_cuda/search.hpp"

namespace grace::snap {

// A block for each atom, a thread for each other atom of its structure: visit(entry, cutoff, walk). Cells of generated
// structures hold a dozen atoms and a few dozen images are within reach of each: what matters is that nothing waits for
// the host.
template <int threads, class Block, class Visit>
GRACE_DEVICE void each_entry(Block& block, const DeviceBatch& batch, Visit visit) {
  const std::int64_t i = block.x();
  const DeviceAtom& center = batch.atoms[i];
  const DeviceStructure& structure = batch.structures[center.structure];
  const std::int64_t row = batch.row(i);
  block.each_thread([&](int thread, device::NoPrivate&) {
    for (std::int64_t k = thread; k < structure.n_atoms; k += threads) {
      const std::int64_t j = structure.first_atom + k;
      const DeviceAtom& other = batch.atoms[j];
      const double cutoff = pair_cutoff(batch.rule, center.cutoff, other.cutoff);
      visit(row + k, cutoff,
            ImageWalk(structure.frame, center.position, center.fractional, other.position, other.fractional, cutoff,
                      i == j));
    }
  });
}

struct CountSnapPairs {
  static constexpr const char* name = "snap_count_pairs";
  static constexpr int threads = 64;
  using Private = device::NoPrivate;

  DeviceBatch batch;
  std::int64_t* count;  // [n_entries]

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    each_entry<threads>(block, batch, [&](std::int64_t entry, double, ImageWalk walk) {
      double r[3], square;
      std::int64_t n = 0;
      while (walk.next(r, square)) ++n;
      count[entry] = n;
    });
  }
};

struct StoreSnapPairs {
  static constexpr const char* name = "snap_store_pairs";
  static constexpr int threads = 64;
  using Private = device::NoPrivate;

  DeviceBatch batch;
  DevicePairs pairs;
  double rmin0;
  std::uint64_t* coincident;  // the least structure with two atoms in one place

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t structure = batch.atoms[block.x()].structure;
    each_entry<threads>(block, batch, [&](std::int64_t entry, double cutoff, ImageWalk walk) {
      const double inverse_range = 1.0 / (cutoff - rmin0);
      double r[3], square;
      double* out = pairs.numbers + pairs.begin(entry);
      double* const end = pairs.numbers + pairs.begin(entry + 1);
      for (; out < end && walk.next(r, square); ++out) {
        const double length = std::sqrt(square);
        if (length < least_distance) device::atomic_min(coincident, static_cast<std::uint64_t>(structure));
        for (int x = 0; x < 3; ++x) out[x * pairs.capacity] = r[x] / length;
        out[3 * pairs.capacity] = length;
        out[4 * pairs.capacity] = inverse_range;
      }
    });
  }
};

template <class Device>
void count_pairs(Device& device, const DeviceBatch& batch, std::int64_t n_entries, std::int64_t* first,
                 std::int64_t* totals) {
  device.fill_zero(first + n_entries, sizeof(std::int64_t));
  device.launch(CountSnapPairs{batch, first}, {static_cast<unsigned>(batch.n_atoms)});
  gpu::exclusive_scan(device, first, n_entries + 1, totals);
}

template <class Device>
void store_pairs(Device& device, const DeviceBatch& batch, const DevicePairs& pairs, double rmin0,
                 std::uint64_t* coincident) {
  device.launch(StoreSnapPairs{batch, pairs, rmin0, coincident}, {static_cast<unsigned>(batch.n_atoms)});
}

}  // namespace grace::snap
