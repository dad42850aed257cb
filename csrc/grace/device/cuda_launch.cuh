// Kernels of device/kernel.hpp on a GPU: the block that they see, the __global__ functions that run them, and
// CudaDevice::launch. For files compiled by nvcc.
#pragma once

#include <type_traits>

#include "grace/device/cuda_device.hpp"
#include "grace/device/kernel.hpp"
#include "grace/device/mma.hpp"

namespace grace::device {

template <class Private>
class CudaWarp {
 public:
  __device__ __forceinline__ explicit CudaWarp(Private& own) : private_(own) {}
  __device__ __forceinline__ int index() const { return static_cast<int>(threadIdx.x / 32); }

  template <class Lane>
  __device__ __forceinline__ void each_lane(Lane lane) {
    lane(static_cast<int>(threadIdx.x), private_);
  }
  template <class Operands>
  __device__ __forceinline__ void multiply_add(Operands operands) {
    mma(operands(private_));
  }

 private:
  Private& private_;
};

// Everything of a block is inlined into the kernel, so that Private lives in registers.
template <class Private>
class CudaBlock {
 public:
  __device__ __forceinline__ unsigned x() const { return blockIdx.x; }
  __device__ __forceinline__ unsigned y() const { return blockIdx.y; }

  template <class T>
  __device__ __forceinline__ T* shared(std::size_t count) {
    static_assert(alignof(T) <= 16, "arrays in shared memory are aligned to 16 bytes");
    extern __shared__ __align__(16) unsigned char grace_block_memory[];
    T* array = reinterpret_cast<T*>(grace_block_memory + used_);
    used_ += static_cast<unsigned>(shared_size<T>(count));
    return array;
  }

  template <class Phase>
  __device__ __forceinline__ void each_thread(Phase phase) {
    phase(static_cast<int>(threadIdx.x), private_);
    __syncthreads();
  }

  template <class Phase>
  __device__ __forceinline__ void each_warp(Phase phase) {
    CudaWarp<Private> warp(private_);
    phase(warp);
    __syncthreads();
  }

  template <bool keep = false>
  __device__ __forceinline__ void copy_async(void* to, const void* from) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if (keep)
      asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
    else
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  }
  __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int n>
  __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
  }

 private:
  Private private_;
  unsigned used_ = 0;
};

// __grid_constant__: the parameters are read from constant memory also where their address is taken, never copied to
// the stack of every thread.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) run_kernel(const __grid_constant__ Kernel kernel) {
  CudaBlock<typename Kernel::Private> block;
  kernel(block);
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, Kernel::min_blocks)
    run_kernel_min_blocks(const __grid_constant__ Kernel kernel) {
  CudaBlock<typename Kernel::Private> block;
  kernel(block);
}

// A kernel may declare `static constexpr int min_blocks`: blocks that must fit on a multiprocessor at a time, which
// bounds the registers of a thread.
template <class Kernel, class = void>
struct HasMinBlocks : std::false_type {};
template <class Kernel>
struct HasMinBlocks<Kernel, std::void_t<decltype(Kernel::min_blocks)>> : std::true_type {};

template <class Kernel>
void CudaDevice::launch(const Kernel& kernel, Grid grid, std::size_t shared_bytes) {
  static_assert(sizeof(Kernel) <= 4096, "parameters of a kernel are limited to 4 kB");
  static_assert(std::is_trivially_copyable_v<Kernel>, "parameters of a kernel are copied bytewise");
  static_assert(Kernel::threads >= 1 && Kernel::threads <= 1024, "a block has 1 to 1024 threads");
  const void* function = nullptr;
  if constexpr (HasMinBlocks<Kernel>::value)
    function = reinterpret_cast<const void*>(&run_kernel_min_blocks<Kernel>);
  else
    function = reinterpret_cast<const void*>(&run_kernel<Kernel>);
  launch_kernel(function, Kernel::name, grid, Kernel::threads, shared_bytes, &kernel);
}

}  // namespace grace::device
