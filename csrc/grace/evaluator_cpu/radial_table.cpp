#include "grace/evaluator_cpu/radial_table.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "grace/error.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/radial.hpp"

namespace grace::cpu {
namespace {

// The scalar counterpart of cpu::Pack, for the activations of math/dense.hpp.
struct ScalarPack {
  using Real = double;
  using V = double;
  static double set(double x) { return x; }
  static double round(double x) { return std::nearbyint(x); }
  static double ldexp(double p, double k) { return std::ldexp(p, static_cast<int>(k)); }
  static double clamp(double x, double lo, double hi) { return x < lo ? lo : (x > hi ? hi : x); }
  static double abs(double x) { return std::fabs(x); }
  static double copysign(double magnitude, double sign) { return std::copysign(magnitude, sign); }
  static double select_less(double x, double bound, double yes, double no) { return x < bound ? yes : no; }
};

constexpr int max_intervals = 4096;
constexpr int n_check_points = 2048;

template <class Real>
struct TableChoice;
// Degree and tolerances: with degree 9 and 64 intervals a trained network is met to 1e-12; float cannot resolve better
// than its own rounding, which degree 6 reaches with a third of the arithmetic.
template <>
struct TableChoice<double> {
  static constexpr int degree = 9, first_intervals = 64;
  static constexpr double value_tolerance = 1e-11, derivative_tolerance = 1e-8;
};
template <>
struct TableChoice<float> {
  static constexpr int degree = 6, first_intervals = 64;
  static constexpr double value_tolerance = 2e-6, derivative_tolerance = 2e-5;
};

// Monomial coefficients of the Chebyshev polynomials, T_j = sum_d monomial[j][d] t^d.
std::vector<std::vector<double>> chebyshev_monomials(int degree) {
  std::vector<std::vector<double>> T(degree + 1, std::vector<double>(degree + 1, 0.0));
  T[0][0] = 1.0;
  if (degree > 0) T[1][1] = 1.0;
  for (int j = 2; j <= degree; ++j)
    for (int d = 0; d <= degree; ++d) T[j][d] = (d > 0 ? 2.0 * T[j - 1][d - 1] : 0.0) - T[j - 2][d];
  return T;
}

template <class Real>
void fill_table(const RadialNetwork& network, int stride, int n_intervals, int degree, std::vector<Real>& coefficients) {
  const int n_functions = (network.lmax + 1) * network.n_channels;
  const int width = (network.lmax + 1) * stride;
  const double pi = 3.14159265358979323846;
  const auto monomial = chebyshev_monomials(degree);
  std::vector<std::vector<double>> sample(degree + 1, std::vector<double>(n_functions));
  std::vector<double> slope(n_functions), chebyshev(degree + 1);
  coefficients.assign(static_cast<std::size_t>(n_intervals) * (degree + 1) * width, Real(0));
  for (int k = 0; k < n_intervals; ++k) {
    for (int s = 0; s <= degree; ++s) {
      const double t = std::cos(pi * s / degree);
      evaluate_radial(network, (k + 0.5 * (1.0 + t)) / n_intervals, sample[s].data(), slope.data());
    }
    Real* block = coefficients.data() + static_cast<std::size_t>(k) * (degree + 1) * width;
    for (int f = 0; f < n_functions; ++f) {
      for (int j = 0; j <= degree; ++j) {
        double sum = 0.0;
        for (int s = 0; s <= degree; ++s) {
          const double weight = (s == 0 || s == degree) ? 0.5 : 1.0;
          sum += weight * sample[s][f] * std::cos(pi * j * s / degree);
        }
        chebyshev[j] = sum * 2.0 / degree * ((j == 0 || j == degree) ? 0.5 : 1.0);
      }
      const int column = (f / network.n_channels) * stride + f % network.n_channels;
      for (int d = 0; d <= degree; ++d) {
        double c = 0.0;
        for (int j = d; j <= degree; ++j) c += chebyshev[j] * monomial[j][d];
        block[static_cast<std::size_t>(d) * width + column] = static_cast<Real>(c);
      }
    }
  }
}

template <class Real>
RadialTableReport check_table(const RadialNetwork& network, int stride, int n_intervals, int degree, const std::vector<Real>& coefficients) {
  const int n_functions = (network.lmax + 1) * network.n_channels;
  const int width = (network.lmax + 1) * stride;
  std::vector<double> value(n_functions), slope(n_functions);
  std::vector<double> value_max(n_functions), slope_max(n_functions), value_error(n_functions), slope_error(n_functions);
  for (int p = 0; p < n_check_points; ++p) {
    // golden-ratio sequence: evenly spread, never on the knots
    const double x = std::fmod(0.5 + p * 0.61803398874989484820, 1.0);
    evaluate_radial(network, x, value.data(), slope.data());
    const int k = std::min(static_cast<int>(x * n_intervals), n_intervals - 1);
    const Real t = static_cast<Real>(2.0 * (x * n_intervals - k) - 1.0);
    const Real* block = coefficients.data() + static_cast<std::size_t>(k) * (degree + 1) * width;
    for (int f = 0; f < n_functions; ++f) {
      const int column = (f / network.n_channels) * stride + f % network.n_channels;
      Real sum = 0, derivative = 0;
      for (int d = degree; d >= 0; --d) {
        derivative = derivative * t + sum;
        sum = sum * t + block[static_cast<std::size_t>(d) * width + column];
      }
      value_max[f] = std::max(value_max[f], std::fabs(value[f]));
      slope_max[f] = std::max(slope_max[f], std::fabs(slope[f]));
      value_error[f] = std::max(value_error[f], std::fabs(static_cast<double>(sum) - value[f]));
      slope_error[f] = std::max(slope_error[f], std::fabs(static_cast<double>(derivative) * 2 * n_intervals - slope[f]));
    }
  }
  RadialTableReport report{n_intervals, degree, 0.0, 0.0};
  for (int f = 0; f < n_functions; ++f) {
    if (value_max[f] > 0) report.value_error = std::max(report.value_error, value_error[f] / value_max[f]);
    if (slope_max[f] > 0) report.derivative_error = std::max(report.derivative_error, slope_error[f] / slope_max[f]);
  }
  return report;
}

}  // namespace

void evaluate_radial(const RadialNetwork& network, double x, double* value, double* derivative) {
  std::vector<double> h(network.n_basis), dh(network.n_basis), next, dnext;
  math::chebyshev_basis(x, network.n_basis, network.envelope_order, 1.0, h.data(), dh.data());
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
    const DenseLayer& dense = network.layers[layer];
    next.assign(dense.n_out, 0.0);
    dnext.assign(dense.n_out, 0.0);
    for (int i = 0; i < dense.n_in; ++i)
      for (int o = 0; o < dense.n_out; ++o) {
        next[o] += h[i] * dense.weights[static_cast<std::size_t>(i) * dense.n_out + o];
        dnext[o] += dh[i] * dense.weights[static_cast<std::size_t>(i) * dense.n_out + o];
      }
    if (layer + 1 < network.layers.size())
      for (int o = 0; o < dense.n_out; ++o) {
        double y, dy;
        if (network.activation == Activation::tanh)
          math::tanh<ScalarPack>(next[o], y, dy);
        else
          math::silu<ScalarPack>(next[o], y, dy);
        next[o] = y;
        dnext[o] *= dy;
      }
    std::swap(h, next);
    std::swap(dh, dnext);
  }
  for (int n = 0; n < network.n_channels; ++n)
    for (int l = 0; l <= network.lmax; ++l) {
      value[l * network.n_channels + n] = h[n * (network.lmax + 1) + l];
      derivative[l * network.n_channels + n] = dh[n * (network.lmax + 1) + l];
    }
}

template <class Real>
RadialTable<Real> make_radial_table(const RadialNetwork& network, int stride) {
  using Choice = TableChoice<Real>;
  RadialTable<Real> table;
  table.n_coefficients = Choice::degree + 1;
  for (int n = Choice::first_intervals; n <= max_intervals; n *= 2) {
    fill_table(network, stride, n, Choice::degree, table.coefficients);
    table.report = check_table(network, stride, n, Choice::degree, table.coefficients);
    if (table.report.value_error <= Choice::value_tolerance && table.report.derivative_error <= Choice::derivative_tolerance) return table;
  }
  throw Error("the radial network `" + network.name + "` cannot be tabulated: relative error " +
              std::to_string(table.report.value_error) + " with 4096 intervals; use radial=exact");
}

template RadialTable<double> make_radial_table<double>(const RadialNetwork&, int);
template RadialTable<float> make_radial_table<float>(const RadialNetwork&, int);

}  // namespace grace::cpu
