#include "grace/plan/radial_table.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>
#include <utility>

#include "grace/error.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/radial.hpp"
#include "grace/math/scalar_pack.hpp"

namespace grace::plan {
namespace {

constexpr int first_inner = 16, first_outer = 24, max_intervals = 4096;
constexpr int n_check_points = 1024;  // in each of the two zones

template <class Real>
struct TableChoice;
// Tolerances are relative to the largest value and slope of a function. In double, degree 11 reaches 1e-11 with outer
// intervals wide enough that their matrices fit the L2 cache; float cannot resolve better than its own rounding.
template <>
struct TableChoice<double> {
  static constexpr int degree = 11;
  static constexpr double value_tolerance = 1e-11, derivative_tolerance = 1e-9;
};
template <>
struct TableChoice<float> {
  static constexpr int degree = 7;
  static constexpr double value_tolerance = 5e-7, derivative_tolerance = 1e-5;
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

// R / (1 - x)^3 at x = 1, where the network acts on vanishing input: every activation by its slope at zero.
void rim_ratio(const RadialNetwork& network, double* ratio) {
  const double p = network.envelope_order;
  const double activation_slope = network.activation == Activation::tanh ? 1.0 : 0.5;
  std::vector<double> h(network.n_basis, p * (p + 1) * (p + 2) / 6.0), next;  // T_k(1) = 1
  for (std::size_t layer = 0; layer < network.layers.size(); ++layer) {
    const DenseLayer& dense = network.layers[layer];
    next.assign(dense.n_out, 0.0);
    for (int i = 0; i < dense.n_in; ++i)
      for (int o = 0; o < dense.n_out; ++o)
        next[o] += h[i] * dense.weights[static_cast<std::size_t>(i) * dense.n_out + o];
    if (layer + 1 < network.layers.size())
      for (double& value : next) value *= activation_slope;
    std::swap(h, next);
  }
  for (int n = 0; n < network.n_channels; ++n)
    for (int l = 0; l <= network.lmax; ++l) ratio[l * network.n_channels + n] = h[n * (network.lmax + 1) + l];
}

template <class Real>
void fill_table(const RadialNetwork& network, int stride, const TableIntervals& intervals, int degree,
                std::vector<Real>& coefficients) {
  const int n_intervals = intervals.inner + intervals.outer;
  const int n_functions = (network.lmax + 1) * network.n_channels;
  const int width = (network.lmax + 1) * stride;
  const double pi = 3.14159265358979323846;
  const auto monomial = chebyshev_monomials(degree);
  std::vector<std::vector<double>> sample(degree + 1, std::vector<double>(n_functions));
  std::vector<double> slope(n_functions), chebyshev(degree + 1);
  // discrete cosine transform at the Lobatto points: chebyshev[j] = sum_s transform[j][s] sample[s]
  std::vector<std::vector<double>> transform(degree + 1, std::vector<double>(degree + 1));
  for (int j = 0; j <= degree; ++j)
    for (int s = 0; s <= degree; ++s) {
      const double ends = ((j == 0 || j == degree) ? 0.5 : 1.0) * ((s == 0 || s == degree) ? 0.5 : 1.0);
      transform[j][s] = ends * 2.0 / degree * std::cos(pi * j * s / degree);
    }
  coefficients.assign(static_cast<std::size_t>(n_intervals) * (degree + 1) * width, Real(0));
  for (int k = 0; k < n_intervals; ++k) {
    const bool near_zero = k < intervals.inner;
    const double width_of_interval =
        near_zero ? TableIntervals::split / intervals.inner : (1.0 - TableIntervals::split) / intervals.outer;
    const double left =
        near_zero ? k * width_of_interval : TableIntervals::split + (k - intervals.inner) * width_of_interval;
    for (int s = 0; s <= degree; ++s) {
      const double t = std::cos(pi * s / degree);
      const double x = left + 0.5 * (1.0 + t) * width_of_interval;
      if (k == n_intervals - 1 && s == 0) {
        rim_ratio(network, sample[s].data());
        continue;
      }
      evaluate_radial(network, x, sample[s].data(), slope.data());
      for (double& value : sample[s]) value /= (1.0 - x) * (1.0 - x) * (1.0 - x);
    }
    Real* block = coefficients.data() + static_cast<std::size_t>(k) * (degree + 1) * width;
    for (int f = 0; f < n_functions; ++f) {
      for (int j = 0; j <= degree; ++j) {
        chebyshev[j] = 0.0;
        for (int s = 0; s <= degree; ++s) chebyshev[j] += transform[j][s] * sample[s][f];
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

// Exact values and slopes at the check points, computed once: [point][function].
struct CheckPoints {
  std::vector<double> x, value, slope, value_max, slope_max;
};

CheckPoints check_points(const RadialNetwork& network) {
  const std::size_t n_functions = static_cast<std::size_t>(network.lmax + 1) * network.n_channels;
  CheckPoints points;
  points.value.resize(2 * n_check_points * n_functions);
  points.slope.resize(2 * n_check_points * n_functions);
  points.value_max.assign(n_functions, 0.0);
  points.slope_max.assign(n_functions, 0.0);
  for (int p = 0; p < 2 * n_check_points; ++p) {
    // golden-ratio sequence: evenly spread, never on the knots
    const double u = std::fmod(0.5 + p * 0.61803398874989484820, 1.0);
    const double x = p % 2 == 0 ? TableIntervals::split * u : TableIntervals::split + (1.0 - TableIntervals::split) * u;
    points.x.push_back(x);
    double *value = points.value.data() + p * n_functions, *slope = points.slope.data() + p * n_functions;
    evaluate_radial(network, x, value, slope);
    for (std::size_t f = 0; f < n_functions; ++f) {
      points.value_max[f] = std::max(points.value_max[f], std::fabs(value[f]));
      points.slope_max[f] = std::max(points.slope_max[f], std::fabs(slope[f]));
    }
  }
  return points;
}

// Largest relative errors of the table in its inner and outer zone.
template <class Real>
std::array<RadialTableReport, 2> check_table(const RadialNetwork& network, int stride, const RadialTable<Real>& table,
                                             const CheckPoints& points) {
  const std::size_t n_functions = static_cast<std::size_t>(network.lmax + 1) * network.n_channels;
  const std::size_t width = static_cast<std::size_t>(network.lmax + 1) * stride;
  const int degree = table.n_coefficients - 1;
  std::array<RadialTableReport, 2> reports;
  for (std::size_t p = 0; p < points.x.size(); ++p) {
    RadialTableReport& report = reports[points.x[p] < TableIntervals::split ? 0 : 1];
    int k;
    double rate, start;
    table.intervals.locate(points.x[p], k, rate, start);
    const Real t = static_cast<Real>(rate * points.x[p] + start);
    const Real* block = table.coefficients.data() + k * (degree + 1) * width;
    for (std::size_t f = 0; f < n_functions; ++f) {
      const std::size_t column = (f / network.n_channels) * stride + f % network.n_channels;
      Real sum = 0, derivative = 0;
      for (int d = degree; d >= 0; --d) {
        derivative = derivative * t + sum;
        sum = sum * t + block[d * width + column];
      }
      const double y = 1.0 - points.x[p];
      const double value_error = std::fabs(y * y * y * static_cast<double>(sum) - points.value[p * n_functions + f]);
      const double slope_error =
          std::fabs(y * y * (y * static_cast<double>(derivative) * rate - 3.0 * static_cast<double>(sum)) -
                    points.slope[p * n_functions + f]);
      if (points.value_max[f] > 0) report.value_error = std::max(report.value_error, value_error / points.value_max[f]);
      if (points.slope_max[f] > 0)
        report.derivative_error = std::max(report.derivative_error, slope_error / points.slope_max[f]);
    }
  }
  return reports;
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
          math::tanh<math::ScalarPack<double>>(next[o], y, dy);
        else
          math::silu<math::ScalarPack<double>>(next[o], y, dy);
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
  const CheckPoints points = check_points(network);
  RadialTable<Real> table;
  table.n_coefficients = Choice::degree + 1;
  table.intervals = {first_inner, first_outer};
  auto good = [](const RadialTableReport& r) {
    return r.value_error <= Choice::value_tolerance && r.derivative_error <= Choice::derivative_tolerance;
  };
  while (true) {
    fill_table(network, stride, table.intervals, Choice::degree, table.coefficients);
    const std::array<RadialTableReport, 2> zone = check_table(network, stride, table, points);
    table.report = {table.intervals.inner + table.intervals.outer, Choice::degree,
                    std::max(zone[0].value_error, zone[1].value_error),
                    std::max(zone[0].derivative_error, zone[1].derivative_error)};
    if (good(zone[0]) && good(zone[1])) return table;
    if (!good(zone[0])) table.intervals.inner *= 2;
    if (!good(zone[1])) table.intervals.outer *= 2;
    if (table.intervals.inner + table.intervals.outer > max_intervals) break;
  }
  std::ostringstream message;
  message << "the radial network `" << network.name << "` cannot be tabulated: relative error "
          << table.report.value_error << " (slope " << table.report.derivative_error << ") with "
          << table.report.n_intervals << " intervals; use radial=exact";
  throw Error(message.str());
}

template RadialTable<double> make_radial_table<double>(const RadialNetwork&, int);
template RadialTable<float> make_radial_table<float>(const RadialNetwork&, int);

}  // namespace grace::plan
