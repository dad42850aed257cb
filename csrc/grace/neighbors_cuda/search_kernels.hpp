// Pairs of every centre: counted, then filled with the same text, then sorted row by row.
#pragma once

#include <cstdint>

#include "grace/neighbors_cuda/bins_kernels.hpp"

namespace grace::gpu {

// One thread per centre, in the order of the bins: neighbouring threads read the same candidates. With rows == nullptr
// pairs are counted in counts[centre], otherwise they are written from rows[centre] on.
struct SearchPairs {
  static constexpr const char* name = "list_search_pairs";
  static constexpr int threads = 128;
  using Private = device::NoPrivate;
  const ListFrame* frames;
  const ListBins* bins;
  const std::int32_t* structure;
  const std::int64_t* start;  // [n_bins + 1]
  const BinnedAtom* binned;
  const double* squared_cutoffs;  // [n_species][n_species]
  int n_species;
  std::int64_t n_centers, n_bins;
  std::int64_t* counts;
  const std::int64_t* rows;
  std::int32_t* neighbor;
  std::int32_t* shift;  // may be nullptr

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t p = std::int64_t{block.x()} * threads + thread;
      if (p >= start[n_bins]) return;
      const BinnedAtom centre = binned[p];
      if (centre.atom < n_centers) search(centre);
    });
  }

  GRACE_DEVICE void search(const BinnedAtom& centre) const {
    const std::int32_t s = structure[centre.atom];
    const ListFrame& frame = frames[s];
    const ListBins& grid = bins[s];
    std::int64_t low[3];
    int span[3];
    for (int k = 0; k < 3; ++k) {
      const std::int64_t t = bin_along(frame, grid, centre.position, k);
      low[k] = t - grid.reach[k];
      std::int64_t high = t + grid.reach[k];
      if (!frame.periodic[k]) {
        if (low[k] < 0) low[k] = 0;
        if (high >= grid.extent[k]) high = grid.extent[k] - 1;
      }
      span[k] = static_cast<int>(high - low[k]);
    }
    // From here on folded places: bin = image * n_bins + place.
    int first[3], image[3];
    for (int k = 0; k < 3; ++k) {
      const int n = grid.n_bins[k];
      image[k] = frame.periodic[k] ? floor_divide(static_cast<int>(low[k]), n) : 0;
      first[k] = frame.periodic[k] ? static_cast<int>(low[k]) - image[k] * n : static_cast<int>(low[k] % n);
    }
    const double* const limit = squared_cutoffs + std::int64_t{centre.species} * n_species;
    std::int64_t place = rows == nullptr ? 0 : rows[centre.atom];
    const std::int64_t last = rows == nullptr ? 0 : rows[centre.atom + 1];
    int a = image[0], bin0 = first[0];
    for (int step0 = 0; step0 <= span[0]; ++step0) {
      int b = image[1], bin1 = first[1];
      for (int step1 = 0; step1 <= span[1]; ++step1) {
        const std::int64_t* const column =
            start + grid.first_bin + (std::int64_t{bin0} * grid.n_bins[1] + bin1) * grid.n_bins[2];
        int c = image[2], bin2 = first[2];
        for (int step2 = 0; step2 <= span[2];) {  // bins of one column and one image are contiguous
          int run = grid.n_bins[2] - bin2;
          if (run > span[2] - step2 + 1) run = span[2] - step2 + 1;
          double offset[3];
          math::image_offset(a, b, c, frame.cell, offset);
          const std::int32_t packed = (a + 512) | ((b + 512) << 10) | ((c + 512) << 20);
          for (std::int64_t q = column[bin2]; q < column[bin2 + run]; ++q) {
            const BinnedAtom other = binned[q];
            double vector[3];
            math::pair_vector(centre.position, other.position, offset, vector);
            if (!(math::dot3(vector, vector) < limit[other.species])) continue;
            if (other.atom == centre.atom && a == 0 && b == 0 && c == 0) continue;
            if (place < last) {  // `last` guards memory, should rounding ever differ between the two launches
              neighbor[place] = other.atom;
              if (shift != nullptr) shift[place] = packed;
            }
            ++place;
          }
          step2 += run;
          bin2 = 0;
          if (frame.periodic[2]) ++c;
        }
        if (++bin1 == grid.n_bins[1]) {
          bin1 = 0;
          if (frame.periodic[1]) ++b;
        }
      }
      if (++bin0 == grid.n_bins[0]) {
        bin0 = 0;
        if (frame.periodic[0]) ++a;
      }
    }
    if (rows == nullptr) counts[centre.atom] = place;
  }
};

// One block per centre: its row in ascending order of (neighbour, image a, b, c), that of the list on the CPU.
struct SortRows {
  static constexpr const char* name = "list_sort_rows";
  static constexpr int threads = 64;
  static constexpr int capacity = 1024;  // longer rows are sorted in global memory
  using Private = device::NoPrivate;
  const std::int64_t* rows;
  std::int32_t* neighbor;
  std::int32_t* shift;  // may be nullptr

  static std::size_t shared_bytes() { return device::shared_size<std::uint64_t>(capacity); }

  // Orders as (neighbour, a, b, c); the packed image has a in its lowest bits.
  GRACE_DEVICE std::uint64_t key(std::int64_t p) const {
    const std::uint64_t image = shift == nullptr ? 0 : static_cast<std::uint32_t>(shift[p]);
    return (static_cast<std::uint64_t>(neighbor[p]) << 32) | ((image & 1023) << 20) | (image & (1023 << 10)) |
           (image >> 20);
  }
  GRACE_DEVICE void store(std::int64_t p, std::uint64_t key) const {
    neighbor[p] = static_cast<std::int32_t>(key >> 32);
    if (shift != nullptr)
      shift[p] = static_cast<std::int32_t>(((key >> 20) & 1023) | (key & (1023 << 10)) | ((key & 1023) << 20));
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t begin = rows[block.x()], n = rows[block.x() + 1] - begin;
    if (n < 2) return;
    std::uint64_t* keys = block.template shared<std::uint64_t>(capacity);
    if (n > capacity) {
      sort_long(block, begin, n);
      return;
    }
    block.each_thread([&](int thread, Private&) {
      for (int k = thread; k < n; k += threads) keys[k] = key(begin + k);
    });
    block.each_thread([&](int thread, Private&) {
      for (int k = thread; k < n; k += threads) {
        const std::uint64_t mine = keys[k];
        int rank = 0;  // keys differ; all threads read the same word
        for (int other = 0; other < n; ++other) rank += keys[other] < mine ? 1 : 0;
        store(begin + rank, mine);
      }
    });
  }

  // Bitonic network in which every exchange puts the smaller key first, so that rows of any length may be thought of as
  // filled up with infinities.
  template <class Block>
  GRACE_DEVICE void sort_long(Block& block, std::int64_t begin, std::int64_t n) const {
    for (std::int64_t size = 2; size < 2 * n; size *= 2) {
      for (std::int64_t stride = size / 2; stride > 0; stride /= 2) {
        block.each_thread([&](int thread, Private&) {
          for (std::int64_t k = thread; k < n; k += threads) {
            const std::int64_t other = stride == size / 2 ? k ^ (size - 1) : k ^ stride;
            if (other <= k || other >= n) continue;
            const std::uint64_t first = key(begin + k), second = key(begin + other);
            if (second < first) {
              store(begin + k, second);
              store(begin + other, first);
            }
          }
        });
      }
    }
  }
};

}  // namespace grace::gpu
