// Bonds, single-particle basis and forces on the device, against plain loops over the neighbour rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "basis_problem.hpp"
#include "check.hpp"

using namespace basis_test;

namespace {

// Relative to the largest number of a tensor; NaN is expected where nothing is written, and compared nowhere.
template <class Real>
void compare(const std::vector<Real>& got, const std::vector<double>& expected, double tolerance, const char* what) {
  double largest = 0.0, worst = 0.0;
  for (double v : expected)
    if (std::fabs(v) > largest) largest = std::fabs(v);
  bool good = got.size() == expected.size();
  for (std::size_t i = 0; i < got.size() && i < expected.size(); ++i) {
    if (std::isnan(expected[i])) continue;
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= tolerance * largest)) good = false;
    if (!(error <= worst)) worst = error;
  }
  if (!good)
    check::report(__FILE__, __LINE__,
                  std::string(what) + " differ: " + std::to_string(worst) + " of " + std::to_string(largest));
}

template <class Real>
void check_bonds(const Problem<Real>& p, Setup<Real>& s) {
  const Bonds<Real> bonds = s.storage.bonds();
  const std::int64_t c = bonds.capacity;
  const double rounding = sizeof(Real) == 8 ? 1e-14 : 1e-6;
  const auto count = s.read(bonds.count, p.centers.size());
  const auto neighbor = s.read(bonds.neighbor, c), species = s.read(bonds.species, c);
  const auto interval = s.read(bonds.interval, c);
  const auto vector = s.read(bonds.vector, 3 * c), distance = s.read(bonds.distance, c);
  const auto inverse = s.read(bonds.inverse_cutoff, c), gradient = s.read(bonds.gradient, 3 * c);
  const auto direction = s.read(bonds.direction, 3 * c), t = s.read(bonds.table_t, c), y = s.read(bonds.table_y, c);
  double closest = 1e300, reported = 1e300;
  const StepFlags flags = s.read(s.flags.data(), 1)[0];
  const std::int64_t reported_entry = static_cast<std::int64_t>(flags.closest & 0xffffffffu);
  for (std::size_t a = 0; a < p.centers.size(); ++a) {
    const std::vector<Bond> list = p.bonds_of(p.centers[a]);
    CHECK(count[a] == static_cast<int>(list.size()));
    if (count[a] != static_cast<int>(list.size())) return;
    for (std::size_t b = 0; b < list.size(); ++b) {
      const Bond& bond = list[b];
      const std::size_t at = p.slot[a] + b;
      CHECK(neighbor[at] == bond.neighbor && species[at] == bond.species);
      CHECK_NEAR(distance[at], bond.d, 1e-14 * bond.d);
      CHECK_NEAR(inverse[at], 1.0 / bond.rc, 1e-15);
      for (int k = 0; k < 3; ++k) {
        CHECK_NEAR(vector[k * c + at], bond.r[k], 1e-14);
        CHECK_NEAR(static_cast<double>(direction[k * c + at]), bond.u[k], rounding);
        CHECK(gradient[k * c + at] == 0.0);
      }
      if (p.c.n_coefficients > 0) {
        CHECK(interval[at] == bond.interval);
        CHECK_NEAR(static_cast<double>(t[at]), bond.t, 10.0 * rounding);
        CHECK_NEAR(static_cast<double>(y[at]), 1.0 - bond.x, rounding);
      }
      const double r2 = bond.d * bond.d - 1e-10;
      closest = std::min(closest, r2);
      if (bond.entry == reported_entry) reported = r2;
    }
    for (int at = p.slot[a] + count[a]; at < p.slot[a + 1]; ++at) CHECK(interval[at] == -1);
  }
  if (closest == 1e300) {
    CHECK(flags.closest == ~std::uint64_t{0});
    return;
  }
  const std::uint32_t bits = static_cast<std::uint32_t>(flags.closest >> 32);
  float r2;
  std::memcpy(&r2, &bits, sizeof(r2));
  CHECK_NEAR(static_cast<double>(r2), closest, 1e-6 * closest);
  CHECK_NEAR(reported, closest, 1e-6 * closest);
}

