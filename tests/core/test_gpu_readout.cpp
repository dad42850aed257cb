// Readout kernels on the device against plain loops: energies, density gradients, ways in and out.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/evaluator_cuda/readout.hpp"
#include "test_target.hpp"

using namespace grace::gpu;
using test_target::TestDevice;

namespace {

enum class Norm { none, full, only_nonlinear };

struct Case {
  std::vector<int> sizes;  // of the network, input first
  bool is_tanh = false;
  Norm norm = Norm::none;
  bool two_layers = false;
  int n_atoms = 0;
  int n_elements = 1;
};

struct Network {
  std::vector<int> sizes;
  bool is_tanh;
  std::vector<std::vector<double>> weights;

  // MLP(input) by plain loops.
  double value(std::vector<double> h) const {
    for (std::size_t k = 0; k + 1 < sizes.size(); ++k) {
      std::vector<double> next(sizes[k + 1], 0.0);
      for (int i = 0; i < sizes[k]; ++i)
        for (int j = 0; j < sizes[k + 1]; ++j) next[j] += h[i] * weights[k][i * sizes[k + 1] + j];
      if (k + 2 < sizes.size())
        for (double& v : next) v = is_tanh ? std::tanh(v) : v / (1.0 + std::exp(-v));
      h = next;
    }
    return h[0];
  }
  // d MLP / d input by plain loops.
  std::vector<double> gradient(const std::vector<double>& input) const {
    std::vector<std::vector<double>> before{input}, slope{};
    for (std::size_t k = 0; k + 2 < sizes.size(); ++k) {
      std::vector<double> next(sizes[k + 1], 0.0), d(sizes[k + 1]);
      for (int i = 0; i < sizes[k]; ++i)
        for (int j = 0; j < sizes[k + 1]; ++j) next[j] += before[k][i] * weights[k][i * sizes[k + 1] + j];
      for (int j = 0; j < sizes[k + 1]; ++j) {
        const double v = next[j], s = 1.0 / (1.0 + std::exp(-v)), t = std::tanh(v);
        d[j] = is_tanh ? 1.0 - t * t : s + v * s * (1.0 - s);
        next[j] = is_tanh ? t : v * s;
      }
      before.push_back(next);
      slope.push_back(d);
    }
    std::vector<double> g{1.0};
    for (std::size_t k = sizes.size() - 1; k-- > 0;) {
      std::vector<double> lower(sizes[k], 0.0);
      for (int i = 0; i < sizes[k]; ++i) {
        for (int j = 0; j < sizes[k + 1]; ++j) lower[i] += weights[k][i * sizes[k + 1] + j] * g[j];
        if (k > 0) lower[i] *= slope[k - 1][i];
      }
      g = lower;
    }
    return g;
  }
};

struct Scales {
  Norm norm;
  double gate;
  std::vector<double> scale;

  std::vector<double> apply(const std::vector<double>& x) const {
    if (norm == Norm::none) return x;
    const std::size_t start = norm == Norm::full ? 0 : 1;
    double sum = 0.0;
    for (std::size_t k = start; k < x.size(); ++k) sum += x[k] * x[k];
    const double r = std::sqrt(sum / static_cast<double>(x.size() - start) + 1e-10);
    std::vector<double> y(x);
    for (std::size_t k = start; k < x.size(); ++k) y[k] = scale[k - start] * x[k] / r;
    if (start == 1) y[0] = gate * x[0];
    return y;
  }
  // Vector times the Jacobian dy_k/dx_j = s_k (delta_kj / r - x_k x_j / (m r^3)).
  std::vector<double> adjoint(const std::vector<double>& x, const std::vector<double>& gy) const {
    if (norm == Norm::none) return gy;
    const std::size_t start = norm == Norm::full ? 0 : 1;
    const double m = static_cast<double>(x.size() - start);
    double sum = 0.0;
    for (std::size_t k = start; k < x.size(); ++k) sum += x[k] * x[k];
    const double r = std::sqrt(sum / m + 1e-10);
    std::vector<double> gx(x.size(), 0.0);
    for (std::size_t j = start; j < x.size(); ++j)
      for (std::size_t k = start; k < x.size(); ++k)
        gx[j] += gy[k] * scale[k - start] * ((j == k ? 1.0 / r : 0.0) - x[k] * x[j] / (m * r * r * r));
    if (start == 1) gx[0] = gate * gy[0];
    return gx;
  }
};

template <class Real>
void compare(const std::vector<Real>& got, const std::vector<double>& expected, double tolerance, const char* what) {
  double largest = 0.0, worst = 0.0;
  for (double v : expected) largest = std::max(largest, std::fabs(v));
  bool good = got.size() == expected.size();
  for (std::size_t i = 0; good && i < got.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= tolerance * std::max(largest, 1e-300))) good = false;
    worst = std::max(worst, error);
  }
  if (!good)
    check::report(__FILE__, __LINE__,
                  std::string(what) + " differ: " + std::to_string(worst) + " of " + std::to_string(largest));
}

