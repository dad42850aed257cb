// Message basis of the second layer on the emulated device, against plain loops over
// YI[row] = f sum_terms c sum_j R_l Y_lm I_j[r] and its derivatives.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/device/buffer.hpp"
#include "grace/device/emulated_device.hpp"
#include "grace/evaluator_cuda/message_basis.hpp"
#include "grace/plan/harmonics_table.hpp"

using grace::device::Buffer;
using grace::device::EmulatedDevice;
using namespace grace::gpu;

namespace {

struct Case {
  int lmax, n_rows, n_channels, n_targets;
  std::vector<int> n_bonds;  // of every atom
  bool table, owner;
};

struct Term {
  int target, pair;
  double coefficient;
};

struct Bond {
  int neighbor;
  double r[3], rc;
};

// The problem in plain numbers, rounded to Real where the kernels read Real.
template <class Real>
struct Problem {
  Case c;
  int n_lm, stride, width, n_all;
  grace::plan::TableIntervals intervals{3, 5};
  static constexpr int n_coefficients = 5;
  std::vector<Real> coefficients;  // [interval][l][d][stride]
  std::vector<std::vector<Bond>> bonds;
  std::vector<std::int32_t> species, owner, slot;
  std::vector<Real> factor, message;
  std::vector<Term> terms;
  std::mt19937 random;

  double uniform(double low = -1.0, double high = 1.0) {
    return std::uniform_real_distribution<double>(low, high)(random);
  }

  Problem(const Case& wanted, std::uint64_t seed)
      : c(wanted),
        n_lm((c.lmax + 1) * (c.lmax + 1)),
        stride(padded_channels(c.n_channels)),
        width((c.lmax + 1) * stride),
        n_all(static_cast<int>(c.n_bonds.size()) + 4),
        random(static_cast<unsigned>(seed + 5)) {
    const int n_intervals = intervals.inner + intervals.outer;
    coefficients.assign(static_cast<std::size_t>(n_intervals) * n_coefficients * width, Real(0));
    for (std::size_t i = 0; i < coefficients.size(); ++i)
      if (static_cast<int>(i) % stride < c.n_channels) coefficients[i] = static_cast<Real>(uniform());
    message.assign(static_cast<std::size_t>(n_all) * c.n_rows * stride, Real(0));
    for (std::size_t i = 0; i < message.size(); ++i)
      if (static_cast<int>(i) % stride < c.n_channels) message[i] = static_cast<Real>(uniform());
    factor = {static_cast<Real>(0.11), static_cast<Real>(-0.23), static_cast<Real>(0.07)};
    for (int i = 0; i < n_all; ++i) owner.push_back(static_cast<int>(random() % n_all));
    slot.push_back(0);
    for (int n : c.n_bonds) {
      species.push_back(static_cast<int>(random() % factor.size()));
      bonds.emplace_back();
      for (int b = 0; b < n; ++b) {
        Bond bond{static_cast<int>(random() % n_all), {}, uniform(4.0, 6.0)};
        double d = 0.0;
        while (!(d > 0.3 && d < 0.99 * bond.rc)) {
          for (double& r : bond.r) r = uniform(-bond.rc, bond.rc);
          d = std::sqrt(bond.r[0] * bond.r[0] + bond.r[1] * bond.r[1] + bond.r[2] * bond.r[2] + 1e-10);
        }
        bonds.back().push_back(bond);
      }
      slot.push_back(slot.back() + n + static_cast<int>(random() % 3));  // rows may have unused slots
    }
    for (int t = 0; t < c.n_targets; ++t)
      for (unsigned k = 0; k < 1 + random() % 5; ++k) {
        Term term{t, static_cast<int>(random() % (n_lm * c.n_rows)), static_cast<double>(static_cast<Real>(uniform()))};
        if (std::none_of(terms.begin(), terms.end(),
                         [&](const Term& o) { return o.target == t && o.pair == term.pair; }))
          terms.push_back(term);
      }
  }

  int message_row(const Bond& bond) const { return c.owner ? owner[bond.neighbor] : bond.neighbor; }

