// Atoms, neighbour rows and a radial network or table in plain numbers; the loops that say what bonds and the
// single-particle basis are; and the copy of all that on the device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "grace/evaluator_cuda/basis.hpp"
#include "grace/neighbors.hpp"
#include "grace/plan/harmonics_table.hpp"
#include "test_target.hpp"

namespace basis_test {

using namespace grace::gpu;
using grace::device::Buffer;
using test_target::TestDevice;

struct Case {
  int lmax, n_channels, n_elements;
  std::vector<int> rows;    // length of the neighbour row of every centre
  int n_coefficients;       // of the table, 0: exact network
  std::vector<int> hidden;  // widths of the exact network's hidden layers
  bool is_tanh, shifts;
};

struct Bond {
  int neighbor, species;
  std::int64_t entry;  // of the list
  double r[3], d, u[3], x, rc;
  int interval;
  double rate, t;
};

// Numbers that the kernels read as Real are rounded to Real.
template <class Real>
struct Problem {
  Case c;
  int n_lm, stride, width, n_centers, n_all, n_structures = 2;
  static constexpr int n_basis = 6, envelope_order = 5;
  grace::plan::TableIntervals intervals{3, 5};
  std::vector<Real> coefficients;
  std::vector<std::vector<double>> weights;  // [layer][n_in][n_out], outputs of the last one [l][channel]
  std::vector<int> widths;
  std::vector<double> positions, cells, cutoffs;
  std::vector<std::int32_t> species, neighbor, shift, structure, centers, slot;
  std::vector<std::int64_t> first{0};
  std::vector<Real> chemical, factor;
  std::mt19937 random;

  double uniform(double low = -1.0, double high = 1.0) {
    return std::uniform_real_distribution<double>(low, high)(random);
  }

  Problem(const Case& wanted, std::uint64_t seed)
      : c(wanted),
        n_lm((c.lmax + 1) * (c.lmax + 1)),
        stride(padded_channels(c.n_channels)),
        width((c.lmax + 1) * stride),
        n_centers(static_cast<int>(c.rows.size())),
        n_all(n_centers + 5),  // the last ones are ghosts
        random(static_cast<unsigned>(seed + 11)) {
    const int n_intervals = intervals.inner + intervals.outer;
    coefficients.assign(static_cast<std::size_t>(n_intervals) * c.n_coefficients * width, Real(0));
    for (std::size_t i = 0; i < coefficients.size(); ++i)
      if (static_cast<int>(i) % stride < c.n_channels) coefficients[i] = static_cast<Real>(uniform());
    widths.push_back(n_basis);
    for (int w : c.hidden) widths.push_back(w);
    widths.push_back(width);
    for (std::size_t k = 0; k + 1 < widths.size(); ++k) {
      weights.emplace_back(static_cast<std::size_t>(widths[k]) * widths[k + 1], 0.0);
      const bool last = k + 2 == widths.size();
      for (std::size_t i = 0; i < weights[k].size(); ++i)
        if (!last || static_cast<int>(i % widths[k + 1]) % stride < c.n_channels)
          weights[k][i] = static_cast<double>(static_cast<Real>(uniform() / std::sqrt(widths[k])));
    }
    for (int i = 0; i < n_all; ++i) {
      for (int k = 0; k < 3; ++k) positions.push_back(uniform(-2.0, 2.0));
      species.push_back(random() % 7 == 0 ? -1 : static_cast<int>(random() % c.n_elements));
    }
    for (int i = 0; i < n_centers; ++i) {
      if (species[i] < 0) species[i] = static_cast<int>(random() % c.n_elements);
      structure.push_back(static_cast<int>(random() % n_structures));
    }
    for (int k = 0; k < 9 * n_structures; ++k) cells.push_back(uniform(-0.5, 0.5) + (k % 9 % 4 == 0 ? 4.0 : 0.0));
    for (int k = 0; k < c.n_elements * c.n_elements; ++k) cutoffs.push_back(uniform(3.0, 5.0));
    for (int i = 0; i < n_centers; ++i) {
      for (int b = 0; b < c.rows[i]; ++b) {
        // Close atoms only, where the harmonics are steep, would hide errors elsewhere.
        std::int32_t j;
        int s[3] = {0, 0, 0};
        double r[3];
        do {
          j = static_cast<std::int32_t>(random() % n_all);
          if (c.shifts)
            for (int& k : s) k = static_cast<int>(random() % 3) - 1;
          vector_to(i, j, s, r);
        } while (!(r[0] * r[0] + r[1] * r[1] + r[2] * r[2] > 0.09));
        neighbor.push_back(j);
        shift.push_back(grace::pack_shift(s[0], s[1], s[2]));
      }
      first.push_back(static_cast<std::int64_t>(neighbor.size()));
    }
    chemical.assign(static_cast<std::size_t>(c.n_elements) * stride, Real(0));
    for (int e = 0; e < c.n_elements; ++e) {
      for (int n = 0; n < c.n_channels; ++n) chemical[e * stride + n] = static_cast<Real>(uniform());
      factor.push_back(static_cast<Real>(uniform(0.05, 0.2)));
    }
    // A chunk of every centre but one, sorted by element.
    for (int i = 0; i < n_centers; ++i)
      if (i != 1) centers.push_back(i);
    std::stable_sort(centers.begin(), centers.end(), [&](int a, int b) { return species[a] < species[b]; });
    slot.push_back(0);
    for (int i : centers) slot.push_back(slot.back() + c.rows[i]);
  }

