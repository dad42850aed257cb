// A CUDA device with the interface of EmulatedDevice. The header is plain C++; kernels are launched where
// device/cuda_launch.cuh is included, in files compiled by nvcc.
//
// Every call makes its GPU the current one of the thread and restores the thread's choice before it returns, so that
// evaluators on several GPUs, and torch, can live in one process. One device object is used by one thread at a time.
// After a failure of the GPU every call throws the sentence of the failure again; release() and the destructor never
// throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grace/device/kernel.hpp"
#include "grace/evaluator.hpp"

namespace grace::device {

class CudaDevice {
 public:
  // Left free by evaluators: code of kernels that are loaded when they first run, recorded launches, other processes.
  static constexpr std::size_t spare_bytes = std::size_t{256} << 20;

  explicit CudaDevice(int index);  // throws Error with the reason when this GPU cannot be used (cuda_probe.hpp)
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string name() const;  // "cuda:0 NVIDIA H200"

  void* allocate(std::size_t bytes, const char* what);  // throws Error with the sizes when it does not fit
  void release(void* memory);
  std::size_t allocated_bytes() const;
  std::size_t free_bytes() const;
  std::size_t most_shared_bytes() const;  // of a block

  // Copies in stream order, through pinned memory. Host memory of `upload` may be reused at once; that of `download`
  // must stay valid until synchronize(), which fills it.
  void upload(void* to, const void* from, std::size_t bytes);
  void download(void* to, const void* from, std::size_t bytes);
  void copy(void* to, const void* from, std::size_t bytes);
  void fill_zero(void* to, std::size_t bytes);
  void synchronize();

  // Stream of the following work (a cudaStream_t); nullptr: the device's own. Work given before is waited for by the
  // new stream. end_call() goes back to the own one; `failed`: without the downloads that were not waited for
  // (device/call.hpp).
  void use_stream(void* stream);
  void end_call(bool failed) noexcept;

  // Runs `work` (launches, copies and fills on the device only). When a key comes for the second time, the work is
  // recorded as a CUDA graph, which stands for it from then on: everything `work` does must be determined by the key.
  // A handful of keys is remembered; release() forgets them all, because records hold addresses.
  template <class Work>
  void replay(std::uint64_t key, Work work) {
    if (!begin_replay(key)) return;
    try {
      work();
    } catch (...) {
      abandon_replay();
      throw;
    }
    if (!end_replay()) work();
  }

  template <class Kernel>
  void launch(const Kernel& kernel, Grid grid, std::size_t shared_bytes = 0);

  // Times every launch from now on; profile(): the sums since then, the longest first.
  void start_profile();
  std::vector<KernelTime> profile();

 private:
  struct State;
  bool begin_replay(std::uint64_t key);  // false: a record was replayed
  bool end_replay();                     // false: nothing could be recorded, the work is still to be done
  void abandon_replay();
  void launch_kernel(const void* function, const char* name, Grid grid, int threads, std::size_t shared_bytes,
                     const void* parameters);

  std::unique_ptr<State> state_;
};

}  // namespace grace::device
