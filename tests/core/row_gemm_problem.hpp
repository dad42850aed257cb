// Dense maps of random shapes in plain numbers, the loops that say what they are, and their copy on a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/evaluator_cuda/row_gemm.hpp"
#include "test_target.hpp"

namespace row_gemm_test {

using namespace grace::gpu;
using grace::device::Buffer;
using test_target::TestDevice;

struct Case {
  int n_columns;
  std::vector<int> inputs;  // strides of the sources, dealt out in turn
  int n_targets;
  int most_sources;  // of a target; 1 .. most_sources occur
  bool per_element;
  std::vector<int> tiles;  // atoms of every tile; their elements go down, so that they are no run of 0, 1, ...
};

template <class Real>
struct Problem {
  static constexpr Real nothing = std::numeric_limits<Real>::quiet_NaN();
  Case c;
  int n_atoms = 0, n_elements = 1;
  std::int64_t element_stride = 0;
  std::vector<AtomTile> tiles;
  std::vector<GemmTarget> targets;
  std::vector<GemmSource> sources;
  std::vector<Real> weights;   // NaN between matrices
  std::vector<Real> place[2];  // Place::arena and Place::block; NaN between rows, and in targets that are written
  std::int64_t size[2] = {};   // numbers per atom
  std::mt19937 random;

  Real uniform() { return static_cast<Real>(std::uniform_real_distribution<double>(-1.0, 1.0)(random)); }

  RowAddress new_row(int stride) {
    const int at = static_cast<int>(random() % 2);
    size[at] += static_cast<std::int64_t>(random() % 3) * channel_unit;
    const RowAddress row{static_cast<Place>(at), stride, size[at]};
    size[at] += stride;
    return row;
  }
  void fill(const RowAddress& row) {
    std::vector<Real>& numbers = place[static_cast<int>(row.place)];
    for (std::int64_t i = 0; i < std::int64_t{row.stride} * n_atoms; ++i) numbers[row.start(n_atoms) + i] = uniform();
  }

  Problem(const Case& wanted, unsigned seed) : c(wanted), random(seed) {
    n_elements = c.per_element ? static_cast<int>(c.tiles.size()) + 1 : 1;
    for (int count : c.tiles) {
      tiles.push_back({n_atoms, count, c.per_element ? n_elements - 1 - static_cast<int>(tiles.size()) : 0});
      n_atoms += count;
    }
    std::int64_t n_weights = 0;
    for (int t = 0; t < c.n_targets; ++t) {
      GemmTarget target;
      target.first_source = static_cast<int>(sources.size());
      target.n_sources = 1 + static_cast<int>(random() % static_cast<unsigned>(c.most_sources));
      target.accumulate = static_cast<int>(random() % 2);
      for (int s = 0; s < target.n_sources; ++s) {
        GemmSource source{new_row(c.inputs[sources.size() % c.inputs.size()]), n_weights};
        if (t > 0 && s == 0 && source.row.stride == sources[0].row.stride) source.weights = sources[0].weights;
        if (source.weights == n_weights) n_weights += std::int64_t{source.row.stride} * c.n_columns + channel_unit;
        sources.push_back(source);
      }
      target.row = new_row(c.n_columns);
      targets.push_back(target);
    }
    if (c.per_element) element_stride = n_weights;
    weights.assign(static_cast<std::size_t>(n_weights * n_elements), nothing);
    for (const GemmSource& source : sources)
      for (int e = 0; e < n_elements; ++e)
        for (int i = 0; i < source.row.stride * c.n_columns; ++i)
          weights[e * element_stride + source.weights + i] = uniform();
    for (int p = 0; p < 2; ++p) place[p].assign(static_cast<std::size_t>(size[p] * n_atoms), nothing);
    for (const GemmSource& source : sources) fill(source.row);
    for (const GemmTarget& target : targets)
      if (target.accumulate != 0) fill(target.row);
  }

  int element(int atom) const {
    for (const AtomTile& tile : tiles)
      if (atom >= tile.begin && atom < tile.begin + tile.count) return tile.element;
    return -1;
  }

  // The rows of all targets, [target][atom][column], in these numbers.
  std::vector<Real> rows_of(const std::vector<Real> (&numbers)[2]) const {
    std::vector<Real> rows;
    for (const GemmTarget& target : targets) {
      const auto from = numbers[static_cast<int>(target.row.place)].begin() + target.row.start(n_atoms);
      rows.insert(rows.end(), from, from + std::int64_t{c.n_columns} * n_atoms);
    }
    return rows;
  }
  // What they should be.
  std::vector<double> expected() const {
    std::vector<double> rows;
    for (const GemmTarget& target : targets)
      for (int a = 0; a < n_atoms; ++a)
        for (int column = 0; column < c.n_columns; ++column) {
          double sum = 0.0;
          if (target.accumulate != 0)
            sum = static_cast<double>(
                place[static_cast<int>(target.row.place)][target.row.start(n_atoms) + a * c.n_columns + column]);
          for (int s = target.first_source; s < target.first_source + target.n_sources; ++s) {
            const RowAddress& row = sources[s].row;
            const Real* x = place[static_cast<int>(row.place)].data() + row.start(n_atoms) + a * row.stride;
            const Real* matrix = weights.data() + element(a) * element_stride + sources[s].weights;
            for (int k = 0; k < row.stride; ++k)
              sum += static_cast<double>(x[k]) * static_cast<double>(matrix[k * c.n_columns + column]);
          }
          rows.push_back(sum);
        }
    return rows;
  }
};

// The problem on a device.
template <class Real>
struct Setup {
  TestDevice device;
  grace::device::DeviceModelMemory<TestDevice> memory;
  Buffer<TestDevice, Real> arena, block;
  RowGemm<Real> gemm;
  Chunk chunk;

  Setup(const Problem<Real>& p, std::uint64_t seed)
      : device(test_target::order(seed)), memory(device), arena(device, "rows"), block(device, "rows") {
    gemm.n_targets = static_cast<int>(p.targets.size());
    gemm.n_columns = p.c.n_columns;
    for (const GemmSource& source : p.sources) gemm.most_inputs = std::max(gemm.most_inputs, source.row.stride);
    gemm.targets = memory.keep(p.targets);
    gemm.sources = memory.keep(p.sources);
    gemm.weights = memory.keep(p.weights);
    gemm.element_stride = p.element_stride;
    chunk.n_atoms = p.n_atoms;
    chunk.n_tiles = static_cast<int>(p.tiles.size());
    chunk.tiles = memory.keep(p.tiles);
    arena.upload(p.place[0]);
    block.upload(p.place[1]);
  }

  // All numbers of both places afterwards.
  void read(const Problem<Real>& p, std::vector<Real> (&numbers)[2]) {
    numbers[0] = test_target::read<Real>(device, arena.data(), p.place[0].size());
    numbers[1] = test_target::read<Real>(device, block.data(), p.place[1].size());
  }
};

}  // namespace row_gemm_test
