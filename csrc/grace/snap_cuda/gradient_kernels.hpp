// Gradients by the vectors of pairs, and their sums over the pairs of an atom.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/snap_cuda/density_kernels.hpp"
#include "grace/snap_cuda/kernels.hpp"

namespace grace::snap {

template <int levels>
struct SnapPairGradients {
  static constexpr const char* name = "snap_pair_gradients";
  static constexpr int threads = 128;
  static constexpr int min_blocks = levels <= low_levels ? 4 : 2;
  static constexpr int tile = 32;               // neighbours at a time, the lanes of a warp: one m for all of them
  static constexpr int warps = threads / tile;  // for the m
  static constexpr int partial_numbers = 5;     // value and G
  static constexpr int n = math::snap_n_coefficients;
  struct Private {
    math::SnapPair<OneNumber> pair;
    math::SnapPoint<OneNumber> point;
  };

  DevicePlan plan;
  DeviceBatch batch;
  DevicePairs pairs;
  const Complex* adjoints;
  double* gradients;

  std::size_t shared_bytes() const {
    return device::shared_size<Complex>(plan.n_half) + device::shared_size<double>(n * plan.n_lower) +
           device::shared_size<double>(partial_numbers * threads);
  }

  // The part of the rows m of one pair in the value and in G.
  GRACE_DEVICE void add_rows(int m, const math::SnapPoint<OneNumber>& point, const double* coefficients, double& value,
                             math::SnapGradient<OneNumber>& total) const {
    double row[2 * levels];
    row[0] = 1.0;
    row[1] = 0.0;
    rows_of<levels - 1>(m, plan.twojmax - 1, point, row, [&](auto level, const double* p) {
      constexpr int J = level.value + 1;  // whose gradient the rows of level J - 1 give
      math::SnapGradient<OneNumber> G{0.0, 0.0, 0.0, 0.0};
      const double* c = coefficients + n * (math::snap_half_offset(J - 1) + m * J);
      for (int e = 0; e < J; ++e) math::snap_add_gradient(c + n * e, p[2 * e], p[2 * e + 1], G);
      value += (1.0 / J) * math::snap_level_value(point, G);
      total.a_r += G.a_r;
      total.a_i += G.a_i;
      total.b_r += G.b_r;
      total.b_i += G.b_i;
    });
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t atom = block.x();
    Complex* Y = block.template shared<Complex>(plan.n_half);
    double* coefficients = block.template shared<double>(n * plan.n_lower);
    double* partial = block.template shared<double>(partial_numbers * threads);
    const std::int64_t begin = pairs.begin(batch.row(atom)), end = pairs.begin(batch.row_end(atom));
    block.each_thread([&](int thread, Private&) {
      for (int e = thread; e < plan.n_half; e += threads) Y[e] = adjoints[atom * plan.n_half + e];
    });
    block.each_thread([&](int thread, Private&) {
      for (int e = thread; e < plan.n_lower; e += threads) {
        const LowerElement at = plan.lower[e];
        math::snap_gradient_coefficients(at.J, at.m, at.n, &Y[math::snap_half_offset(at.J)].r, coefficients + n * e);
      }
    });
    for (std::int64_t first = begin; first < end; first += tile) {
      block.each_thread([&](int thread, Private& own) {
        const std::int64_t k = first + thread % tile;
        if (k >= end) return;
        own.pair = load_pair(pairs, k);
        own.point = math::snap_point<OneNumber>(plan.shape, own.pair);
        double value = 0.0;
        math::SnapGradient<OneNumber> total{0.0, 0.0, 0.0, 0.0};
        for (int m = thread / tile; 2 * m < plan.twojmax; m += warps)
          add_rows(m, own.point, coefficients, value, total);
        partial[thread] = value;
        partial[threads + thread] = total.a_r;
        partial[2 * threads + thread] = total.a_i;
        partial[3 * threads + thread] = total.b_r;
        partial[4 * threads + thread] = total.b_i;
      });
      block.each_thread([&](int thread, Private& own) {
        const std::int64_t k = first + thread;
        if (thread >= tile || k >= end) return;
        double sum[partial_numbers] = {Y[0].r, 0.0, 0.0, 0.0, 0.0};
        for (int w = 0; w < warps; ++w)
          for (int x = 0; x < partial_numbers; ++x) sum[x] += partial[x * threads + w * tile + thread];
        const math::SnapGradient<OneNumber> G{sum[1], sum[2], sum[3], sum[4]};
        double g[3];
        math::snap_pair_gradient(own.pair, own.point, sum[0], G, g);
        for (int x = 0; x < 3; ++x) gradients[x * pairs.capacity + k] = g[x];
      });
    }
  }
};

struct CollectSnapGradients {
  static constexpr const char* name = "snap_collect";
  static constexpr int threads = 128;
  static constexpr int lanes = 32;  // of an atom
  static constexpr int atoms = threads / lanes;
  static constexpr int spacing = n_collected + 1;  // odd, so that lanes write to different banks
  using Private = device::NoPrivate;

