// The device of the tests of device kernels. The files test_gpu_*.cpp are compiled twice: for the emulated device into
// grace_core_tests, and for the first GPU (GRACE_TEST_CUDA) into grace_gpu_tests, where nvcc built the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grace/device/buffer.hpp"
#ifdef GRACE_TEST_CUDA
#include "grace/device/cuda_device.hpp"
#else
#include "grace/device/emulated_device.hpp"
#endif

namespace test_target {

// Arguments of the constructor and the name for parse_device, from the seed of an order of blocks and threads. A GPU
// has an order of its own: there a loop over seeds repeats the test with other numbers.
#ifdef GRACE_TEST_CUDA
using TestDevice = grace::device::CudaDevice;
constexpr bool is_emulated = false;
inline int order(std::uint64_t) { return 0; }
inline std::string device_name(std::uint64_t) { return "cuda:0"; }
#else
using TestDevice = grace::device::EmulatedDevice;
constexpr bool is_emulated = true;
inline std::uint64_t order(std::uint64_t seed) { return seed; }
inline std::string device_name(std::uint64_t seed) { return "emulated:" + std::to_string(seed); }
#endif

// n elements of device memory.
template <class T>
std::vector<T> read(TestDevice& device, const T* from, std::size_t n) {
  std::vector<T> list(n);
  device.download(list.data(), from, n * sizeof(T));
  device.synchronize();
  return list;
}

}  // namespace test_target
