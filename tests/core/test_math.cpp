// The formulas of csrc/grace/math and the SIMD kernels under them, in the portable instruction set of this unit:
// against the standard library, long double, finite differences and plain loops.
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "grace/evaluator_cpu/gemm.hpp"
#include "grace/evaluator_cpu/packing.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/density_norm.hpp"
#include "grace/math/radial.hpp"
#include "grace/math/spherical_harmonics.hpp"

namespace {

using namespace grace;

template <class Real>
constexpr double epsilon = std::numeric_limits<Real>::epsilon();

constexpr double kActivation = 4.0;  // units in the last place: polynomial, reduction, quotient
constexpr double kCentral = 1e-9;    // central difference of functions of order 1 to 100 with h = 1e-6
constexpr double kRounding = 1e-14;  // a few dozen operations on numbers of order one

// f(x) for every lane, with lanes filled with different numbers so that a lane mixed up is seen.
template <class Real, class Function>
std::vector<Real> by_packs(const std::vector<Real>& x, Function f) {
  using P = cpu::Pack<Real>;
  std::vector<Real> padded = x, out;
  while (padded.size() % P::width != 0) padded.push_back(Real(0));
  out.resize(padded.size());
  for (std::size_t i = 0; i < padded.size(); i += P::width) P::store(&out[i], f(P::load(&padded[i])));
  out.resize(x.size());
  return out;
}

template <class Real>
std::vector<Real> arguments(double largest) {
  std::vector<Real> x{0.0, -0.0, 1e-30, -1e-30, 0.0999999, 0.1, 0.1000001, -0.1};
  for (double size : {0.01, 0.3, 1.0, 5.0, 30.0, largest})
    for (int k = -50; k <= 50; ++k) x.push_back(static_cast<Real>(size * k / 50.0 * 0.999));
  return x;
}

template <class Real>
void check_exponential() {
  const std::vector<Real> x = arguments<Real>(sizeof(Real) == 8 ? 700.0 : 86.0);
  const std::vector<Real> y = by_packs(x, [](auto v) { return math::exponential<cpu::Pack<Real>>(v); });
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double exact = std::exp(static_cast<long double>(x[i]));
    CHECK(std::abs(static_cast<double>(y[i] / exact - 1.0L)) <= kActivation * epsilon<Real>);
  }
  // far outside: clamped, finite and positive
  const std::vector<Real> ends =
      by_packs<Real>({Real(-1e30), Real(1e30)}, [](auto v) { return math::exponential<cpu::Pack<Real>>(v); });
  CHECK(ends[0] >= 0 && ends[0] < Real(1e-30));
  CHECK(std::isfinite(ends[1]) && ends[1] > Real(1e30));
}

template <class Real>
void check_activations() {
  for (Real x : arguments<Real>(sizeof(Real) == 8 ? 700.0 : 80.0)) {
    using P = cpu::Pack<Real>;
    typename P::V value, slope;
    math::silu<P>(P::set(x), value, slope);
    const long double v = x, s = 1.0L / (1.0L + std::exp(-v));
    Real got[P::width];
    P::store(got, value);
    CHECK(std::abs(static_cast<double>(got[0] - v * s)) <=
          kActivation * epsilon<Real> * std::abs(static_cast<double>(v * s)) + 1e-37);
    P::store(got, slope);
    // 1 - s is rounded to a multiple of epsilon and multiplied with x
    const double allowed = (kActivation + std::abs(x)) * epsilon<Real>;
    CHECK(std::abs(static_cast<double>(got[0] - (s + v * s * (1.0L - s)))) <= allowed);

    math::tanh<P>(P::set(x), value, slope);
    const long double t = std::tanh(v);
    P::store(got, value);
    CHECK(std::abs(static_cast<double>(got[0] - t)) <=
          2 * kActivation * epsilon<Real> * std::abs(static_cast<double>(t)));
    P::store(got, slope);
    CHECK(std::abs(static_cast<double>(got[0] - (1.0L - t * t))) <= 2 * kActivation * epsilon<Real>);
  }
}

