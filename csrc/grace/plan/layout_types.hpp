// Plain data that the plans of all evaluators share.
#pragma once

#include <cstddef>

#include "grace/macros.hpp"

namespace grace::plan {

// A stored tensor of a group of atoms (a tile on the CPU, a chunk on the GPU), [row][atom][channel]. `offset` counts
// numbers per atom in the group's arena; `stride` is the padded channel count.
struct Slot {
  int n_rows = 0;
  int n_channels = 0;
  int stride = 0;
  std::size_t offset = 0;
};

// Intervals of the radial tables: `inner` equal ones on [0, split), `outer` on [split, 1]. Chebyshev functions of 2x -
// 1 are steep near x = 0, where few bonds are; the outer intervals can be wide, so that a tile has several bonds in
// each.
struct TableIntervals {
  static constexpr double split = 0.25;
  int inner = 0;
  int outer = 0;

  // Interval of x in [0, 1), and the rates of t = rate * x + start on it.
  GRACE_HD GRACE_FORCEINLINE void locate(double x, int& interval, double& rate, double& start) const {
    const bool near_zero = x < split;
    const double per_unit = near_zero ? inner / split : outer / (1.0 - split);
    const double scaled = near_zero ? x * per_unit : (x - split) * per_unit;
    int k = static_cast<int>(scaled);
    const int last = (near_zero ? inner : outer) - 1;
    if (k > last) k = last;
    interval = near_zero ? k : inner + k;
    rate = 2.0 * per_unit;
    start = -2.0 * (near_zero ? 0.0 : split * per_unit) - 2.0 * k - 1.0;
  }
};

}  // namespace grace::plan
