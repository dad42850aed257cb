// DeviceEvaluator: memory of a step.
#pragma once

#include <algorithm>
#include <string>

#include "grace/device/failure.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/device_evaluator.hpp"

namespace grace::gpu {

// Units of sums in fixed point (option `deterministic`), per eV and A.
constexpr double force_scale = 68719476736.0;      // 2^36
constexpr double message_scale = 1099511627776.0;  // 2^40

// All memory of the step, so that nothing is allocated while it runs. What belongs to the atoms of the system comes
// first: what is left bounds the chunk.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::reserve() {
  reserve_atoms();
  reserve_chunk();
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::reserve_atoms() {
  const Geometry& g = *geometry_;
  const auto roomy = [this](auto& buffer, std::size_t n) {
    if (buffer.reserve_roomy(n)) ++epoch_;
  };
  const std::size_t n = g.n_atoms, n_densities = plan_.readout.n_densities;
  if (plan_.layers.size() > 1) {
    const std::size_t numbers = (g.owner != nullptr ? g.n_centers : n) * static_cast<std::size_t>(message_width());
    roomy(message_, numbers);
    roomy(densities_, g.n_centers * n_densities);
    if (adjoint()) {
      roomy(message_gradient_, numbers);
      if (options_.deterministic) roomy(message_sums_, numbers);
      roomy(density_gradients_, g.n_centers * n_densities);
    }
  }
  if (flags_.reserve(1)) ++epoch_;
  if (closest_.reserve(1)) ++epoch_;
  if (g.space == MemorySpace::host) roomy(energies_, g.n_centers);
  if (!adjoint()) return;
  roomy(forces_, 3 * n);
  if (options_.deterministic) roomy(finished_, 9 * n);
  if (results_->virial != nullptr) {
    roomy(center_virial_, 9 * g.n_centers);
    roomy(partial_virial_, 9 * (host_pieces_.size() + g.n_structures));
  }
  if (results_->atom_virial != nullptr) roomy(atom_virial_, 9 * n);
  if (results_->centroid_virial != nullptr) roomy(centroid_virial_, 9 * n);
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::reserve_chunk() {
  const Schedule& first = chunks_differ_ ? first_chunks_.host : chunks_.host;
  const int atoms = std::max(chunks_.host.most_atoms, first.most_atoms);
  const std::int64_t slots = std::max(chunks_.host.most_slots, first.most_slots);
  std::size_t arena = 0, block = 0, bonds = 0;
  for (const LayerPlan<Real>& layer : plan_.layers) {
    bonds = std::max(bonds, bonds_.bytes_for(atoms, slots, layer.radial));
    arena = std::max(arena, layer.arena_per_atom);
    block = std::max(block, layer.block_per_atom);
  }
  keep_first_ = plan_.layers.size() > 1 && adjoint() && !chunks_differ_ && chunks_.host.n_chunks() == 1;
  struct Part {
    Buffer<Real>& buffer;
    std::size_t size;
  };
  const Part parts[] = {{values_, arena * atoms},
                        {block_, block * atoms},
                        {gradients_, adjoint() ? arena * atoms : 0},
                        {first_values_, keep_first_ ? plan_.layers[0].arena_per_atom * atoms : 0}};
  // Bytes of the chunk that are still to be found, and of what would be given back for them.
  std::size_t missing = bonds > bonds_.bytes() ? bonds : 0, given_back = missing > 0 ? bonds_.bytes() : 0;
  std::size_t whole = bonds;
  for (const Part& part : parts) {
    whole += part.size * sizeof(Real);
    if (part.size <= part.buffer.size()) continue;
    missing += part.size * sizeof(Real);
    given_back += part.buffer.size() * sizeof(Real);
  }
  if (missing > 0) require_room(atoms, whole, missing, given_back);
  for (const LayerPlan<Real>& layer : plan_.layers)
    if (bonds_.reserve(atoms, slots, layer.radial)) ++epoch_;
  for (const Part& part : parts)
    if (part.buffer.reserve(part.size)) ++epoch_;
}

// Throws, before anything is given back, with the chunk size that would do.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::require_room(int atoms, std::size_t whole, std::size_t missing,
                                                 std::size_t given_back) const {
  const std::size_t free = device::room(device_, given_back);
  if (missing <= free) return;
  // What is in use already stays; a tenth is left for lists that grow.
  const double share = 0.9 * static_cast<double>(whole - missing + free) / static_cast<double>(whole);
  const int fitting = static_cast<int>(share * atoms), unit = fitting >= 2 * gemm_atoms ? gemm_atoms : 1;
  const int chunk = fitting / unit * unit;
  throw Error("out of GPU memory: a chunk of " + std::to_string(atoms) + " atoms needs " + device::gigabytes(whole) +
              ", " + device_.name() + " has " + device::gigabytes(free + whole - missing) + " for it; " +
              (chunk > 0 ? "set chunksize to " + std::to_string(chunk) + " or less"
                         : std::string("use more ranks or a GPU with more memory")));
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::clear_sums() {
  const Geometry& g = *geometry_;
  const std::size_t n = g.n_atoms;
  auto sum = [&](Buffer<double>& buffer, std::size_t size) {
    device_.fill_zero(buffer.data(), size * sizeof(double));
    return device::AtomicSum<double>{buffer.data(), options_.deterministic, force_scale};
  };
  const StepFlags flags;
  device_.upload(flags_.data(), &flags, sizeof(flags));
  sums_ = ForceSums();
  if (!adjoint()) return;
  sums_.forces = sum(forces_, 3 * n);
  if (results_->virial != nullptr) {
    device_.fill_zero(center_virial_.data(), 9 * g.n_centers * sizeof(double));
    sums_.center_virial = center_virial_.data();
  }
  if (results_->atom_virial != nullptr) sums_.atom_virial = sum(atom_virial_, 9 * n);
  if (results_->centroid_virial != nullptr) sums_.centroid_virial = sum(centroid_virial_, 9 * n);
  if (plan_.layers.size() == 1) return;
  message_sum_ = {options_.deterministic ? static_cast<void*>(message_sums_.data()) : message_gradient_.data(),
                  options_.deterministic, message_scale};
}

// Everything that the launches of a step depend on.
template <class Device, class Real>
std::uint64_t DeviceEvaluator<Device, Real>::replay_key() const {
  std::uint64_t key = 1469598103934665603u;
  auto mix = [&](std::uint64_t value) { key = (key ^ value) * 1099511628211u; };
  auto address = [](const void* pointer) {
    return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer));
  };
  mix(epoch_);
  for (const void* pointer :
       {static_cast<const void*>(frame_.positions), static_cast<const void*>(frame_.species),
        static_cast<const void*>(frame_.first), static_cast<const void*>(frame_.neighbor),
        static_cast<const void*>(frame_.shift), static_cast<const void*>(frame_.cells),
        static_cast<const void*>(frame_.structure), static_cast<const void*>(frame_.owner),
        static_cast<const void*>(sums_.forces.data), static_cast<const void*>(sums_.center_virial),
        static_cast<const void*>(sums_.atom_virial.data), static_cast<const void*>(sums_.centroid_virial.data),
        static_cast<const void*>(geometry_->space == MemorySpace::device ? results_->energies : nullptr)})
    mix(address(pointer));
  mix(static_cast<std::uint64_t>(geometry_->n_atoms));
  mix(static_cast<std::uint64_t>(geometry_->n_centers));
  mix(static_cast<std::uint64_t>(geometry_->n_structures));
  return key;
}

}  // namespace grace::gpu
