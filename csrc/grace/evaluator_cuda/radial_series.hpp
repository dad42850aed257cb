// Polynomial of one radial function on one interval of the table, kept by a thread while its bonds are in the interval.
#pragma once

#include "grace/evaluator_cuda/radial_functions.hpp"

namespace grace::gpu {

// Coefficients of the tables that plan/radial_table.hpp makes. Others are read from memory for every bond.
template <class Real>
constexpr int usual_coefficients = sizeof(Real) == 4 ? 8 : 12;

// channels: neighbouring channels of a thread. K: coefficients, in registers; 0: any number, in memory.
template <class Real, int K, int channels>
struct RadialSeries {
  struct alignas(channels * sizeof(Real)) Group {
    Real of[channels];
  };

  Group c[K > 0 ? K : 1];
  const Real* memory;
  int stride, n;

  // from: RadialFunctions::series
  GRACE_DEVICE void load(const Real* from, int of_stride, int n_coefficients) {
    if constexpr (K > 0) {
      for (int d = 0; d < K; ++d) c[d] = *reinterpret_cast<const Group*>(from + d * of_stride);
    } else {
      memory = from;
      stride = of_stride;
      n = n_coefficients;
    }
  }

  // sum_d c_d t^d and its derivative
  template <bool Derivative>
  GRACE_DEVICE void evaluate(Real t, Real* sum, Real* derivative) const {
    for (int i = 0; i < channels; ++i) sum[i] = Real(0);
    if constexpr (Derivative)
      for (int i = 0; i < channels; ++i) derivative[i] = Real(0);
    if constexpr (K > 0) {
      for (int d = K - 1; d >= 0; --d) step<Derivative>(c[d], t, sum, derivative);
    } else {
      for (int d = n - 1; d >= 0; --d)
        step<Derivative>(*reinterpret_cast<const Group*>(memory + d * stride), t, sum, derivative);
    }
  }

 private:
  template <bool Derivative>
  GRACE_DEVICE static void step(const Group& coefficient, Real t, Real* sum, Real* derivative) {
    for (int i = 0; i < channels; ++i) {
      if constexpr (Derivative) derivative[i] = derivative[i] * t + sum[i];
      sum[i] = sum[i] * t + coefficient.of[i];
    }
  }
};

// A bond of a batch, as the threads that evaluate its radial functions read it.
template <class Real>
struct alignas(16) StagedBond {
  std::int32_t interval;
  std::int32_t species;
  std::int32_t place;  // in the batch, in the order of the row
  std::int32_t used;   // 0: there is no bond
  Real t, y;
};

// Place of a bond in its batch of n bonds from slot `begin` when they are ordered by interval: bonds that follow each
// other share coefficients.
GRACE_DEVICE int place_by_interval(const std::int32_t* interval, std::int64_t begin, int bond, int n) {
  const std::int32_t own = interval[begin + bond];
  int before = 0;
  for (int b = 0; b < n; ++b) {
    const std::int32_t other = interval[begin + b];
    if (other < own || (other == own && b < bond)) ++before;
  }
  return before;
}

}  // namespace grace::gpu