  void vector_to(int i, int j, const int* s, double* r) const {
    for (int k = 0; k < 3; ++k) {
      r[k] = positions[3 * j + k] - positions[3 * i + k];
      for (int m = 0; m < 3; ++m) r[k] += s[m] * cells[9 * structure[i] + 3 * m + k];
    }
  }

  std::vector<Bond> bonds_of(int i) const {
    std::vector<Bond> list;
    for (std::int64_t p = first[i]; p < first[i + 1]; ++p) {
      Bond b{};
      b.neighbor = neighbor[p];
      b.species = species[b.neighbor];
      b.entry = p;
      if (b.species < 0) continue;
      int s[3];
      grace::unpack_shift(shift[p], s[0], s[1], s[2]);
      vector_to(i, b.neighbor, s, b.r);
      b.rc = cutoffs[species[i] * c.n_elements + b.species];
      b.d = std::sqrt(b.r[0] * b.r[0] + b.r[1] * b.r[1] + b.r[2] * b.r[2] + 1e-10);
      if (!(b.d < b.rc)) continue;
      for (int k = 0; k < 3; ++k) b.u[k] = b.r[k] / b.d;
      b.x = b.d / b.rc;
      double start;
      intervals.locate(b.x, b.interval, b.rate, start);
      b.t = b.rate * b.x + start;
      list.push_back(b);
    }
    return list;
  }

  // R and dR/dx, [l][stride]
  void radial(const Bond& b, std::vector<double>& R, std::vector<double>& dR) const {
    if (c.n_coefficients == 0) return network(b.x, R, dR);
    R.assign(width, 0.0);
    dR.assign(width, 0.0);
    const double y = 1.0 - b.x;
    for (int l = 0; l <= c.lmax; ++l)
      for (int n = 0; n < stride; ++n) {
        double sum = 0.0, derivative = 0.0;
        for (int d = 0; d < c.n_coefficients; ++d) {
          const std::size_t row = (static_cast<std::size_t>(b.interval) * (c.lmax + 1) + l) * c.n_coefficients + d;
          const double k = static_cast<double>(coefficients[row * stride + n]);
          sum += k * std::pow(b.t, d);
          if (d > 0) derivative += k * d * b.rate * std::pow(b.t, d - 1);
        }
        R[l * stride + n] = y * y * y * sum;
        dR[l * stride + n] = y * y * y * derivative - 3.0 * y * y * sum;
      }
  }

