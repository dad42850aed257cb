// Kernels of device/kernel.hpp on a GPU: the block that they see, the __global__ functions that run them, and
// CudaDevice::launch. For files compiled by nvcc.
#pragma once

#include <type_traits>

#include "grace/device/cuda_device.hpp"
#include "grace/device/kernel.hpp"

namespace grace::device {

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
