// A message basis in plain numbers, the loops that say what it is, and its copy on the device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "grace/evaluator_cuda/message_basis.hpp"
#include "grace/plan/harmonics_table.hpp"
#include "test_target.hpp"

namespace message_test {

using namespace grace::gpu;
using grace::device::Buffer;
using test_target::TestDevice;

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

// The problem on a device.
template <class Real>
struct Setup {
  TestDevice device;
  grace::device::DeviceModelMemory<TestDevice> memory;
  LayerPlan<Real> layer;
  Frame frame;
  Chunk chunk;
  Bonds<Real> bonds;
  const Real* message;
  Buffer<TestDevice, double> gradient;
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

  Setup(const Problem<Real>& p, std::uint64_t seed)
      : device(test_target::order(seed)), memory(device), gradient(device, "gradient") {
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

}  // namespace message_test