  void network(double x, std::vector<double>& h, std::vector<double>& dh) const {
    const double p = envelope_order, theta = std::acos(2.0 * x - 1.0);
    const double f = 1.0 - 0.5 * (p + 1) * (p + 2) * std::pow(x, p) + p * (p + 2) * std::pow(x, p + 1) -
                     0.5 * p * (p + 1) * std::pow(x, p + 2);
    const double df = -0.5 * p * (p + 1) * (p + 2) * std::pow(x, p - 1) * (1.0 - x) * (1.0 - x);
    h.assign(n_basis, 0.0);
    dh.assign(n_basis, 0.0);
    for (int k = 1; k <= n_basis; ++k) {
      h[k - 1] = std::cos(k * theta) * f;
      dh[k - 1] = 2.0 * k * std::sin(k * theta) / std::sin(theta) * f + std::cos(k * theta) * df;
    }
    for (std::size_t layer = 0; layer < weights.size(); ++layer) {
      const int K = widths[layer], N = widths[layer + 1];
      std::vector<double> next(N, 0.0), dnext(N, 0.0);
      for (int i = 0; i < K; ++i)
        for (int o = 0; o < N; ++o) {
          next[o] += h[i] * weights[layer][static_cast<std::size_t>(i) * N + o];
          dnext[o] += dh[i] * weights[layer][static_cast<std::size_t>(i) * N + o];
        }
      for (int o = 0; o < N && layer + 1 < weights.size(); ++o) {
        const double s = 1.0 / (1.0 + std::exp(-next[o])), tanh = std::tanh(next[o]);
        dnext[o] *= c.is_tanh ? 1.0 - tanh * tanh : s + next[o] * s * (1.0 - s);
        next[o] = c.is_tanh ? tanh : next[o] * s;
      }
      h = next;
      dh = dnext;
    }
  }

  // A[lm][atom][stride]
  std::vector<double> forward() const {
    const auto table = grace::plan::harmonics_table<double>(c.lmax);
    const std::size_t n_atoms = centers.size();
    std::vector<double> A(n_lm * n_atoms * stride, 0.0), Y(n_lm), R, dR;
    for (std::size_t a = 0; a < n_atoms; ++a)
      for (const Bond& b : bonds_of(centers[a])) {
        radial(b, R, dR);
        grace::math::spherical_harmonics<false>(table, b.u[0], b.u[1], b.u[2], Y.data(), static_cast<double*>(nullptr));
        for (int lm = 0; lm < n_lm; ++lm)
          for (int n = 0; n < stride; ++n)
            A[(lm * n_atoms + a) * stride + n] += static_cast<double>(factor[species[centers[a]]]) *
                                                  R[degree(lm) * stride + n] * Y[lm] *
                                                  static_cast<double>(chemical[b.species * stride + n]);
      }
    return A;
  }
  static int degree(int lm) { return static_cast<int>(std::sqrt(lm + 0.5)); }