  DeviceBatch batch;
  DevicePairs pairs;
  const double* gradients;
  double* sums;

  static constexpr std::size_t shared_bytes() { return device::shared_size<double>(threads * spacing); }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* partial = block.template shared<double>(threads * spacing);
    const std::int64_t first_atom = std::int64_t{block.x()} * atoms;
    block.each_thread([&](int thread, device::NoPrivate&) {
      const std::int64_t atom = first_atom + thread / lanes;
      if (atom >= batch.n_atoms) return;
      const int lane = thread % lanes;
      const std::int64_t c = pairs.capacity;
      double by_position[3] = {0.0, 0.0, 0.0}, by_strain[9] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
      const DeviceStructure& s = batch.structures[batch.atoms[atom].structure];
      for (std::int64_t i = lane; i < s.n_atoms; i += lanes) {  // as neighbour of i
        const std::int64_t entry = s.first_entry + i * s.n_atoms + (atom - s.first_atom);
        for (std::int64_t k = pairs.first[entry]; k < pairs.first[entry + 1]; ++k)
          for (int x = 0; x < 3; ++x) by_position[x] += gradients[x * c + k];
      }
      const std::int64_t end = pairs.first[batch.row_end(atom)];
      for (std::int64_t k = pairs.first[batch.row(atom)] + lane; k < end; k += lanes) {  // as centre
        const double g[3] = {gradients[k], gradients[c + k], gradients[2 * c + k]};
        const double length = pairs.numbers[3 * c + k];
        for (int y = 0; y < 3; ++y) {
          by_position[y] -= g[y];
          const double r = length * pairs.numbers[y * c + k];
          for (int x = 0; x < 3; ++x) by_strain[3 * y + x] += r * g[x];
        }
      }
      for (int x = 0; x < 3; ++x) partial[thread * spacing + x] = by_position[x];
      for (int x = 0; x < 9; ++x) partial[thread * spacing + 3 + x] = by_strain[x];
    });
    block.each_thread([&](int thread, device::NoPrivate&) {
      const std::int64_t atom = first_atom + thread / n_collected;
      if (thread >= atoms * n_collected || atom >= batch.n_atoms) return;
      const double* of_atom = partial + thread / n_collected * lanes * spacing + thread % n_collected;
      double sum = 0.0;
      for (int lane = 0; lane < lanes; ++lane) sum += of_atom[lane * spacing];
      sums[atom * n_collected + thread % n_collected] = sum;
    });
  }
};

template <class Device>
void pair_gradients(Device& device, const DevicePlan& plan, const DeviceBatch& batch, const DevicePairs& pairs,
                    const Complex* adjoints, double* gradients) {
  const device::Grid grid{static_cast<unsigned>(batch.n_atoms)};
  const auto launch = [&](const auto& kernel) { device.launch(kernel, grid, kernel.shared_bytes()); };
  if (plan.twojmax <= low_levels)
    launch(SnapPairGradients<low_levels>{plan, batch, pairs, adjoints, gradients});
  else
    launch(SnapPairGradients<max_levels>{plan, batch, pairs, adjoints, gradients});
}

template <class Device>
void collect(Device& device, const DeviceBatch& batch, const DevicePairs& pairs, const double* gradients,
             double* sums) {
  using Kernel = CollectSnapGradients;
  device.launch(Kernel{batch, pairs, gradients, sums},
                {device::blocks_for(static_cast<std::size_t>(batch.n_atoms), Kernel::atoms)}, Kernel::shared_bytes());
}

}  // namespace grace::snap
