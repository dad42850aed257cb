// Radial networks at load time: exact values in double, and the piecewise-polynomial tables made from them.
#pragma once

#include <vector>

#include "grace/evaluator.hpp"
#include "grace/model/spec.hpp"
#include "grace/plan/layout_types.hpp"

namespace grace::plan {

// R[l * n_channels + n] and dR/dx of the network at x = d / rc, by forward-mode differentiation.
void evaluate_radial(const RadialNetwork& network, double x, double* value, double* derivative);

// On interval k: R = (1 - x)^3 sum_d coefficients[k][d][l][stride] t^d with t in [-1, 1]. The polynomials interpolate
// R / (1 - x)^3 at Chebyshev-Lobatto points, so that neighbouring intervals meet. Every R has that triple zero of the
// envelope; with it taken out, R keeps its relative accuracy up to the cutoff, which two-layer models need: their norm
// magnifies densities of 1e-9 to order one.
template <class Real>
struct RadialTable {
  TableIntervals intervals;
  int n_coefficients = 0;
  std::vector<Real> coefficients;
  RadialTableReport report;
};

// Doubles the number of inner and outer intervals until the error measured between the knots is below the tolerance of
// `Real`. Throws Error when 4096 intervals are not enough (the report says how far it got).
template <class Real>
RadialTable<Real> make_radial_table(const RadialNetwork& network, int stride);

}  // namespace grace::plan
