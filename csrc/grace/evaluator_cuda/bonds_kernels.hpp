// Kernels of bonds.hpp: collection of the bonds; those of forces and of the exact network are in forces_kernels.hpp and
// radial_kernels.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/bonds.hpp"
#include "grace/evaluator_cuda/forces_kernels.hpp"
#include "grace/evaluator_cuda/radial_kernels.hpp"
#include "grace/math/geometry.hpp"

namespace grace::gpu {

constexpr double bond_regulariser = 1e-10;  // A^2, under the root of every bond length (docs/theory.md, Bonds)

GRACE_DEVICE std::uint32_t float_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// A group of threads walks the neighbour row of one atom, as many entries at a time as it has threads. Every thread
// counts the accepted entries before its own, so bonds keep the order of the row whatever the order of the threads.
template <class Real>
struct CollectBonds {
  static constexpr const char* name = "collect_bonds";
  static constexpr int threads = 256;
  static constexpr int lanes = 64;  // of an atom: most rows take one or two turns
  static constexpr int atoms = threads / lanes;
  static constexpr int words = lanes / 4;  // four flags in each
  struct Private {
    double r[3];
    double r2, cutoff;
    std::int32_t neighbor, species;
    std::int32_t used;  // bonds of the atom so far
    bool accepted;
    std::uint64_t closest;
  };

  Frame frame;
  Chunk chunk;
  Bonds<Real> bonds;
  plan::TableIntervals intervals;
  bool table;
  StepFlags* flags;

  static constexpr std::size_t shared_bytes() {
    return device::shared_size<std::uint32_t>(atoms * words) + device::shared_size<std::uint64_t>(threads);
  }

  GRACE_DEVICE void test(std::int64_t center, std::int32_t element, std::int64_t entry, Private& own) const {
    own.accepted = false;
    if (entry >= frame.first[center + 1]) return;
    own.neighbor = frame.neighbor[entry];
    own.species = frame.species[own.neighbor];
    if (own.species < 0) return;
    double offset[3] = {0.0, 0.0, 0.0};
    if (frame.shift != nullptr) {
      const std::int32_t s = frame.shift[entry];
      const double* cell = frame.cells + 9 * std::int64_t{frame.structure == nullptr ? 0 : frame.structure[center]};
      math::image_offset((s & 1023) - 512, ((s >> 10) & 1023) - 512, ((s >> 20) & 1023) - 512, cell, offset);
    }
    math::pair_vector(frame.positions + 3 * center, frame.positions + 3 * std::int64_t{own.neighbor}, offset, own.r);
    own.r2 = math::dot3(own.r, own.r);
    own.cutoff = frame.pair_cutoffs[std::int64_t{element} * frame.n_elements + own.species];
    own.accepted = own.r2 + bond_regulariser < own.cutoff * own.cutoff;
    if (!own.accepted) return;
    const std::uint64_t largest = 0xffffffffu;
    const std::uint64_t at = static_cast<std::uint64_t>(entry) < largest ? static_cast<std::uint64_t>(entry) : largest;
    const std::uint64_t pair = std::uint64_t{float_bits(static_cast<float>(own.r2))} << 32 | at;
    if (pair < own.closest) own.closest = pair;
  }