// Forces and virials of the bonds' gradients on the device.
template <class Real>
void check_forces(const Problem<Real>& p, Setup<Real>& s, bool fixed_point) {
  const Bonds<Real> bonds = s.storage.bonds();
  const std::int64_t c = bonds.capacity;
  const auto gradient = s.read(bonds.gradient, 3 * c);
  const std::size_t n = p.n_all;
  std::vector<double> forces(3 * n, 0.0), center(9 * p.n_centers, -7.0), atom(9 * n, 0.0), centroid(9 * n, 0.0);
  for (std::size_t a = 0; a < p.centers.size(); ++a) {
    const int i = p.centers[a];
    std::int64_t at = p.slot[a];
    for (const Bond& bond : p.bonds_of(i)) {
      for (int k = 0; k < 3; ++k) {
        forces[3 * i + k] += gradient[k * c + at];
        forces[3 * bond.neighbor + k] -= gradient[k * c + at];
        for (int m = 0; m < 3; ++m) {
          const double v = -bond.r[k] * gradient[m * c + at];
          center[9 * i + 3 * k + m] += v;
          atom[9 * i + 3 * k + m] += 0.5 * v;
          atom[9 * bond.neighbor + 3 * k + m] += 0.5 * v;
          centroid[9 * bond.neighbor + 3 * k + m] += v;
        }
      }
      ++at;
    }
  }
  const double scale = std::ldexp(1.0, 40);
  Buffer<TestDevice, double> center_sum(s.device, "virials");
  center_sum.upload(std::vector<double>(center.size(), -7.0));  // added to, by both layers
  Buffer<TestDevice, double> sums(s.device, "sums");
  sums.upload(std::vector<double>(21 * n, 0.0));  // also the bits of integers
  const auto target = [&](std::size_t from) {
    return grace::device::AtomicSum<double>{sums.data() + from * n, fixed_point, scale};
  };
  scatter_forces(s.device, s.frame, s.chunk, bonds, ForceSums{target(0), center_sum.data(), target(3), target(12)});
  std::vector<double> all = s.read(static_cast<const double*>(sums.data()), 21 * n);
  if (fixed_point)
    for (double& v : all) {
      std::int64_t integer;
      std::memcpy(&integer, &v, sizeof(v));
      v = static_cast<double>(integer) / scale;
    }
  const double tolerance = fixed_point ? 1e-9 : 1e-12;
  compare(std::vector<double>(all.begin(), all.begin() + 3 * n), forces, tolerance, "forces");
  compare(std::vector<double>(all.begin() + 3 * n, all.begin() + 12 * n), atom, tolerance, "atomic virials");
  compare(std::vector<double>(all.begin() + 12 * n, all.end()), centroid, tolerance, "centroid virials");
  compare(s.read(static_cast<const double*>(center_sum.data()), center.size()), center, 1e-12, "virials of centres");

  // Forces alone.
  sums.upload(std::vector<double>(21 * n, 0.0));
  scatter_forces(s.device, s.frame, s.chunk, bonds, ForceSums{target(0), nullptr, {}, {}});
  all = s.read(static_cast<const double*>(sums.data()), 21 * n);
  if (!fixed_point) compare(std::vector<double>(all.begin(), all.begin() + 3 * n), forces, tolerance, "forces alone");
  for (std::size_t i = 3 * n; i < all.size(); ++i) CHECK(all[i] == 0.0);
}

template <class Real>
std::vector<Real> random_gradients(Problem<Real>& p) {
  std::vector<Real> g(p.n_lm * p.centers.size() * p.stride, Real(0));
  for (std::size_t i = 0; i < g.size(); ++i)
    if (static_cast<int>(i % p.stride) < p.c.n_channels) g[i] = static_cast<Real>(p.uniform());
  return g;
}

template <class Real>
std::vector<Real> arena(const Problem<Real>& p, const std::vector<Real>& rows) {
  std::vector<Real> all(Setup<Real>::other_rows * p.stride * p.centers.size(), Real(-1));
  all.insert(all.end(), rows.begin(), rows.end());
  return all;
}

