// A CUDA device with the interface of EmulatedDevice. The header is plain C++; kernels are launched where
// device/cuda_launch.cuh is included, in files compiled by nvcc.
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
  static constexpr std::size_t max_shared_bytes = 227 * 1024;

  explicit CudaDevice(int index);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string name() const;  // "cuda:0 NVIDIA H200"

  void* allocate(std::size_t bytes, const char* what);  // throws Error with the sizes when it does not fit
  void release(void* memory);
  std::size_t allocated_bytes() const;
  std::size_t free_bytes() const;

  void upload(void* to, const void* from, std::size_t bytes);
  void download(void* to, const void* from, std::size_t bytes);
  void copy(void* to, const void* from, std::size_t bytes);
  void fill_zero(void* to, std::size_t bytes);
  void synchronize();
  void use_stream(void* stream);

  template <class Work>
  void replay(std::uint64_t key, Work work) {
    if (!begin_replay(key)) return;
    try {
      work();
    } catch (...) {
      abandon_replay();
      throw;
    }
    end_replay();
  }

  template <class Kernel>
  void launch(const Kernel& kernel, Grid grid, std::size_t shared_bytes = 0);

  void start_profile();
  std::vector<KernelTime> profile();

 private:
  struct State;
  bool begin_replay(std::uint64_t key);  // false: a record was replayed
  void end_replay();
  void abandon_replay();

  std::unique_ptr<State> state_;
};

}  // namespace grace::device
