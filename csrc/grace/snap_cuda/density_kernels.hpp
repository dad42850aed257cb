// U of every atom.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/math/scalar_pack.hpp"
#include "grace/snap_cuda/kernels.hpp"

namespace grace::snap {

using OneNumber = math::ScalarPack<double>;

GRACE_DEVICE math::SnapPair<OneNumber> load_pair(const DevicePairs& pairs, std::int64_t k) {
  const double* from = pairs.numbers + k;
  const std::int64_t c = pairs.capacity;
  return {from[0], from[c], from[2 * c], from[3 * c], from[4 * c]};
}

// Calls visit(J, row) for rows m of the levels J = 2 m .. last; `row` holds level 0. With J known to the compiler the
// row stays in registers.
template <int levels, int J = 0, class Visit>
GRACE_DEVICE void rows_of(int m, int last, const math::SnapPoint<OneNumber>& point, double* row, Visit visit) {
  if constexpr (J <= levels) {
    if (J > last) return;
    if constexpr (J > 0) math::snap_advance_row(J, m, point, row);
    if (J >= 2 * m) visit(std::integral_constant<int, J>(), row);
    rows_of<levels, J + 1>(m, last, point, row, visit);
  }
}

template <int levels>
struct SnapDensities {
  static constexpr const char* name = "snap_densities";
  static constexpr int threads = 128;
  static constexpr int min_blocks = levels <= low_levels ? 3 : 2;  // that shared memory has room for
  // Neighbours at a time: as many as there are threads for their rows, an odd number for the banks of shared memory.
  static constexpr int tile = levels <= low_levels ? threads / math::snap_half_rows(levels) : 7;
  static_assert(tile % 2 == 1 && tile * math::snap_half_rows(levels) <= threads, "a thread for every row");
  static constexpr int point_numbers = 5;
  using Private = device::NoPrivate;

  DevicePlan plan;
  DeviceBatch batch;
  DevicePairs pairs;
  Complex* densities;

  std::size_t shared_bytes() const {
    return device::shared_size<double>(point_numbers * tile) + device::shared_size<double>(2 * plan.n_half * tile) +
           device::shared_size<double>(2 * plan.n_half);
  }

  GRACE_DEVICE void make_rows(int k, int m, const double* points, double* rows) const {
    math::SnapPoint<OneNumber> point{};
    point.a_r = points[k];
    point.a_i = points[tile + k];
    point.b_r = points[2 * tile + k];
    point.b_i = points[3 * tile + k];
    double row[2 * (levels + 1)];
    row[0] = points[4 * tile + k];
    row[1] = 0.0;
    rows_of<levels>(m, plan.twojmax, point, row, [&](auto level, const double* p) {
      constexpr int J = level.value;
      double* out = rows + 2 * (math::snap_half_offset(J) + m * (J + 1)) * tile + k;
      for (int e = 0; e < 2 * (J + 1); ++e, out += tile) *out = p[e];
    });
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t atom = block.x();
    double* points = block.template shared<double>(point_numbers * tile);
    double* rows = block.template shared<double>(2 * plan.n_half * tile);
    double* sums = block.template shared<double>(2 * plan.n_half);
    const std::int64_t begin = pairs.begin(batch.row(atom)), end = pairs.begin(batch.row_end(atom));
    block.each_thread([&](int thread, device::NoPrivate&) {
      for (int e = thread; e < 2 * plan.n_half; e += threads) sums[e] = 0.0;
    });
    for (std::int64_t first = begin; first < end; first += tile) {
      const int n = end - first < tile ? static_cast<int>(end - first) : tile;
      block.each_thread([&](int thread, device::NoPrivate&) {
        if (thread >= n) return;
        const auto point = math::snap_point<OneNumber>(plan.shape, load_pair(pairs, first + thread));
        points[thread] = point.a_r;
        points[tile + thread] = point.a_i;
        points[2 * tile + thread] = point.b_r;
        points[3 * tile + thread] = point.b_i;
        points[4 * tile + thread] = point.f;
      });
      block.each_thread([&](int thread, device::NoPrivate&) {
        const int m = thread / tile, k = thread % tile;
        if (k < n && 2 * m <= plan.twojmax) make_rows(k, m, points, rows);
      });
      block.each_thread([&](int thread, device::NoPrivate&) {
        for (int e = thread; e < 2 * plan.n_half; e += threads) {
          double sum = sums[e];
          for (int k = 0; k < n; ++k) sum += rows[e * tile + k];
          sums[e] = sum;
        }
      });
    }
    block.each_thread([&](int thread, device::NoPrivate&) {
      double* out = &densities[atom * plan.n_half].r;
      for (int e = thread; e < 2 * plan.n_half; e += threads)
        out[e] = sums[e] * plan.norms[e / 2] + (e % 2 == 0 ? plan.self[e / 2] : 0.0);
    });
  }
};

template <class Device>
void densities(Device& device, const DevicePlan& plan, const DeviceBatch& batch, const DevicePairs& pairs,
               Complex* densities) {
  const device::Grid grid{static_cast<unsigned>(batch.n_atoms)};
  const auto launch = [&](const auto& kernel) { device.launch(kernel, grid, kernel.shared_bytes()); };
  if (plan.twojmax <= low_levels)
    launch(SnapDensities<low_levels>{plan, batch, pairs, densities});
  else
    launch(SnapDensities<max_levels>{plan, batch, pairs, densities});
}

}  // namespace grace::snap