template <class Real>
void run_case(const Case& c, std::uint64_t seed, double tolerance) {
  Problem<Real> p(c, seed);
  Setup<Real> s(p, seed);
  const Bonds<Real> bonds = s.storage.bonds();
  check_bonds(p, s);

  const std::size_t rows = p.n_lm * p.centers.size() * p.stride;
  Buffer<TestDevice, Real> values(s.device, "values"), gradients(s.device, "gradients");
  values.upload(arena(p, std::vector<Real>(rows, Real(-1))));
  basis_forward(s.device, s.layer, s.chunk, bonds, values.data());
  std::vector<double> expected = p.forward();
  expected.insert(expected.begin(), Setup<Real>::other_rows * p.stride * p.centers.size(), -1.0);
  // The other tensor must be untouched; the tolerance is that of A alone.
  const std::vector<Real> got = s.read(static_cast<const Real*>(values.data()), expected.size());
  const std::size_t before = expected.size() - rows;
  for (std::size_t i = 0; i < before; ++i) CHECK(got[i] == Real(-1));
  compare(std::vector<Real>(got.begin() + before, got.end()),
          std::vector<double>(expected.begin() + before, expected.end()), tolerance, "A");

  const std::vector<Real> g = random_gradients(p);
  gradients.upload(arena(p, g));
  const std::size_t n = 3 * static_cast<std::size_t>(bonds.capacity);
  std::vector<double> gradient = p.adjoint(g, bonds.capacity);
  basis_adjoint(s.device, s.layer, s.chunk, bonds, gradients.data());
  compare(s.read(static_cast<const double*>(bonds.gradient), n), gradient, tolerance, "bond gradients");
  check_forces(p, s, false);
  check_forces(p, s, true);
  basis_adjoint(s.device, s.layer, s.chunk, bonds, gradients.data());
  for (double& v : gradient) v *= 2.0;
  compare(s.read(static_cast<const double*>(bonds.gradient), n), gradient, tolerance, "summed bond gradients");
}

std::vector<int> rows(int n_atoms, int most) {
  std::vector<int> n(n_atoms);
  for (int a = 0; a < n_atoms; ++a) n[a] = (7 * a + 3) % (most + 1);
  return n;
}

}  // namespace

TEST(gpu_basis_matches_plain_loops) {
  const std::vector<Case> cases = {{4, 42, 3, rows(6, 80), 8, {}, false, true},
                                   {4, 32, 2, {70, 5, 130, 64}, 12, {}, false, true},
                                   {0, 1, 1, rows(9, 12), 5, {}, false, true},
                                   {1, 5, 4, rows(7, 40), 8, {}, false, false},
                                   {2, 20, 3, rows(5, 66), 12, {}, false, true},
                                   {3, 64, 2, rows(4, 50), 8, {}, false, true},
                                   {5, 9, 3, rows(3, 70), 12, {}, false, true},
                                   {6, 7, 118, rows(4, 45), 8, {}, false, true},
                                   {8, 24, 2, {40, 0, 33}, 8, {}, false, true},
                                   {7, 3, 2, {35, 2}, 12, {}, false, false},
                                   {4, 42, 3, rows(5, 60), 0, {17, 9}, false, true},
                                   {2, 8, 2, rows(4, 70), 0, {64}, true, false},
                                   {6, 11, 2, rows(3, 40), 0, {5, 6, 7}, false, true},
                                   {1, 1, 1, rows(5, 9), 0, {}, false, true},
                                   {3, 16, 3, std::vector<int>(5, 0), 8, {}, false, true},
                                   {3, 16, 3, std::vector<int>(5, 0), 0, {4}, false, true},
                                   {2, 8, 2, {}, 8, {}, false, true},
                                   {2, 8, 2, {}, 0, {3}, false, true}};
  for (const Case& c : cases)
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      run_case<double>(c, seed, 1e-12);
      run_case<float>(c, seed, 5e-6);  // of the largest number of a tensor; the network rounds in three layers
    }
}

// More channels than a block has threads for, and than one pass of the adjoint holds in shared memory.
TEST(gpu_basis_of_many_channels) {
  run_case<double>({1, 600, 2, {20, 0, 7}, 12, {}, false, true}, 1, 1e-12);
  run_case<float>({0, 530, 2, {40, 3}, 0, {300}, false, true}, 2, 5e-6);
}

TEST(gpu_basis_refuses_networks_beyond_shared_memory) {
  const Case c{0, 1, 1, {3, 2}, 0, {9000}, false, true};
  Problem<double> p(c, 0);
  CHECK_THROWS(Setup<double>(p, 0), "use radial table");
}

TEST(gpu_basis_refuses_harmonics_beyond_shared_memory) {
  if (!test_target::is_emulated) return;
  setenv("GRACE_MD_EMULATED_SHARED", "101376", 1);
  const Case c{8, 24, 2, {40, 0, 33}, 8, {}, false, true};
  CHECK_THROWS(run_case<double>(c, 1, 1e-12), "harmonics up to l = 8");
  run_case<float>(c, 1, 5e-6);
  unsetenv("GRACE_MD_EMULATED_SHARED");
}

