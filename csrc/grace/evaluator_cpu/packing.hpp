// Packs row-major matrices into the panels that the small-matrix kernel reads (panel_units in plan.hpp).
#pragma once

#include <cstddef>

#include "grace/evaluator_cpu/plan.hpp"

namespace grace::cpu {

template <class Real>
constexpr int padded_channels(int n) {
  constexpr int unit = row_bytes / static_cast<int>(sizeof(Real));
  return (n + unit - 1) / unit * unit;
}

// packed[K * N] from value(k, n), N a multiple of the unit.
template <class Real, class Value>
void pack_matrix(int K, int N, Value value, Real* packed) {
  constexpr int unit = row_bytes / static_cast<int>(sizeof(Real));
  for (int left = N / unit, begin = 0; left > 0;) {
    const int panel = panel_units(left) * unit;
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < panel; ++n) *packed++ = static_cast<Real>(value(k, begin + n));
    begin += panel;
    left -= panel_units(left);
  }
}

}  // namespace grace::cpu