  struct Located {
    double d, u[3], x;
    int interval;
    double rate, t;
  };
  Located locate(const double* r, double rc) const {
    Located at{};
    at.d = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2] + 1e-10);
    for (int k = 0; k < 3; ++k) at.u[k] = r[k] / at.d;
    at.x = at.d / rc;
    double start;
    intervals.locate(at.x, at.interval, at.rate, start);
    at.t = at.rate * at.x + start;
    return at;
  }
  // R_l,n and dR/dx
  void radial(const Located& at, int l, int n, double& value, double& slope) const {
    double sum = 0.0, derivative = 0.0;
    for (int d = 0; d < n_coefficients; ++d) {
      const double k = static_cast<double>(
          coefficients[((static_cast<std::size_t>(at.interval) * (c.lmax + 1) + l) * n_coefficients + d) * stride + n]);
      sum += k * std::pow(at.t, d);
      if (d > 0) derivative += k * d * at.rate * std::pow(at.t, d - 1);
    }
    const double y = 1.0 - at.x;
    value = y * y * y * sum;
    slope = y * y * y * derivative - 3.0 * y * y * sum;
  }

  // YI[target][atom][stride]
  std::vector<double> forward() const {
    const auto harmonics = grace::plan::harmonics_table<double>(c.lmax);
    const int n_atoms = static_cast<int>(bonds.size());
    std::vector<double> out(static_cast<std::size_t>(c.n_targets) * n_atoms * stride, 0.0), Y(n_lm);
    for (int a = 0; a < n_atoms; ++a)
      for (const Bond& bond : bonds[a]) {
        const Located at = locate(bond.r, bond.rc);
        grace::math::spherical_harmonics<false>(harmonics, at.u[0], at.u[1], at.u[2], Y.data(),
                                                static_cast<double*>(nullptr));
        for (int n = 0; n < c.n_channels; ++n)
          for (const Term& term : terms) {
            const int lm = term.pair / c.n_rows, r = term.pair % c.n_rows;
            double R, slope;
            radial(at, static_cast<int>(std::sqrt(lm + 0.5)), n, R, slope);
            out[(static_cast<std::size_t>(term.target) * n_atoms + a) * stride + n] +=
                static_cast<double>(factor[species[a]]) * term.coefficient * R * Y[lm] *
                static_cast<double>(message[(static_cast<std::size_t>(message_row(bond)) * c.n_rows + r) * stride + n]);
          }
      }
    return out;
  }

  // From gYI: dE/dr of every bond [3][slots], and dE/dI.
  void adjoint(const std::vector<Real>& g, std::vector<double>& gradient, std::vector<double>& gI) const {
    const auto harmonics = grace::plan::harmonics_table<double>(c.lmax);
    const int n_atoms = static_cast<int>(bonds.size());
    const std::size_t capacity = slot.back();
    gradient.assign(3 * capacity, 0.0);
    gI.assign(message.size(), 0.0);
    std::vector<double> Y(n_lm), dY(3 * n_lm);
    for (int a = 0; a < n_atoms; ++a)
      for (std::size_t b = 0; b < bonds[a].size(); ++b) {
        const Bond& bond = bonds[a][b];
        const Located at = locate(bond.r, bond.rc);
        grace::math::spherical_harmonics<true>(harmonics, at.u[0], at.u[1], at.u[2], Y.data(), dY.data());
        double slope = 0.0, f[3] = {};
        for (int n = 0; n < c.n_channels; ++n)
          for (const Term& term : terms) {
            const int lm = term.pair / c.n_rows, r = term.pair % c.n_rows;
            double R, dR;
            radial(at, static_cast<int>(std::sqrt(lm + 0.5)), n, R, dR);
            const std::size_t i = (static_cast<std::size_t>(message_row(bond)) * c.n_rows + r) * stride + n;
            const double w = static_cast<double>(factor[species[a]]) * term.coefficient *
                             static_cast<double>(g[(static_cast<std::size_t>(term.target) * n_atoms + a) * stride + n]);
            const double I = static_cast<double>(message[i]);
            gI[i] += w * R * Y[lm];
            slope += w * I * dR * Y[lm];
            for (int k = 0; k < 3; ++k) f[k] += w * I * R * dY[3 * lm + k];
          }
        const double along = f[0] * at.u[0] + f[1] * at.u[1] + f[2] * at.u[2];
        for (int k = 0; k < 3; ++k)
          gradient[k * capacity + slot[a] + b] = slope / bond.rc * at.u[k] + (f[k] - along * at.u[k]) / at.d;
      }
  }
};

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

// The problem on a device.
template <class Real>
struct Setup {
  EmulatedDevice device;
  grace::device::DeviceModelMemory<EmulatedDevice> memory;
  LayerPlan<Real> layer;
  Frame frame;
  Chunk chunk;
  Bonds<Real> bonds;
  const Real* message;
  Buffer<EmulatedDevice, double> gradient;
  static constexpr std::size_t other_rows = 3;  // of another tensor, before YI in the arena

  GatherTable<Real> gather(const std::vector<Term>& terms, int n_targets, bool forward) {
    std::vector<int> first{0};
    std::vector<grace::math::GatherTerm<Real>> list;
    for (int t = 0; t < n_targets; ++t) {
      for (const Term& term : terms)
        if ((forward ? term.target : term.pair) == t)
          list.push_back({forward ? term.pair : term.target, 0, static_cast<Real>(term.coefficient)});
      first.push_back(static_cast<int>(list.size()));
    }
    return {n_targets, memory.keep(first), memory.keep(list)};
  }

