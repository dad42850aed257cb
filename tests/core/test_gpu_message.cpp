// Message basis of the second layer on the device, against plain loops over
// YI[row] = f sum_terms c sum_j R_l Y_lm I_j[r] and its derivatives.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "check.hpp"
#include "message_problem.hpp"

using namespace message_test;

namespace {

template <class Real>
void compare(const std::vector<Real>& got, const std::vector<double>& expected, double tolerance, const char* what) {
  double largest = 0.0, worst = 0.0;
  for (double v : expected) largest = std::max(largest, std::fabs(v));
  bool good = got.size() == expected.size();
  for (std::size_t i = 0; good && i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= tolerance * largest)) good = false;
    worst = std::max(worst, error);
  }
  if (!good)
    check::report(__FILE__, __LINE__,
                  std::string(what) + " differ: " + std::to_string(worst) + " of " + std::to_string(largest));
}

template <class T>
std::vector<T> download(TestDevice& device, Buffer<TestDevice, T>& buffer, std::size_t n) {
  return test_target::read<T>(device, buffer.data(), n);
}

template <class Real>
void run_case(const Case& c, std::uint64_t seed, double tolerance) {
  Problem<Real> p(c, seed);
  Setup<Real> s(p, seed);
  const std::size_t atoms = p.bonds.size(), before = Setup<Real>::other_rows * p.stride * atoms;
  const std::size_t rows = static_cast<std::size_t>(c.n_targets) * p.stride * atoms;

  Buffer<TestDevice, Real> values(s.device, "values"), gradients(s.device, "gradients"), gI(s.device, "gradients");
  values.upload(std::vector<Real>(before + rows, Real(-1)));
  message_forward(s.device, s.layer, s.frame, s.chunk, s.bonds, s.message, values.data());
  std::vector<double> expected = p.forward();
  expected.insert(expected.begin(), before, -1.0);
  compare(download(s.device, values, before + rows), expected, tolerance, "YI");

  std::vector<Real> g(before + rows, Real(0));
  for (std::size_t i = before; i < g.size(); ++i)
    if (static_cast<int>(i % p.stride) < c.n_channels) g[i] = static_cast<Real>(p.uniform());
  gradients.upload(g);
  std::vector<double> bond_gradient, message_gradient;
  p.adjoint(std::vector<Real>(g.begin() + before, g.end()), bond_gradient, message_gradient);
  gI.upload(std::vector<Real>(p.message.size(), Real(0)));
  message_adjoint(s.device, s.layer, s.frame, s.chunk, s.bonds, s.message, gradients.data(),
                  grace::device::AtomicSum<Real>{gI.data(), false, 1.0});
  const std::vector<Real> floating = download(s.device, gI, p.message.size());
  compare(floating, message_gradient, tolerance, "message gradients");
  compare(download(s.device, s.gradient, bond_gradient.size()), bond_gradient, tolerance, "bond gradients");

  // again in fixed point: the bonds' gradients add up, the messages' are the same to the step
  Buffer<TestDevice, std::int64_t> fixed(s.device, "sums");
  fixed.upload(std::vector<std::int64_t>(p.message.size(), 0));
  const double bits = std::ldexp(1.0, 36);
  const grace::device::AtomicSum<Real> sum{fixed.data(), true, bits};
  message_adjoint(s.device, s.layer, s.frame, s.chunk, s.bonds, s.message, gradients.data(), sum);
  from_fixed_point(s.device, sum, static_cast<std::int64_t>(p.message.size()), gI.data());
  for (double& v : bond_gradient) v *= 2.0;
  compare(download(s.device, s.gradient, bond_gradient.size()), bond_gradient, tolerance, "summed bond gradients");
  const std::vector<Real> from_fixed = download(s.device, gI, p.message.size());
  const double step = p.slot.back() * 0.5 / bits;
  for (std::size_t i = 0; i < from_fixed.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(from_fixed[i]) - static_cast<double>(floating[i]));
    const double rounding = sizeof(Real) == 8 ? 1e-14 : 1e-5;  // of the floating sum
    if (!(difference <= step + rounding * (1.0 + std::fabs(message_gradient[i])))) CHECK(difference <= step);
  }
}

std::vector<int> counts(int n_atoms, int most) {
  std::vector<int> n(n_atoms);
  for (int a = 0; a < n_atoms; ++a) n[a] = (7 * a + 3) % (most + 1);
  return n;
}

}  // namespace

TEST(gpu_message_matches_plain_loops) {
  const std::vector<Case> cases = {{4, 4, 32, 62, counts(5, 20), true, false},
                                   {4, 16, 32, 70, counts(3, 19), true, true},
                                   {4, 16, 20, 190, counts(2, 9), false, false},
                                   {0, 1, 1, 1, counts(9, 5), true, false},
                                   {1, 4, 5, 7, counts(7, 18), false, true},
                                   {2, 9, 48, 20, counts(4, 12), true, true},
                                   {3, 16, 64, 31, counts(4, 11), true, false},
                                   {5, 9, 42, 40, counts(2, 17), true, true},
                                   {3, 1, 8, 12, counts(26, 4), true, true},
                                   {2, 4, 3, 5, std::vector<int>(4, 0), true, false},
                                   {4, 4, 32, 10, {}, true, false},
                                   {2, 25, 8, 11, counts(3, 33), true, false},
                                   {8, 16, 8, 50, counts(2, 6), true, true}};
  for (const Case& c : cases)
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      run_case<double>(c, seed, 1e-12);
      run_case<float>(c, seed, 2e-6);  // of the largest number of a tensor; sums of some hundred rounded terms
    }
}

