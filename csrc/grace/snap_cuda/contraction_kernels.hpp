// B of every atom, and Y.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/math/scalar_pack.hpp"
#include "grace/snap_cuda/kernels.hpp"

namespace grace::snap {

// What the contractions share: the full matrices of the atoms of a block in shared memory, [n_full][atoms], and the
// streams of terms.
template <int atoms>
struct Contraction {
  static constexpr int threads = contraction_threads;

  DevicePlan plan;
  StreamTable table;
  std::int64_t n_atoms;
  const Complex* densities;

  GRACE_DEVICE void expand(std::int64_t first_atom, int thread, Complex* U) const {
    for (int k = thread; k < plan.n_full * atoms; k += threads) {
      const std::int64_t atom = first_atom + k % atoms;
      const Mirror mirror = plan.mirrors[k / atoms];
      Complex u{0.0, 0.0};
      if (atom < n_atoms) u = densities[atom * plan.n_half + mirror.half];
      U[k] = {u.r * mirror.sign, u.i * mirror.imaginary};
    }
  }

  // Calls element(e, z_r, z_i) at the end of each element e of the thread's stream. A term waits for no load: the term
  // after the next, and the operands of the next, are on their way meanwhile.
  template <class AtEnd>
  GRACE_DEVICE void run_stream(int block, int thread, const Complex* U, AtEnd element) const {
    const int stream = block * (threads / atoms) + thread / atoms;
    const auto first = [&](const StreamTerm& term) { return U[term.first * atoms + thread % atoms]; };
    const auto second = [&](const StreamTerm& term) { return U[(term.second & ~last_term) * atoms + thread % atoms]; };
    const StreamElement* e = table.elements + table.first_element[stream];
    const StreamTerm* t = table.terms + table.first_term[stream];
    const StreamTerm* const end = table.terms + table.first_term[stream + 1];
    StreamTerm term = t[0], next = t[1];
    Complex u = first(term), v = second(term);
    math::SnapSums<math::ScalarPack<double>> sums{0.0, 0.0, 0.0, 0.0};
    for (; t < end; ++t) {
      const StreamTerm after_next = t[terms_ahead];
      const Complex next_u = first(next), next_v = second(next);
      const double left[2] = {u.r, u.i}, right[2] = {v.r, v.i};
      math::snap_term(term.coefficient, left, right, sums);
      if ((term.second & last_term) != 0) {
        element(*e++, sums.rr - sums.ii, sums.ri + sums.ir);
        sums = {0.0, 0.0, 0.0, 0.0};
      }
      term = next;
      next = after_next;
      u = next_u;
      v = next_v;
    }
  }
};

template <int atoms>
struct SnapBispectrum : Contraction<atoms> {
  static constexpr const char* name = "snap_bispectrum";
  static constexpr int threads = contraction_threads;
  static constexpr int min_blocks = 3;
  using Private = device::NoPrivate;
  using Contraction<atoms>::plan;
  using Contraction<atoms>::table;
  using Contraction<atoms>::n_atoms;

  double* features;

  SnapBispectrum(const DevicePlan& of, std::int64_t n, const Complex* densities, double* to)
      : Contraction<atoms>{of, of.value, n, densities}, features(to) {}

  std::size_t shared_bytes() const {
    return device::shared_size<Complex>(plan.n_full * atoms) + device::shared_size<double>(table.n_slots * atoms);
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t first_atom = std::int64_t{block.x()} * atoms;
    const int part = static_cast<int>(block.y());
    const int first_place = table.first_place[part], last_place = table.first_place[part + 1];
    const int first_slot = table.first_slot[first_place];
    Complex* U = block.template shared<Complex>(plan.n_full * atoms);
    double* slots = block.template shared<double>(table.n_slots * atoms);
    block.each_thread([&](int thread, device::NoPrivate&) { this->expand(first_atom, thread, U); });
    block.each_thread([&](int thread, device::NoPrivate&) {
      const int atom = thread % atoms;
      double sum = 0.0;
      this->run_stream(part, thread, U, [&](const StreamElement& e, double z_r, double z_i) {
        const Complex u = U[e.source * atoms + atom];
        sum += e.factor * (u.r * z_r + u.i * z_i);
        if (e.slot < 0) return;
        slots[(e.slot - first_slot) * atoms + atom] = sum;
        sum = 0.0;
      });
    });
    block.each_thread([&](int thread, device::NoPrivate&) {
      const int n = last_place - first_place;
      for (int k = thread; k < n * atoms; k += threads) {
        const int f = first_place + k % n, atom = k / n;
        if (first_atom + atom >= n_atoms) continue;
        double sum = 0.0;
        for (int s = table.first_slot[f]; s < table.first_slot[f + 1]; ++s)
          sum += slots[(s - first_slot) * atoms + atom];
        features[(first_atom + atom) * plan.n_features + f] = sum;
      }
    });
  }
};

template <int atoms>
struct SnapAdjoints : Contraction<atoms> {
  static constexpr const char* name = "snap_adjoints";
  static constexpr int threads = contraction_threads;
  static constexpr int min_blocks = 3;
  using Private = device::NoPrivate;
  using Contraction<atoms>::plan;
  using Contraction<atoms>::table;
  using Contraction<atoms>::n_atoms;