math::HarmonicsTable<double> harmonics_table(int lmax) {
  math::HarmonicsTable<double> table;
  table.lmax = lmax;
  table.p_mm[0] = 1.0;
  for (int m = 1; m <= lmax; ++m) table.p_mm[m] = table.p_mm[m - 1] * std::sqrt((2.0 * m + 1.0) / (2.0 * m));
  for (int m = 0; m <= lmax; ++m) table.first[m] = std::sqrt(2.0 * m + 3.0);
  for (int m = 0; m <= lmax; ++m)
    for (int l = m + 2; l <= lmax; ++l) {
      table.a[l][m] = std::sqrt((4.0 * l * l - 1.0) / (double(l) * l - double(m) * m));
      table.b[l][m] = std::sqrt(((l - 1.0) * (l - 1.0) - double(m) * m) / (4.0 * (l - 1.0) * (l - 1.0) - 1.0));
    }
  return table;
}

std::vector<std::array<double, 3>> directions() {
  std::vector<std::array<double, 3>> u;
  for (int axis = 0; axis < 3; ++axis)
    for (double sign : {1.0, -1.0}) {
      std::array<double, 3> v{0.0, 0.0, 0.0};
      v[axis] = sign;
      u.push_back(v);
    }
  u.push_back({1e-9, 0.0, 1.0});  // beside a pole
  u.push_back({0.0, -1e-9, -1.0});
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  for (int k = 0; k < 20; ++k) {
    std::array<double, 3> v{normal(random), normal(random), normal(random)};
    const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    for (double& x : v) x /= length;
    u.push_back(v);
  }
  return u;
}

constexpr int n_slots = (math::max_lmax + 1) * (math::max_lmax + 1);

}  // namespace

TEST(exponential_of_packs) {
  check_exponential<double>();
  check_exponential<float>();
}

TEST(silu_and_tanh_of_packs) {
  check_activations<double>();
  check_activations<float>();
}

TEST(nan_passes_through_activations) {
  using P = cpu::Pack<double>;
  P::V value, slope;
  double got[P::width];
  math::silu<P>(P::set(std::nan("")), value, slope);
  P::store(got, value);
  CHECK(std::isnan(got[0]));
  math::tanh<P>(P::set(std::nan("")), value, slope);
  P::store(got, value);
  CHECK(std::isnan(got[0]));
}

TEST(harmonics_are_orthonormal_polynomials_of_their_degree) {
  const auto table = harmonics_table(math::max_lmax);
  for (const auto& u : directions()) {
    double Y[n_slots], mirrored[n_slots], unused[1];
    math::spherical_harmonics<false>(table, u[0], u[1], u[2], Y, unused);
    math::spherical_harmonics<false>(table, -u[0], -u[1], -u[2], mirrored, unused);
    CHECK_NEAR(Y[0], 1.0, 0.0);
    CHECK_NEAR(Y[1], std::sqrt(3.0) * u[1], kRounding);
    CHECK_NEAR(Y[2], std::sqrt(3.0) * u[2], kRounding);
    CHECK_NEAR(Y[3], std::sqrt(3.0) * u[0], kRounding);
    CHECK_NEAR(Y[4], std::sqrt(15.0) * u[0] * u[1], kRounding);
    CHECK_NEAR(Y[8], std::sqrt(15.0) / 2.0 * (u[0] * u[0] - u[1] * u[1]), kRounding);
    for (int l = 0; l <= math::max_lmax; ++l) {
      double sum = 0.0;
      for (int k = l * l; k < (l + 1) * (l + 1); ++k) {
        sum += Y[k] * Y[k];
        CHECK_NEAR(mirrored[k], (l % 2 == 0 ? 1.0 : -1.0) * Y[k], 50 * kRounding);
      }
      CHECK_NEAR(sum, 2.0 * l + 1.0, 100 * kRounding);  // addition theorem
    }
  }
}

