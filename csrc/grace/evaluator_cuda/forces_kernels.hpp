// Kernel of scatter_forces.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/bonds.hpp"

namespace grace::gpu {

// A group of threads for the bonds of one atom: a sum of its own for the centre, atomics for the neighbours.
template <class Real>
struct ScatterForces {
  static constexpr const char* name = "scatter_forces";
  static constexpr int threads = 256;
  static constexpr int lanes = 32;  // of an atom
  static constexpr int atoms = threads / lanes;
  static constexpr int components = 12;           // force and virial of the centre
  static constexpr int spacing = components + 1;  // odd, so that lanes write to different banks
  using Private = device::NoPrivate;

  Frame frame;
  Chunk chunk;
  Bonds<Real> bonds;
  ForceSums sums;

  static constexpr std::size_t shared_bytes() { return device::shared_size<double>(threads * spacing); }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* partial = block.template shared<double>(threads * spacing);
    const int first_atom = static_cast<int>(block.x()) * atoms;
    const bool want_virial =
        sums.center_virial != nullptr || sums.atom_virial.data != nullptr || sums.centroid_virial.data != nullptr;
    block.each_thread([&](int thread, Private&) {
      const int a = first_atom + thread / lanes;
      if (a >= chunk.n_atoms) return;
      const std::int64_t c = bonds.capacity;
      double own[3] = {0.0, 0.0, 0.0}, virial[9] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
      for (int b = thread % lanes; b < bonds.count[a]; b += lanes) {
        const std::int64_t slot = std::int64_t{chunk.slot[a]} + b, j = bonds.neighbor[slot];
        const double f[3] = {-bonds.gradient[slot], -bonds.gradient[c + slot], -bonds.gradient[2 * c + slot]};
        for (int k = 0; k < 3; ++k) {
          own[k] -= f[k];
          sums.forces.add(3 * j + k, f[k]);
        }
        if (!want_virial) continue;
        for (int k = 0; k < 3; ++k)
          for (int m = 0; m < 3; ++m) {
            const double v = bonds.vector[k * c + slot] * f[m];
            virial[3 * k + m] += v;
            if (sums.atom_virial.data != nullptr) sums.atom_virial.add(9 * j + 3 * k + m, 0.5 * v);
            if (sums.centroid_virial.data != nullptr) sums.centroid_virial.add(9 * j + 3 * k + m, v);
          }
      }
      for (int k = 0; k < 3; ++k) partial[thread * spacing + k] = own[k];
      for (int k = 0; k < 9; ++k) partial[thread * spacing + 3 + k] = virial[k];
    });
    block.each_thread([&](int thread, Private&) {
      const int a = first_atom + thread / components, k = thread % components;
      if (thread >= atoms * components || a >= chunk.n_atoms || (k >= 3 && !want_virial)) return;
      const double* of_atom = partial + thread / components * lanes * spacing + k;
      double sum = 0.0;
      for (int lane = 0; lane < lanes; ++lane) sum += of_atom[lane * spacing];
      const std::int64_t i = chunk.centers[a];
      if (k < 3) {
        sums.forces.add(3 * i + k, sum);
        return;
      }
      if (sums.center_virial != nullptr) sums.center_virial[9 * i + k - 3] += sum;  // both layers add theirs
      if (sums.atom_virial.data != nullptr) sums.atom_virial.add(9 * i + k - 3, 0.5 * sum);
    });
  }
};

template <class Device, class Real>
void scatter_forces(Device& device, const Frame& frame, const Chunk& chunk, const Bonds<Real>& bonds,
                    const ForceSums& sums) {
  using Kernel = ScatterForces<Real>;
  device.launch(Kernel{frame, chunk, bonds, sums}, {device::blocks_for(chunk.n_atoms, Kernel::atoms), 1},
                Kernel::shared_bytes());
}

}  // namespace grace::gpu