  // dE/dr of every bond, [3][capacity], from g = dE/dA. NaN where there is no bond.
  std::vector<double> adjoint(const std::vector<Real>& g, std::int64_t capacity) const {
    const auto table = grace::plan::harmonics_table<double>(c.lmax);
    const std::size_t n_atoms = centers.size();
    std::vector<double> gradient(3 * capacity, std::nan("")), Y(n_lm), dY(3 * n_lm), R, dR;
    for (std::size_t a = 0; a < n_atoms; ++a) {
      std::int64_t s = slot[a];
      for (const Bond& b : bonds_of(centers[a])) {
        radial(b, R, dR);
        grace::math::spherical_harmonics<true>(table, b.u[0], b.u[1], b.u[2], Y.data(), dY.data());
        double slope = 0.0, f[3] = {};
        for (int lm = 0; lm < n_lm; ++lm)
          for (int n = 0; n < stride; ++n) {
            const double w = static_cast<double>(factor[species[centers[a]]]) *
                             static_cast<double>(chemical[b.species * stride + n]) *
                             static_cast<double>(g[(lm * n_atoms + a) * stride + n]);
            slope += w * dR[degree(lm) * stride + n] * Y[lm];
            for (int k = 0; k < 3; ++k) f[k] += w * R[degree(lm) * stride + n] * dY[3 * lm + k];
          }
        const double along = f[0] * b.u[0] + f[1] * b.u[1] + f[2] * b.u[2];
        for (int k = 0; k < 3; ++k) gradient[k * capacity + s] = slope / b.rc * b.u[k] + (f[k] - along * b.u[k]) / b.d;
        ++s;
      }
    }
    return gradient;
  }
};

// The problem on a device, with the bonds collected.
template <class Real>
struct Setup {
  TestDevice device;
  grace::device::DeviceModelMemory<TestDevice> memory;
  LayerPlan<Real> layer;
  Frame frame;
  Chunk chunk;
  BondStorage<TestDevice, Real> storage;
  Buffer<TestDevice, StepFlags> flags;
  static constexpr std::size_t other_rows = 3;  // of another tensor, before A in the arena

  Setup(const Problem<Real>& p, std::uint64_t seed)
      : device(test_target::order(seed)), memory(device), storage(device), flags(device, "flags") {
    const Case& c = p.c;
    RadialPlan<Real>& radial = layer.radial;
    radial.lmax = c.lmax;
    radial.n_channels = c.n_channels;
    radial.stride = p.stride;
    radial.width = p.width;
    if (c.n_coefficients > 0) {
      radial.intervals = p.intervals;
      radial.n_intervals = p.intervals.inner + p.intervals.outer;
      radial.n_coefficients = c.n_coefficients;
      radial.coefficients = memory.keep(p.coefficients);
    }
    radial.n_basis = p.n_basis;
    radial.envelope_order = p.envelope_order;
    radial.is_tanh = c.is_tanh;
    radial.n_layers = static_cast<int>(p.weights.size());
    for (int k = 0; k < radial.n_layers; ++k) {
      radial.layer_in[k] = p.widths[k];
      radial.layer_out[k] = p.widths[k + 1];
      radial.layer_weights[k] = memory.keep(std::vector<Real>(p.weights[k].begin(), p.weights[k].end()));
      radial.widest = std::max(radial.widest, p.widths[k]);
    }
    layer.harmonics = grace::plan::harmonics_table<Real>(c.lmax);
    layer.n_harmonics = p.n_lm;
    layer.basis = 1;
    layer.slots = {{static_cast<int>(other_rows), c.n_channels, p.stride, 0},
                   {p.n_lm, c.n_channels, p.stride, other_rows * p.stride}};
    layer.chemical = memory.keep(p.chemical);
    layer.basis_factor = memory.keep(p.factor);
    frame.positions = memory.keep(p.positions);
    frame.species = memory.keep(p.species);
    frame.first = memory.keep(p.first);
    frame.neighbor = memory.keep(p.neighbor);
    frame.pair_cutoffs = memory.keep(p.cutoffs);
    frame.n_elements = c.n_elements;
    if (c.shifts) {
      frame.shift = memory.keep(p.shift);
      frame.cells = memory.keep(p.cells);
      frame.structure = memory.keep(p.structure);
    }
    std::vector<std::int32_t> species;
    for (int i : p.centers) species.push_back(p.species[i]);
    chunk.n_atoms = static_cast<int>(p.centers.size());
    chunk.centers = memory.keep(p.centers);
    chunk.species = memory.keep(species);
    chunk.slot = memory.keep(p.slot);
    chunk.n_slots = p.slot.back();
    storage.reserve(chunk.n_atoms, chunk.n_slots, radial);
    flags.upload(std::vector<StepFlags>(1));
    collect_bonds(device, frame, chunk, radial, storage.bonds(), flags.data());
  }

  template <class T>
  std::vector<T> read(const T* from, std::size_t n) {
    return test_target::read(device, from, n);
  }
};

}  // namespace basis_test
