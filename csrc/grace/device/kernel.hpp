// How a device kernel is written. One text runs on a GPU (device/cuda_launch.cuh) and on the emulated device, which
// visits blocks and threads in a shuffled order on the CPU (device/emulated_device.hpp).
//
//   struct Example {
//     static constexpr const char* name = "example";    // in error messages and profiles
//     static constexpr int threads = 128;                // of a block
//     struct Private { double sum; };                    // of one thread, kept between phases (registers on a GPU)
//     const double* x; double* y; int n;                 // parameters: values and device pointers
//
//     template <class Block>
//     GRACE_DEVICE void operator()(Block& block) const {
//       double* partial = block.template shared<double>(threads);
//       block.each_thread([&](int thread, Private& own) { own.sum = ...; partial[thread] = own.sum; });
//       block.each_thread([&](int thread, Private& own) { y[block.x() * threads + thread] = partial[threads - 1 -
//       thread]; });
//     }
//   };
//   device.launch(Example{x, y, n}, Grid{n_blocks}, shared_bytes);
//
// Rules:
// * each_thread is a phase: all threads of the block run it, then a barrier. What a phase writes to shared or global
//   memory may be read by other threads of the block in later phases only.
// * Code between phases is the same for all threads of a block (loops over phases, early return): it may depend on
//   parameters, block indices and global memory that the kernel does not write, never on the thread or on Private.
// * Arrays in Private are indexed with compile-time constants (unrolled loops), or they leave the registers.
// * block.shared<T>(count) carves arrays off the block's dynamic shared memory, 16-byte aligned; the launch must ask
//   for at least shared_size<T>(count) bytes for each. Shared memory and Private start undefined (poisoned in
//   emulation).
// * No warp intrinsics, no atomics but those of device/atomics.hpp.
#pragma once

#include <cstddef>

#include "grace/macros.hpp"

namespace grace::device {

struct Grid {
  unsigned x = 1;
  unsigned y = 1;  // at most 65535
};

struct NoPrivate {};

template <class T>
GRACE_HD constexpr std::size_t shared_size(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

// ceil(n / unit) as a grid extent.
inline unsigned blocks_for(std::size_t n, std::size_t unit) { return static_cast<unsigned>((n + unit - 1) / unit); }

}  // namespace grace::device