  GRACE_DEVICE void store(std::int64_t slot, const Private& own) const {
    const std::int64_t c = bonds.capacity;
    const double d = std::sqrt(own.r2 + bond_regulariser), inverse = 1.0 / d, inverse_cutoff = 1.0 / own.cutoff;
    bonds.neighbor[slot] = own.neighbor;
    bonds.species[slot] = own.species;
    bonds.distance[slot] = d;
    bonds.inverse_cutoff[slot] = inverse_cutoff;
    for (int k = 0; k < 3; ++k) {
      bonds.vector[k * c + slot] = own.r[k];
      bonds.direction[k * c + slot] = static_cast<Real>(own.r[k] * inverse);
      bonds.gradient[k * c + slot] = 0.0;
    }
    int interval = 0;
    if (table) {
      const double x = d * inverse_cutoff;
      double rate, start;
      intervals.locate(x, interval, rate, start);
      bonds.table_t[slot] = static_cast<Real>(rate * x + start);
      bonds.table_y[slot] = static_cast<Real>(1.0 - x);
    }
    bonds.interval[slot] = interval;
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    std::uint32_t* accepted = block.template shared<std::uint32_t>(atoms * words);  // a byte for every thread
    std::uint64_t* closest = block.template shared<std::uint64_t>(threads);
    const int first_atom = static_cast<int>(block.x()) * atoms;
    std::int64_t longest = 0;
    for (int a = first_atom; a < first_atom + atoms && a < chunk.n_atoms; ++a) {
      const std::int64_t center = chunk.centers[a], length = frame.first[center + 1] - frame.first[center];
      if (length > longest) longest = length;
    }
    block.each_thread([&](int, Private& own) {
      own.used = 0;
      own.closest = ~std::uint64_t{0};
    });
    for (std::int64_t begin = 0; begin < longest; begin += lanes) {
      block.each_thread([&](int thread, Private& own) {
        const int a = first_atom + thread / lanes;
        own.accepted = false;
        if (a < chunk.n_atoms) {
          const std::int64_t center = chunk.centers[a];
          test(center, chunk.species[a], frame.first[center] + begin + thread % lanes, own);
        }
        reinterpret_cast<unsigned char*>(accepted)[thread] = own.accepted ? 1 : 0;
      });
      block.each_thread([&](int thread, Private& own) {
        const int a = first_atom + thread / lanes, lane = thread % lanes;
        if (a >= chunk.n_atoms) return;
        // Sums of four flags at a time: no byte of them exceeds the number of words.
        const std::uint32_t* of_atom = accepted + thread / lanes * words;
        std::uint32_t before = 0, all = 0;
        for (int w = 0; w < words; ++w) {
          const std::uint32_t four = of_atom[w];
          all += four;
          if (w < lane / 4) before += four;
          if (w == lane / 4) before += four & ((1u << 8 * (lane % 4)) - 1u);
        }
        const int position = own.used + static_cast<int>(before * 0x01010101u >> 24);
        own.used += static_cast<int>(all * 0x01010101u >> 24);
        if (own.accepted) store(std::int64_t{chunk.slot[a]} + position, own);
      });
    }
    block.each_thread([&](int thread, Private& own) {
      closest[thread] = own.closest;
      const int a = first_atom + thread / lanes, lane = thread % lanes;
      if (a >= chunk.n_atoms) return;
      if (lane == 0) bonds.count[a] = own.used;
      for (int slot = chunk.slot[a] + own.used + lane; slot < chunk.slot[a + 1]; slot += lanes)
        bonds.interval[slot] = -1;
    });
    block.each_thread([&](int thread, Private& own) {
      if (thread >= atoms) return;
      for (int lane = 0; lane < lanes; ++lane)
        if (closest[lane * atoms + thread] < own.closest) own.closest = closest[lane * atoms + thread];
      if (own.closest != ~std::uint64_t{0}) device::atomic_min(&flags->closest, own.closest);
    });
  }
};

template <class Device, class Real>
void collect_bonds(Device& device, const Frame& frame, const Chunk& chunk, const RadialPlan<Real>& radial,
                   const Bonds<Real>& bonds, StepFlags* flags) {
  using Kernel = CollectBonds<Real>;
  const bool table = radial.n_intervals > 0;
  device.launch(Kernel{frame, chunk, bonds, radial.intervals, table, flags},
                {device::blocks_for(chunk.n_atoms, Kernel::atoms), 1}, Kernel::shared_bytes());
  if (!table) exact_radial(device, chunk, radial, bonds);
}

template <class Device, class Real>
BondStorage<Device, Real>::BondStorage(Device& device)
    : integers_(device, "the bonds"), doubles_(device, "the bonds"), reals_(device, "the bonds") {}

template <class Device, class Real>
typename BondStorage<Device, Real>::Size BondStorage<Device, Real>::size_for(int n_atoms, std::int64_t n_slots,
                                                                             const RadialPlan<Real>& radial) const {
  Size size;
  size.atoms = std::max({size_.atoms, n_atoms, 1});
  size.exact_width = std::max(size_.exact_width, radial.n_intervals > 0 ? 0 : radial.width);
  // A fifth more than asked for, because slots change from list to list; whole vectors between components.
  const bool fits = n_slots <= size_.slots && size_.slots > 0;
  size.slots = fits ? size_.slots : (std::max<std::int64_t>(n_slots + n_slots / 5, 1) + 7) / 8 * 8;
  return size;
}

template <class Device, class Real>
bool BondStorage<Device, Real>::reserve(int n_atoms, std::int64_t n_slots, const RadialPlan<Real>& radial) {
  const Size size = size_for(n_atoms, n_slots, radial);
  if (size.atoms == size_.atoms && size.slots == size_.slots && size.exact_width == size_.exact_width) return false;
  const std::int64_t c = size.slots, exact_width = size.exact_width;
  size_ = Size();  // should the memory not suffice
  integers_.reserve(size.integers());
  doubles_.reserve(size.doubles());
  reals_.reserve(size.reals());
  size_ = size;
  bonds_.capacity = c;
  bonds_.neighbor = integers_.data();
  bonds_.species = bonds_.neighbor + c;
  bonds_.interval = bonds_.species + c;
  bonds_.count = bonds_.interval + c;
  bonds_.vector = doubles_.data();
  bonds_.distance = bonds_.vector + 3 * c;
  bonds_.inverse_cutoff = bonds_.distance + c;
  bonds_.gradient = bonds_.inverse_cutoff + c;
  bonds_.direction = reals_.data();
  bonds_.table_t = bonds_.direction + 3 * c;
  bonds_.table_y = bonds_.table_t + c;
  if (exact_width > 0) {
    bonds_.radial = bonds_.table_y + c;
    bonds_.radial_slope = bonds_.radial + exact_width * c;
  }
  return true;
}

template <class Device, class Real>
std::size_t BondStorage<Device, Real>::bytes() const {
  return integers_.size() * sizeof(std::int32_t) + doubles_.size() * sizeof(double) + reals_.size() * sizeof(Real);
}

template <class Device, class Real>
std::size_t BondStorage<Device, Real>::bytes_for(int n_atoms, std::int64_t n_slots,
                                                 const RadialPlan<Real>& radial) const {
  const Size size = size_for(n_atoms, n_slots, radial);
  return size.integers() * sizeof(std::int32_t) + size.doubles() * sizeof(double) + size.reals() * sizeof(Real);
}

}  // namespace grace::gpu
