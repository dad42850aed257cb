// Kernels that move messages: between the message slot of a chunk, [row][atom][channel], and the message of all atoms,
// [atom][row][channel].
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/message_basis.hpp"

namespace grace::gpu {

// Threads follow the message of all atoms; channels are the fastest index of both sides, so that both are read and
// written in whole sectors.
template <class Real, bool store>
struct MoveMessage {
  static constexpr const char* name = store ? "store_message" : "load_message_gradient";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  Chunk chunk;
  int n_rows;
  int stride;
  const Real* from;
  Real* to;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t width = std::int64_t{n_rows} * stride;
      const std::int64_t e = std::int64_t{block.x()} * threads + thread, atom = e / width;
      if (atom >= chunk.n_atoms) return;
      const int within = static_cast<int>(e - atom * width), row = within / stride, channel = within - row * stride;
      const std::int64_t of_chunk = (std::int64_t{row} * chunk.n_atoms + atom) * stride + channel;
      const std::int64_t of_all = chunk.centers[atom] * width + within;
      if constexpr (store)
        to[of_all] = from[of_chunk];
      else
        to[of_chunk] = from[of_all];
    });
  }
};

template <class Real>
struct FromFixedPoint {
  static constexpr const char* name = "from_fixed_point";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const std::int64_t* sums;
  double step;
  std::int64_t n;
  Real* out;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i < n) out[i] = static_cast<Real>(static_cast<double>(sums[i]) * step);
    });
  }
};

template <bool store, class Device, class Real>
void move_message(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Real* from, Real* to) {
  using Kernel = MoveMessage<Real, store>;
  const Slot& slot = layer.slots[layer.message];
  const std::size_t n = static_cast<std::size_t>(chunk.n_atoms) * slot.n_rows * slot.stride;
  device.launch(Kernel{chunk, slot.n_rows, slot.stride, from, to}, {device::blocks_for(n, Kernel::threads), 1});
}

template <class Device, class Real>
void store_message(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Real* values,
                   Real* message) {
  move_message<true>(device, layer, chunk, values + layer.slots[layer.message].offset * chunk.n_atoms, message);
}

template <class Device, class Real>
void load_message_gradient(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk,
                           const Real* message_gradient, Real* gradients) {
  move_message<false>(device, layer, chunk, message_gradient,
                      gradients + layer.slots[layer.message].offset * chunk.n_atoms);
}

template <class Device, class Real>
void from_fixed_point(Device& device, const device::AtomicSum<Real>& sum, std::int64_t n, Real* out) {
  using Kernel = FromFixedPoint<Real>;
  device.launch(Kernel{static_cast<const std::int64_t*>(sum.data), 1.0 / sum.scale, n, out},
                {device::blocks_for(n, Kernel::threads), 1});
}

}  // namespace grace::gpu
