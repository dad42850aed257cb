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
// * each_warp is a phase by warps of 32 threads, with the same barrier at its end; the threads of a block are whole
//   warps. Inside, warp.each_lane runs code of one thread, and warp.multiply_add a product of matrices by all lanes
//   (device/mma.hpp), which sees what each_lane left in the Private of the lanes. Lanes exchange nothing else: shared
//   memory written in a phase is still read in later phases only. Between these calls code may depend on warp.index().
//     block.each_warp([&](auto& warp) {
//       warp.each_lane([&](int thread, Private& own) { own.a = ...; own.b = ...; });
//       warp.multiply_add([](Private& own) { return MmaOperands{&own.c, &own.a, &own.b}; });
//     });
// * Copies from global to shared memory may run beside other work: block.copy_async(to, from) starts one of 16 bytes,
//   both ends aligned to 16, commit_copies() closes a group of them (possibly empty), wait_copies<n>() waits until all
//   but the thread's last n groups have arrived. All three are called inside of a phase and count for that thread;
//   what has arrived may be read by other threads in later phases. copy_async<true> also keeps the data in the L1
//   cache, for what the next block will read too.
// * No other warp intrinsics, no atomics but those of device/atomics.hpp.
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