TEST(harmonics_gradient_is_the_derivative_also_at_poles_and_axes) {
  const auto table = harmonics_table(math::max_lmax);
  const double h = 1e-6;
  for (const auto& u : directions()) {
    double Y[n_slots], again[n_slots], gradient[3 * n_slots], plus[n_slots], minus[n_slots], unused[1];
    math::spherical_harmonics<true>(table, u[0], u[1], u[2], Y, gradient);
    math::spherical_harmonics<false>(table, u[0], u[1], u[2], again, unused);
    for (int k = 0; k < n_slots; ++k) CHECK_NEAR(again[k], Y[k], kRounding);
    for (int axis = 0; axis < 3; ++axis) {
      auto up = u, down = u;
      up[axis] += h;
      down[axis] -= h;
      math::spherical_harmonics<false>(table, up[0], up[1], up[2], plus, unused);
      math::spherical_harmonics<false>(table, down[0], down[1], down[2], minus, unused);
      for (int k = 0; k < n_slots; ++k)
        CHECK_NEAR(gradient[3 * k + axis], (plus[k] - minus[k]) / (2.0 * h), 10 * kCentral);
    }
  }
}

TEST(harmonics_of_packs_equal_scalars) {
  using P = cpu::Pack<double>;
  const auto table = harmonics_table(4);
  const auto u = directions();
  P::V Y[25], gradient[75];
  double x[P::width], y[P::width], z[P::width];
  for (int lane = 0; lane < P::width; ++lane) {
    x[lane] = u[10 + lane][0];
    y[lane] = u[10 + lane][1];
    z[lane] = u[10 + lane][2];
  }
  math::spherical_harmonics<true>(table, P::load(x), P::load(y), P::load(z), Y, gradient);
  for (int lane = 0; lane < P::width; ++lane) {
    double one[25], slope[75], lanes[P::width];
    math::spherical_harmonics<true>(table, x[lane], y[lane], z[lane], one, slope);
    for (int k = 0; k < 25; ++k) {
      P::store(lanes, Y[k]);
      CHECK_NEAR(lanes[lane], one[k], kRounding);
    }
    for (int k = 0; k < 75; ++k) {
      P::store(lanes, gradient[k]);
      CHECK_NEAR(lanes[lane], slope[k], 10 * kRounding);
    }
  }
}

TEST(envelope_does_not_cancel_near_the_cutoff) {
  for (int p : {1, 5, 6, 16}) {
    for (double x : {0.0, 0.01, 0.3, 0.7, 0.95, 0.999, 0.999999, 1.0 - 1e-9}) {
      double value, slope;
      math::envelope(x, p, 1.0, value, slope);
      // (1 - x)^3 times the sum, in long double with y exact
      const long double y = 1.0L - static_cast<long double>(x);
      long double sum = 0.0L, power = 1.0L;
      for (int k = 0; k < p; ++k, power *= x) sum += 0.5L * (k + 1) * (k + 2) * power;
      const long double exact = y * y * y * sum;
      const long double exact_slope =
          -0.5L * p * (p + 1) * (p + 2) * std::pow(static_cast<long double>(x), p - 1) * y * y;
      CHECK_NEAR(static_cast<double>(value / exact), 1.0, kRounding);
      CHECK(std::abs(static_cast<double>(slope - exact_slope)) <=
            kRounding * std::abs(static_cast<double>(exact_slope)));
      if (x > 0.3) continue;  // where the published form does not cancel, it is the same function
      const long double q = p, published = 1.0L - (q + 1) * (q + 2) / 2 * std::pow((long double)x, q) +
                                           q * (q + 2) * std::pow((long double)x, q + 1) -
                                           q * (q + 1) / 2 * std::pow((long double)x, q + 2);
      CHECK_NEAR(value, static_cast<double>(published), kRounding);
    }
    double value, slope;
    math::envelope(1.0, p, 1.0, value, slope);
    CHECK_NEAR(value, 0.0, 0.0);
    CHECK_NEAR(slope, 0.0, 0.0);
  }
}