// Forces are minus the derivative of E = sum g A by the positions, through all kernels.
TEST(gpu_basis_forces_are_derivatives) {
  for (int n_coefficients : {12, 0}) {
    const Case c{4, 6, 2, {30, 9, 45, 20}, n_coefficients, {8}, false, true};
    Problem<double> p(c, 4);
    // A random table jumps from interval to interval; here (1 - x)^3 (c0 + c1 x), the same in all of them.
    const int n_intervals = p.intervals.inner + p.intervals.outer;
    for (int k = 0; k < n_intervals && n_coefficients > 0; ++k) {
      const bool inner = k < p.intervals.inner;
      const double split = p.intervals.split;
      const double middle = inner ? split * (k + 0.5) / p.intervals.inner
                                  : split + (1.0 - split) * (k - p.intervals.inner + 0.5) / p.intervals.outer;
      int interval;
      double rate, start;
      p.intervals.locate(middle, interval, rate, start);
      CHECK(interval == k);
      for (int l = 0; l <= c.lmax; ++l)
        for (int n = 0; n < c.n_channels; ++n) {
          double* of = p.coefficients.data() + (k * (c.lmax + 1) + l) * n_coefficients * p.stride + n;
          const double c0 = 0.4 - 0.1 * n, c1 = 1.0 + 0.3 * l;  // x = (t - start) / rate
          for (int d = 0; d < n_coefficients; ++d) of[d * p.stride] = 0.0;
          of[0] = c0 - c1 * start / rate;
          of[p.stride] = c1 / rate;
        }
    }
    const std::vector<double> g = arena(p, random_gradients(p));
    const auto energy = [&] {
      Setup<double> s(p, 1);
      Buffer<TestDevice, double> values(s.device, "values");
      values.reserve(g.size());
      basis_forward(s.device, s.layer, s.chunk, s.storage.bonds(), values.data());
      const std::vector<double> A = s.read(static_cast<const double*>(values.data()), g.size());
      double sum = 0.0;
      for (std::size_t i = Setup<double>::other_rows * p.stride * p.centers.size(); i < g.size(); ++i)
        sum += g[i] * A[i];
      return sum;
    };
    Setup<double> s(p, 2);
    Buffer<TestDevice, double> gradients(s.device, "gradients"), sums(s.device, "forces");
    gradients.upload(g);
    sums.upload(std::vector<double>(3 * p.n_all, 0.0));
    basis_adjoint(s.device, s.layer, s.chunk, s.storage.bonds(), gradients.data());
    scatter_forces(s.device, s.frame, s.chunk, s.storage.bonds(),
                   ForceSums{{sums.data(), false, 1.0}, nullptr, {}, {}});
    const std::vector<double> forces = s.read(static_cast<const double*>(sums.data()), 3 * p.n_all);
    double largest = 0.0;
    for (int i = 0; i < 3 * p.n_all; ++i) {
      const double h = 1e-4, x = p.positions[i];
      double e[4];
      for (int k = 0; k < 4; ++k) {
        p.positions[i] = x + h * (k < 2 ? k - 2 : k - 1);
        e[k] = energy();
      }
      p.positions[i] = x;
      CHECK_NEAR(-(e[0] - 8.0 * e[1] + 8.0 * e[2] - e[3]) / (12.0 * h), forces[i], 1e-7);
      largest = std::max(largest, std::fabs(forces[i]));
    }
    CHECK(largest > 0.05);
  }
}

TEST(gpu_bonds_keep_their_memory) {
  TestDevice device(test_target::order(0));
  BondStorage<TestDevice, float> storage(device);
  RadialPlan<float> table, exact;
  table.n_intervals = 4;
  exact.width = 24;
  CHECK(storage.reserve(10, 100, table));
  CHECK(!storage.reserve(10, 100, table));
  CHECK(!storage.reserve(3, 110, table));
  CHECK(storage.bonds().radial == nullptr);
  CHECK(storage.reserve(3, 90, exact));
  CHECK(!storage.reserve(10, 110, table));
  const Bonds<float> bonds = storage.bonds();
  CHECK(bonds.radial != nullptr && bonds.capacity % 8 == 0);
  CHECK(storage.reserve(11, 100, table));
  CHECK(storage.bytes() > 0);
  BondStorage<TestDevice, double> empty(device);
  CHECK(empty.reserve(0, 0, RadialPlan<double>{}));
  CHECK(!empty.reserve(0, 0, RadialPlan<double>{}));
}
