// Errors of the CUDA runtime as sentences, and the current GPU of a thread. For the files of device/ only.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "grace/error.hpp"

namespace grace::device {

// Makes a GPU the current one of this thread, and what was current before again at the end, also if that was none: a
// program that has not used a GPU yet (torch, which has a runtime of its own) starts on its own choice.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  void* before_ = nullptr;  // CUcontext
  bool restore_ = false;
};

// Turns error codes into exceptions. A failure that destroyed the state of the GPU is remembered and thrown again by
// every later call.
class CudaErrors {
 public:
  explicit CudaErrors(int index) : device_("cuda:" + std::to_string(index)) {}

  void check(cudaError_t error, const char* doing) {
    if (error != cudaSuccess) fail(error, doing);
  }
  void require_usable() const {
    if (!lost_.empty()) throw Error(lost_);
  }
  void now_running(const char* kernel) { kernel_ = kernel; }
  const std::string& device() const { return device_; }

 private:
  [[noreturn]] void fail(cudaError_t error, const char* doing);

  std::string device_;
  const char* kernel_ = nullptr;  // the last one launched: errors of kernels are reported later
  std::string lost_;
};

}  // namespace grace::device