TEST(chebyshev_basis_and_its_slope) {
  constexpr int n = 9;
  const double h = 1e-6;
  for (int p : {5, 6})
    for (double x : {0.02, 0.25, 0.5, 0.77, 0.99}) {
      double g[n], dg[n], plus[n], minus[n], unused[n], f, df;
      math::chebyshev_basis(x, n, p, 1.0, g, dg);
      math::chebyshev_basis(x + h, n, p, 1.0, plus, unused);
      math::chebyshev_basis(x - h, n, p, 1.0, minus, unused);
      math::envelope(x, p, 1.0, f, df);
      for (int k = 0; k < n; ++k) {
        CHECK_NEAR(g[k], std::cos((k + 1) * std::acos(2.0 * x - 1.0)) * f, 10 * kRounding);
        CHECK_NEAR(dg[k], (plus[k] - minus[k]) / (2.0 * h), 30 * kCentral);
      }
    }
}

TEST(density_norm_adjoint_is_the_derivative) {
  constexpr int n = 5;
  const double h = 1e-6;
  for (double size : {1.0, 1e-4}) {  // the second: the regulariser is as large as the mean square
    double x[n], scale[n], gy[n], gx[n], y[n];
    std::mt19937 random(3);
    std::normal_distribution<double> normal;
    for (int k = 0; k < n; ++k) {
      x[k] = 0.1 * size * normal(random);
      scale[k] = normal(random);
      gy[k] = normal(random);
    }
    math::rms_norm_adjoint(n, x, scale, gy, gx);
    for (int k = 0; k < n; ++k) {
      double difference = 0.0;
      for (double sign : {1.0, -1.0}) {
        double moved[n];
        for (int j = 0; j < n; ++j) moved[j] = x[j] + (j == k ? sign * h * size : 0.0);
        math::rms_norm(n, moved, scale, y);
        for (int j = 0; j < n; ++j) difference += sign * gy[j] * y[j];
      }
      CHECK_NEAR(gx[k] * size, difference / (2.0 * h), 20 * kCentral);
    }
    double in_place[n];
    for (int k = 0; k < n; ++k) in_place[k] = gy[k];
    math::rms_norm_adjoint(n, x, scale, in_place, in_place);  // documented: gx may be gy
    for (int k = 0; k < n; ++k) CHECK_NEAR(in_place[k], gx[k], 0.0);
  }
}

namespace {

template <class Real>
void check_gemm() {
  const int unit = cpu::row_bytes / static_cast<int>(sizeof(Real));
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  for (int units = 1; units <= 9; ++units)  // every way of dividing columns into panels
    for (int M = 1; M <= 25; ++M)
      for (int K : {1, 3, 12}) {
        const int N = units * unit, lda = K + 3, ldc = N + unit;
        std::vector<Real> A(M * lda), B(K * N), packed(K * N), C(M * ldc), before;
        for (auto* matrix : {&A, &B, &C})
          for (Real& v : *matrix) v = static_cast<Real>(uniform(random));
        cpu::pack_matrix<Real>(K, N, [&](int k, int n) { return B[k * N + n]; }, packed.data());
        for (bool accumulate : {false, true}) {
          before = C;
          cpu::gemm<Real>(M, N, K, A.data(), lda, packed.data(), C.data(), ldc, accumulate);
          double worst = 0.0;
          bool outside_untouched = true;
          for (int m = 0; m < M; ++m)
            for (int n = 0; n < ldc; ++n) {
              if (n >= N) {
                outside_untouched = outside_untouched && C[m * ldc + n] == before[m * ldc + n];
                continue;
              }
              double sum = accumulate ? before[m * ldc + n] : 0.0;
              for (int k = 0; k < K; ++k) sum += static_cast<double>(A[m * lda + k]) * B[k * N + n];
              const double error = std::abs(C[m * ldc + n] - sum);
              if (!(error <= worst)) worst = error;
            }
          CHECK(outside_untouched);
          CHECK_NEAR(worst, 0.0, 2.0 * (K + 1) * epsilon<Real>);
        }
      }
}

}  // namespace

TEST(small_matrix_products) {
  check_gemm<double>();
  check_gemm<float>();
}