// More tiles than threads, and more pairs than a block of eight channels holds in shared memory.
TEST(gpu_message_of_any_size) { run_case<double>({8, 81, 10, 30, {3, 0, 5}, true, false}, 1, 1e-12); }

TEST(gpu_message_adjoint_is_the_derivative) {
  const Case c{4, 9, 6, 30, {4, 3}, true, true};
  Problem<double> p(c, 3);
  std::vector<double> g(p.forward().size());
  for (double& v : g) v = p.uniform();
  Setup<double> s(p, 2);
  Buffer<TestDevice, double> gradients(s.device, "gradients"), gI(s.device, "gradients");
  std::vector<double> arena(Setup<double>::other_rows * p.stride * p.bonds.size(), 0.0);
  arena.insert(arena.end(), g.begin(), g.end());
  gradients.upload(arena);
  gI.upload(std::vector<double>(p.message.size(), 0.0));
  message_adjoint(s.device, s.layer, s.frame, s.chunk, s.bonds, s.message, gradients.data(),
                  grace::device::AtomicSum<double>{gI.data(), false, 1.0});
  const std::vector<double> of_message = download(s.device, gI, p.message.size());
  const std::vector<double> of_bonds = download(s.device, s.gradient, 3 * static_cast<std::size_t>(p.slot.back()));
  const auto energy = [&] {
    const std::vector<double> YI = p.forward();
    double sum = 0.0;
    for (std::size_t i = 0; i < YI.size(); ++i) sum += g[i] * YI[i];
    return sum;
  };
  const auto difference = [&](double& x) {
    const double h = 1e-5, x0 = x;
    x = x0 + h;
    const double high = energy();
    x = x0 - h;
    const double low = energy();
    x = x0;
    return (high - low) / (2.0 * h);
  };
  double largest = 0.0;
  for (std::size_t a = 0; a < p.bonds.size(); ++a)
    for (std::size_t b = 0; b < p.bonds[a].size(); ++b)
      for (int k = 0; k < 3; ++k) {
        const double got = of_bonds[k * p.slot.back() + p.slot[a] + b];
        CHECK_NEAR(difference(p.bonds[a][b].r[k]), got, 1e-6);
        largest = std::max(largest, std::fabs(got));
      }
  CHECK(largest > 1e-3);
  for (std::size_t i = 0; i < p.message.size(); i += 7) CHECK_NEAR(difference(p.message[i]), of_message[i], 1e-8);
}

TEST(gpu_message_moves_between_chunk_and_atoms) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    TestDevice device(test_target::order(seed));
    grace::device::DeviceModelMemory<TestDevice> memory(device);
    for (int n_atoms : {0, 1, 37}) {
      const int n_rows = 4, stride = 40, offset = 16, n_centers = n_atoms + 2;
      LayerPlan<float> layer;
      layer.message = 0;
      layer.slots.push_back({n_rows, 33, stride, static_cast<std::size_t>(offset)});
      std::vector<std::int32_t> centers(n_atoms);
      for (int a = 0; a < n_atoms; ++a) centers[a] = n_centers - 1 - a;
      Chunk chunk;
      chunk.n_atoms = n_atoms;
      chunk.centers = memory.keep(centers);
      const std::size_t arena = static_cast<std::size_t>(offset + n_rows * stride) * n_atoms;
      const std::size_t all = static_cast<std::size_t>(n_centers) * n_rows * stride;
      std::vector<float> values(arena);
      for (std::size_t i = 0; i < arena; ++i) values[i] = static_cast<float>(i);
      std::vector<double> expected(all, -1.0);
      for (int a = 0; a < n_atoms; ++a)
        for (int r = 0; r < n_rows; ++r)
          for (int n = 0; n < stride; ++n)
            expected[(static_cast<std::size_t>(centers[a]) * n_rows + r) * stride + n] =
                static_cast<double>(values[(offset * n_atoms) + (r * n_atoms + a) * stride + n]);
      Buffer<TestDevice, float> from(device, "values"), message(device, "message"), back(device, "values");
      from.upload(values);
      message.upload(std::vector<float>(all, -1.0f));
      store_message(device, layer, chunk, from.data(), message.data());
      compare(download(device, message, all), expected, 0.0, "message");
      back.upload(std::vector<float>(arena, -1.0f));
      load_message_gradient(device, layer, chunk, message.data(), back.data());
      std::vector<double> same(values.begin(), values.end());
      std::fill(same.begin(), same.begin() + offset * n_atoms, -1.0);
      compare(download(device, back, arena), same, 0.0, "gradients");
    }
  }
}
