// What a device can do at best, measured with kernels that do nothing else: the ceilings that benchmarks compare
// evaluations with.
#pragma once

#include <string>

#include "grace/types.hpp"

namespace grace::device {

struct Ceilings {
  std::string device;       // name
  double copy_bytes = 0.0;  // per second, reads and writes of a copy far larger than the caches
  double fma_float = 0.0;   // operations per second, two for each fused multiply-add
  double fma_double = 0.0;
  double matrix_tf32 = 0.0;    // operations per second of the matrix units, TF32 inputs and float sums; 0: none
  double matrix_double = 0.0;  // the same, everything in double
};

// Takes about `seconds` for each number. The emulated device answers too, which tests the kernels and means nothing.
// Throws Error where the device cannot be used, and for a CPU.
Ceilings measure_ceilings(const grace::Device& device, double seconds);

Ceilings measure_cuda_ceilings(int index, double seconds);  // ceilings.cu, or the stub

}  // namespace grace::device