template <class Real>
void run_case(const Case& c, std::uint64_t seed, double tolerance) {
  std::mt19937 random(static_cast<unsigned>(17 + seed));
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  const auto numbers = [&](std::size_t n) {
    std::vector<double> list(n);
    for (double& v : list) v = uniform(random);
    return list;
  };
  const int n = c.sizes.front() + 1, stride = padded_channels(n), n_centers = c.n_atoms + 3;
  Network network{c.sizes, c.is_tanh, {}};
  for (std::size_t k = 0; k + 1 < c.sizes.size(); ++k) {
    network.weights.push_back(numbers(static_cast<std::size_t>(c.sizes[k]) * c.sizes[k + 1]));
    for (double& w : network.weights.back()) w /= std::sqrt(static_cast<double>(c.sizes[k]));
  }
  const Scales last{c.norm, 0.7, numbers(n)}, first{c.norm, -0.3, numbers(n)};
  const std::vector<double> shift = numbers(c.n_elements), stored = numbers(static_cast<std::size_t>(n_centers) * n);

  TestDevice device(test_target::order(seed));
  grace::device::DeviceModelMemory<TestDevice> memory(device);
  ReadoutPlan plan;
  plan.n_densities = n;
  plan.is_tanh = c.is_tanh;
  plan.n_layers = static_cast<int>(c.sizes.size()) - 1;
  plan.output_scale = 1.7;
  plan.shift = memory.keep(shift);
  for (int k = 0; k < plan.n_layers; ++k) {
    plan.layer_in[k] = c.sizes[k];
    plan.layer_out[k] = c.sizes[k + 1];
    plan.layer_weights[k] = memory.keep(network.weights[k]);
    plan.widest = std::max({plan.widest, c.sizes[k], c.sizes[k + 1]});
  }
  LayerPlan<Real> layer, first_layer;
  for (auto* l : {&layer, &first_layer}) {
    const Scales& scales = l == &layer ? last : first;
    l->density = 1;
    l->slots.resize(2);
    l->slots[0] = {3, 8, 8, 0};
    l->slots[1] = {1, n, stride, 24};
    l->norm = {c.norm != Norm::none, c.norm == Norm::only_nonlinear, scales.gate, memory.keep(scales.scale)};
  }
  std::vector<std::int32_t> centers(n_centers), species(c.n_atoms);
  for (int i = 0; i < n_centers; ++i) centers[i] = i;
  std::shuffle(centers.begin(), centers.end(), random);
  centers.resize(c.n_atoms);
  for (std::int32_t& s : species) s = static_cast<std::int32_t>(random() % static_cast<unsigned>(c.n_elements));
  Chunk chunk;
  chunk.n_atoms = c.n_atoms;
  chunk.centers = memory.keep(centers);
  chunk.species = memory.keep(species);

  const std::size_t arena = static_cast<std::size_t>(24 + stride) * c.n_atoms, start = std::size_t{24} * c.n_atoms;
  std::vector<Real> values(arena, Real(0));
  for (int a = 0; a < c.n_atoms; ++a)
    for (int k = 0; k < n; ++k) values[start + a * stride + k] = static_cast<Real>(uniform(random));
  using grace::device::Buffer;
  Buffer<TestDevice, Real> device_values(device, "values"), gradients(device, "gradients"), loaded(device, "gradients");
  Buffer<TestDevice, double> densities(device, "densities"), density_gradients(device, "gradients"),
      energies(device, "energies"), copied(device, "densities");
  device_values.upload(values);
  densities.upload(stored);
  const std::vector<double> minus_one(static_cast<std::size_t>(n_centers) * n, -1.0);
  density_gradients.upload(minus_one);
  copied.upload(minus_one);
  energies.upload(std::vector<double>(n_centers, -1.0));
  gradients.upload(std::vector<Real>(arena, Real(-1)));
  loaded.upload(std::vector<Real>(arena, Real(-1)));

  std::vector<double> energy(n_centers, -1.0), gradient(arena, -1.0), first_gradient(minus_one), kept(minus_one),
      back(arena, -1.0);
  for (int a = 0; a < c.n_atoms; ++a) {
    const std::size_t i = centers[a];
    std::vector<double> x(n), x_first(stored.begin() + i * n, stored.begin() + (i + 1) * n);
    for (int k = 0; k < n; ++k) x[k] = static_cast<double>(values[start + a * stride + k]);
    std::copy(x.begin(), x.end(), kept.begin() + i * n);
    std::vector<double> y = last.apply(x);
    if (c.two_layers) {
      const std::vector<double> other = first.apply(x_first);
      for (int k = 0; k < n; ++k) y[k] += other[k];
    }
    const std::vector<double> input(y.begin() + 1, y.end());
    energy[i] = 1.7 * (y[0] + network.value(input)) + shift[species[a]];
    std::vector<double> gy{1.0};
    for (double g : network.gradient(input)) gy.push_back(g);
    for (double& g : gy) g *= 1.7;
    const std::vector<double> gx = last.adjoint(x, gy), gx_first = first.adjoint(x_first, gy);
    for (int k = 0; k < stride; ++k) {
      gradient[start + a * stride + k] = k < n ? gx[k] : 0.0;
      back[start + a * stride + k] = k < n ? stored[i * n + k] : 0.0;
    }
    if (c.two_layers) std::copy(gx_first.begin(), gx_first.end(), first_gradient.begin() + i * n);
  }

  const LayerPlan<Real>* first_pointer = c.two_layers ? &first_layer : nullptr;
  const auto download = [&](auto& buffer, std::size_t size, auto zero) {
    std::vector<decltype(zero)> list(size);
    buffer.download(list.data(), size);
    device.synchronize();
    return list;
  };
  // energies only: gradients stay as they are
  readout(device, plan, layer, first_pointer, chunk, device_values.data(), densities.data(), energies.data(),
          static_cast<Real*>(nullptr), density_gradients.data());
  compare(download(energies, n_centers, 0.0), energy, 1e-12, "energies");
  compare(download(density_gradients, minus_one.size(), 0.0), minus_one, 0.0, "untouched gradients");

  energies.upload(std::vector<double>(n_centers, -1.0));
  readout(device, plan, layer, first_pointer, chunk, device_values.data(), densities.data(), energies.data(),
          gradients.data(), density_gradients.data());
  compare(download(energies, n_centers, 0.0), energy, 1e-12, "energies");
  compare(download(gradients, arena, Real(0)), gradient, tolerance, "density gradients");
  compare(download(density_gradients, first_gradient.size(), 0.0), first_gradient, 1e-12, "gradients of layer 1");

  store_densities(device, layer, n, chunk, device_values.data(), copied.data());
  compare(download(copied, kept.size(), 0.0), kept, 0.0, "stored densities");
  load_density_gradients(device, layer, n, chunk, densities.data(), loaded.data());
  compare(download(loaded, arena, Real(0)), back, sizeof(Real) == 8 ? 0.0 : 1e-7, "loaded gradients");
}

}  // namespace