  const double* beta;
  Complex* adjoints;

  SnapAdjoints(const DevicePlan& of, std::int64_t n, const Complex* densities, const double* weights, Complex* to)
      : Contraction<atoms>{of, of.adjoint, n, densities}, beta(weights), adjoints(to) {}

  std::size_t shared_bytes() const {
    return device::shared_size<Complex>(plan.n_full * atoms) + device::shared_size<Complex>(table.n_slots * atoms) +
           device::shared_size<double>(plan.n_features * atoms);
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const std::int64_t first_atom = std::int64_t{block.x()} * atoms;
    const int part = static_cast<int>(block.y());
    const int first_place = table.first_place[part], last_place = table.first_place[part + 1];
    const int first_slot = table.first_slot[first_place];
    Complex* U = block.template shared<Complex>(plan.n_full * atoms);
    Complex* slots = block.template shared<Complex>(table.n_slots * atoms);
    double* weights = block.template shared<double>(plan.n_features * atoms);
    block.each_thread([&](int thread, device::NoPrivate&) {
      this->expand(first_atom, thread, U);
      for (int k = thread; k < plan.n_features * atoms; k += threads) {
        const int f = k % plan.n_features, atom = k / plan.n_features;
        weights[f * atoms + atom] = first_atom + atom < n_atoms ? beta[(first_atom + atom) * plan.n_features + f] : 0.0;
      }
    });
    block.each_thread([&](int thread, device::NoPrivate&) {
      const int atom = thread % atoms;
      Complex sum{0.0, 0.0};
      this->run_stream(part, thread, U, [&](const StreamElement& e, double z_r, double z_i) {
        const double factor = e.factor * weights[e.source * atoms + atom];
        sum.r += factor * z_r;
        sum.i += factor * z_i;
        if (e.slot < 0) return;
        slots[(e.slot - first_slot) * atoms + atom] = sum;
        sum = {0.0, 0.0};
      });
    });
    block.each_thread([&](int thread, device::NoPrivate&) {
      for (int k = thread; k < plan.n_half * atoms; k += threads) {
        const int h = k % plan.n_half, atom = k / plan.n_half;
        const Mirror from = plan.adjoints[h];
        if (first_atom + atom >= n_atoms || from.half < first_place || from.half >= last_place) continue;
        Complex sum{0.0, 0.0};
        for (int s = table.first_slot[from.half]; s < table.first_slot[from.half + 1]; ++s) {
          sum.r += slots[(s - first_slot) * atoms + atom].r;
          sum.i += slots[(s - first_slot) * atoms + atom].i;
        }
        const double norm = plan.norms[h];
        adjoints[(first_atom + atom) * plan.n_half + h] = {norm * from.sign * sum.r, norm * from.imaginary * sum.i};
      }
    });
  }
};

// The kernel with as many atoms in a block as fit, over all atoms.
template <template <int> class Kernel, class Device, class... Arguments>
void launch_contraction(Device& device, const DevicePlan& plan, std::int64_t n_atoms, Arguments... arguments) {
  const auto launch = [&](const auto& kernel, int atoms) {
    device.launch(kernel, {device::blocks_for(static_cast<std::size_t>(n_atoms), atoms), contraction_blocks},
                  kernel.shared_bytes());
  };
  if (plan.twojmax <= low_levels)
    launch(Kernel<low_levels_atoms>(plan, n_atoms, arguments...), low_levels_atoms);
  else
    launch(Kernel<max_levels_atoms>(plan, n_atoms, arguments...), max_levels_atoms);
}

template <class Device>
void bispectrum(Device& device, const DevicePlan& plan, std::int64_t n_atoms, const Complex* densities,
                double* features) {
  launch_contraction<SnapBispectrum>(device, plan, n_atoms, densities, features);
}

template <class Device>
void adjoints(Device& device, const DevicePlan& plan, std::int64_t n_atoms, const Complex* densities,
              const double* beta, Complex* adjoints) {
  launch_contraction<SnapAdjoints>(device, plan, n_atoms, densities, beta, adjoints);
}

}  // namespace grace::snap
