// Radial functions of a bond inside device kernels: from the table, or from the arrays of the exact network.
#pragma once

#include "grace/evaluator_cuda/bonds.hpp"

namespace grace::gpu {

// What kernels need of RadialPlan and Bonds, in few parameters.
template <class Real>
struct RadialFunctions {
  const Real* coefficients = nullptr;  // nullptr: exact
  const std::int32_t* interval = nullptr;
  const Real* table_t = nullptr;
  const Real* table_y = nullptr;
  const Real* exact_value = nullptr;
  const Real* exact_slope = nullptr;
  int lmax = 0;
  int stride = 0;
  int width = 0;
  int n_coefficients = 0;
  int inner = 0;  // intervals below it have the first rate dt/dx, the others the second
  Real inner_rate = 0;
  Real outer_rate = 0;

  // Where the coefficients of function (l, channel) on the bond's interval start; they are `stride` apart.
  GRACE_DEVICE const Real* series(std::int64_t slot, int l, int channel) const {
    return series_of(interval[slot], l, channel);
  }
  GRACE_DEVICE const Real* series_of(std::int32_t k, int l, int channel) const {
    return coefficients + static_cast<std::int64_t>(k) * n_coefficients * width + l * n_coefficients * stride + channel;
  }

  // R_l,channel of the bond in a slot: y^3 sum_d c_d t^d.
  GRACE_DEVICE Real value(std::int64_t slot, int l, int channel) const {
    if (coefficients == nullptr) return exact_value[slot * width + l * stride + channel];
    const Real* c = series(slot, l, channel);
    const Real t = table_t[slot], y = table_y[slot];
    Real sum = c[(n_coefficients - 1) * stride];
    for (int d = n_coefficients - 2; d >= 0; --d) sum = sum * t + c[d * stride];
    return sum * (y * y * y);
  }

  // R and dR/dx = y^3 dt/dx sum_d d c_d t^(d-1) - 3 y^2 sum_d c_d t^d.
  GRACE_DEVICE void value_and_slope(std::int64_t slot, int l, int channel, Real& value, Real& slope) const {
    if (coefficients == nullptr) {
      const std::int64_t at = slot * width + l * stride + channel;
      value = exact_value[at];
      slope = exact_slope[at];
      return;
    }
    const Real* c = series(slot, l, channel);
    const Real t = table_t[slot], y = table_y[slot];
    Real sum = c[(n_coefficients - 1) * stride], derivative = Real(0);
    for (int d = n_coefficients - 2; d >= 0; --d) {
      derivative = derivative * t + sum;
      sum = sum * t + c[d * stride];
    }
    value_and_slope_of(interval[slot], y, sum, derivative, value, slope);
  }

  // The same from the sum_d and its derivative.
  GRACE_DEVICE void value_and_slope_of(std::int32_t k, Real y, Real sum, Real derivative, Real& value,
                                       Real& slope) const {
    const Real rate = k < inner ? inner_rate : outer_rate;
    value = sum * (y * y * y);
    slope = y * y * (y * rate * derivative - Real(3) * sum);
  }
};

template <class Real>
RadialFunctions<Real> radial_functions(const RadialPlan<Real>& plan, const Bonds<Real>& bonds) {
  RadialFunctions<Real> f;
  f.coefficients = plan.n_intervals > 0 ? plan.coefficients : nullptr;
  f.interval = bonds.interval;
  f.table_t = bonds.table_t;
  f.table_y = bonds.table_y;
  f.exact_value = bonds.radial;
  f.exact_slope = bonds.radial_slope;
  f.lmax = plan.lmax;
  f.stride = plan.stride;
  f.width = plan.width;
  f.n_coefficients = plan.n_coefficients;
  f.inner = plan.intervals.inner;
  f.inner_rate = static_cast<Real>(2.0 * plan.intervals.inner / plan::TableIntervals::split);
  f.outer_rate = static_cast<Real>(2.0 * plan.intervals.outer / (1.0 - plan::TableIntervals::split));
  return f;
}

// Adds to the bond's dE/dr = dE/dd u + (f - (f u) u) / d, from dE/dx (x = d / rc) and f = dE/du.
template <class Real>
GRACE_DEVICE void add_bond_gradient(const Bonds<Real>& bonds, std::int64_t slot, double slope, double fx, double fy,
                                    double fz) {
  const std::int64_t c = bonds.capacity;
  const double inverse = 1.0 / bonds.distance[slot];
  const double ux = bonds.vector[slot] * inverse, uy = bonds.vector[c + slot] * inverse,
               uz = bonds.vector[2 * c + slot] * inverse;
  const double radial = slope * bonds.inverse_cutoff[slot] - (fx * ux + fy * uy + fz * uz) * inverse;
  bonds.gradient[slot] += fx * inverse + radial * ux;
  bonds.gradient[c + slot] += fy * inverse + radial * uy;
  bonds.gradient[2 * c + slot] += fz * inverse + radial * uz;
}

}  // namespace grace::gpu
