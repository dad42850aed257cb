// Kernels of ceilings.hpp, and the measurement.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "grace/device/buffer.hpp"
#include "grace/device/ceilings.hpp"
#include "grace/device/kernel.hpp"

namespace grace::device {

struct CopyNumbers {
  static constexpr const char* name = "ceiling_copy";
  static constexpr int threads = 256;
  using Private = NoPrivate;
  struct alignas(16) Four {
    std::uint32_t word[4];
  };
  const Four* from;
  Four* to;
  std::int64_t n;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i < n) to[i] = from[i];
    });
  }
};

// Chains of multiply-adds, independent of each other, in registers.
template <class Real>
struct MultiplyAdd {
  static constexpr const char* name = "ceiling_multiply_add";
  static constexpr int threads = 256;
  static constexpr int chains = 8;
  static constexpr int steps = 16;  // of every chain in one turn
  static constexpr double operations = 2.0 * threads * chains * steps;
  using Private = NoPrivate;
  Real factor;
  Real* out;
  std::int64_t turns;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      Real sum[chains];
      for (int c = 0; c < chains; ++c) sum[c] = static_cast<Real>(thread + c);
      for (std::int64_t turn = 0; turn < turns; ++turn)
        for (int step = 0; step < steps; ++step)
          for (int c = 0; c < chains; ++c) sum[c] = sum[c] * factor + factor;
      Real all = Real(0);
      for (int c = 0; c < chains; ++c) all += sum[c];
      if (all == Real(-1)) out[thread] = all;  // never: keeps the compiler from leaving the chains out
    });
  }
};

// Products of the matrix units, by whole warps: m16n8k8 of TF32 (float), m8n8k4 of double. The emulated device and GPUs
// without such units do one multiply-add instead.
template <class Real>
struct MatrixProducts {
  static constexpr const char* name = "ceiling_matrix_products";
  static constexpr int threads = 256;
  static constexpr int chains = 8;
  static constexpr int steps = 8;
  static constexpr double of_product = sizeof(Real) == 4 ? 2.0 * 16 * 8 * 8 : 2.0 * 8 * 8 * 4;
  static constexpr double operations = of_product * (threads / 32) * chains * steps;
  using Private = NoPrivate;
  Real factor;
  Real* out;
  std::int64_t turns;

  static GRACE_DEVICE void multiply(float (&sum)[4], float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const std::uint32_t left = __float_as_uint(a), right = __float_as_uint(b);
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%5, %5}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left), "r"(right));
#else
    sum[0] += a * b;
#endif
  }
  static GRACE_DEVICE void multiply(double (&sum)[4], double a, double b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+d"(sum[0]), "+d"(sum[1])
                 : "d"(a), "d"(b));
#else
    sum[0] += a * b;
#endif
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      Real sum[chains][4] = {};
      const Real a = factor * static_cast<Real>(thread);
      for (std::int64_t turn = 0; turn < turns; ++turn)
        for (int step = 0; step < steps; ++step)
          for (int c = 0; c < chains; ++c) multiply(sum[c], a, factor);
      Real all = Real(0);
      for (int c = 0; c < chains; ++c) all += sum[c][0] + sum[c][1] + sum[c][2] + sum[c][3];
      if (all == Real(-1)) out[thread] = all;
    });
  }
};

// Repeats `launch(turns)` with more and more turns until it takes long enough; turns per second.
template <class Device, class Launch>
double turns_per_second(Device& device, double seconds, std::int64_t turns, Launch launch) {
  using Clock = std::chrono::steady_clock;
  launch(turns);  // loads the code
  for (;;) {
    device.synchronize();
    const Clock::time_point begin = Clock::now();
    launch(turns);
    device.synchronize();
    const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    if (elapsed >= 0.5 * seconds) return static_cast<double>(turns) / elapsed;
    const double more = elapsed > 0.0 ? seconds / elapsed : 100.0;
    turns = static_cast<std::int64_t>(static_cast<double>(turns) * std::min(std::max(more, 2.0), 100.0)) + 1;
  }
}

// blocks: enough to keep every multiprocessor busy to the end.
template <template <class> class Kernel, class Device, class Real>
double operations_per_second(Device& device, double seconds, unsigned blocks, Real) {
  Buffer<Device, Real> out(device, "the numbers of a measurement");
  out.reserve(Kernel<Real>::threads);
  return blocks * Kernel<Real>::operations * turns_per_second(device, seconds, 1, [&](std::int64_t turns) {
           device.launch(Kernel<Real>{static_cast<Real>(1e-3), out.data(), turns}, Grid{blocks});
         });
}

template <class Device>
Ceilings measure(Device& device, double seconds, std::size_t copied_bytes, unsigned blocks, bool has_matrix_units) {
  Ceilings found;
  found.device = device.name();
  {
    using Four = typename CopyNumbers::Four;
    const std::size_t n = std::min(copied_bytes, device.free_bytes() / 4) / sizeof(Four);
    Buffer<Device, Four> from(device, "the numbers of a measurement"), to(device, "the numbers of a measurement");
    from.reserve(n);
    to.reserve(n);
    device.fill_zero(from.data(), n * sizeof(Four));
    const double copies = turns_per_second(device, seconds, 1, [&](std::int64_t turns) {
      for (std::int64_t turn = 0; turn < turns; ++turn)
        device.launch(CopyNumbers{from.data(), to.data(), static_cast<std::int64_t>(n)},
                      Grid{blocks_for(n, CopyNumbers::threads)});
    });
    found.copy_bytes = copies * 2.0 * static_cast<double>(n * sizeof(Four));
  }
  found.fma_float = operations_per_second<MultiplyAdd>(device, seconds, blocks, 0.0f);
  found.fma_double = operations_per_second<MultiplyAdd>(device, seconds, blocks, 0.0);
  if (!has_matrix_units) return found;
  found.matrix_tf32 = operations_per_second<MatrixProducts>(device, seconds, blocks, 0.0f);
  found.matrix_double = operations_per_second<MatrixProducts>(device, seconds, blocks, 0.0);
  return found;
}

}  // namespace grace::device