  Setup(const Problem<Real>& p, std::uint64_t seed) : device(seed), memory(device), gradient(device, "gradient") {
    const Case& c = p.c;
    const int n_atoms = static_cast<int>(p.bonds.size());
    const std::size_t capacity = p.slot.back();
    layer.radial.lmax = c.lmax;
    layer.radial.n_channels = c.n_channels;
    layer.radial.stride = p.stride;
    layer.radial.width = p.width;
    layer.harmonics = grace::plan::harmonics_table<Real>(c.lmax);
    layer.n_harmonics = p.n_lm;
    layer.message_basis = 1;
    layer.slots.resize(2);
    layer.slots[0] = {static_cast<int>(other_rows), c.n_channels, p.stride, 0};
    layer.slots[1] = {c.n_targets, c.n_channels, p.stride, other_rows * p.stride};
    layer.message_plan = {c.n_rows, c.n_targets, gather(p.terms, c.n_targets, true),
                          gather(p.terms, p.n_lm * c.n_rows, false), memory.keep(p.factor)};
    std::vector<std::int32_t> count(n_atoms), neighbor(capacity, -9), interval(capacity, -9);
    std::vector<double> vector(3 * capacity, std::nan("")), distance(capacity, std::nan("")), inverse(distance);
    std::vector<Real> direction(3 * capacity, std::nanf("")), t(capacity, std::nanf("")), y(t);
    std::vector<Real> radial(capacity * p.width, Real(0)), slope(radial);
    for (int a = 0; a < n_atoms; ++a) {
      count[a] = static_cast<int>(p.bonds[a].size());
      for (int b = 0; b < count[a]; ++b) {
        const Bond& bond = p.bonds[a][b];
        const auto at = p.locate(bond.r, bond.rc);
        const std::size_t s = p.slot[a] + b;
        neighbor[s] = bond.neighbor;
        interval[s] = at.interval;
        for (int k = 0; k < 3; ++k) {
          vector[k * capacity + s] = bond.r[k];
          direction[k * capacity + s] = static_cast<Real>(at.u[k]);
        }
        distance[s] = at.d;
        inverse[s] = 1.0 / bond.rc;
        t[s] = static_cast<Real>(at.t);
        y[s] = static_cast<Real>(1.0 - at.x);
        for (int l = 0; l <= c.lmax; ++l)
          for (int n = 0; n < c.n_channels; ++n) {
            double R, dR;
            p.radial(at, l, n, R, dR);
            radial[s * p.width + l * p.stride + n] = static_cast<Real>(R);
            slope[s * p.width + l * p.stride + n] = static_cast<Real>(dR);
          }
      }
    }
    bonds.capacity = static_cast<std::int64_t>(capacity);
    bonds.count = keep(count);
    bonds.neighbor = keep(neighbor);
    bonds.vector = keep(vector);
    bonds.distance = keep(distance);
    bonds.inverse_cutoff = keep(inverse);
    bonds.direction = keep(direction);
    if (c.table) {
      layer.radial.n_intervals = p.intervals.inner + p.intervals.outer;
      layer.radial.intervals = p.intervals;
      layer.radial.n_coefficients = p.n_coefficients;
      layer.radial.coefficients = memory.keep(p.coefficients);
      bonds.interval = keep(interval);
      bonds.table_t = keep(t);
      bonds.table_y = keep(y);
    } else {
      bonds.radial = keep(radial);
      bonds.radial_slope = keep(slope);
    }
    gradient.upload(std::vector<double>(3 * capacity, 0.0));
    bonds.gradient = gradient.data();
    frame.owner = c.owner ? memory.keep(p.owner) : nullptr;
    chunk.n_atoms = n_atoms;
    chunk.species = memory.keep(p.species);
    chunk.slot = memory.keep(p.slot);
    chunk.n_slots = p.slot.back();
    message = memory.keep(p.message);
  }

  template <class T>
  T* keep(const std::vector<T>& values) {
    return const_cast<T*>(memory.keep(values));
  }
};

template <class T>
std::vector<T> download(EmulatedDevice& device, Buffer<EmulatedDevice, T>& buffer, std::size_t n) {
  std::vector<T> list(n);
  buffer.download(list.data(), n);
  device.synchronize();
  return list;
}

template <class Real>
void run_case(const Case& c, std::uint64_t seed, double tolerance) {
  Problem<Real> p(c, seed);
  Setup<Real> s(p, seed);
  const std::size_t atoms = p.bonds.size(), before = Setup<Real>::other_rows * p.stride * atoms;
  const std::size_t rows = static_cast<std::size_t>(c.n_targets) * p.stride * atoms;

  Buffer<EmulatedDevice, Real> values(s.device, "values"), gradients(s.device, "gradients"), gI(s.device, "gradients");
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
  Buffer<EmulatedDevice, std::int64_t> fixed(s.device, "sums");
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
  Buffer<EmulatedDevice, double> gradients(s.device, "gradients"), gI(s.device, "gradients");
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
    EmulatedDevice device(seed);
    grace::device::DeviceModelMemory<EmulatedDevice> memory(device);
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
      Buffer<EmulatedDevice, float> from(device, "values"), message(device, "message"), back(device, "values");
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