TEST(gpu_readout_matches_plain_loops) {
  const std::vector<Case> cases = {
      {{16, 64, 64, 1}, false, Norm::none, false, 37, 3},          {{16, 64, 64, 1}, true, Norm::full, true, 19, 118},
      {{16, 64, 64, 1}, false, Norm::only_nonlinear, true, 5, 2},  {{1, 1}, false, Norm::none, false, 1, 1},
      {{7, 65, 130, 3, 1}, false, Norm::full, true, 17, 2},        {{11, 1}, false, Norm::only_nonlinear, false, 33, 4},
      {{2, 3, 4, 5, 6, 5, 4, 3, 1}, true, Norm::full, true, 9, 1}, {{8, 700, 500, 1}, false, Norm::none, true, 6, 2},
      {{3, 4, 1}, false, Norm::only_nonlinear, true, 0, 2}};
  for (const Case& c : cases)
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      run_case<double>(c, seed, 1e-12);
      run_case<float>(c, seed, 1e-6);  // densities are rounded on the way in and their gradients on the way out
    }
}

TEST(gpu_readout_names_the_network_that_does_not_fit) {
  TestDevice device(test_target::order(0));
  ReadoutPlan plan;
  plan.n_densities = 2;
  plan.n_layers = 2;
  plan.widest = 100000;
  LayerPlan<double> layer;
  layer.density = 0;
  layer.slots.push_back({1, 2, 8, 0});
  CHECK_THROWS(readout(device, plan, layer, static_cast<const LayerPlan<double>*>(nullptr), Chunk{},
                       static_cast<const double*>(nullptr), nullptr, nullptr, static_cast<double*>(nullptr), nullptr),
               "100000 units");
}
