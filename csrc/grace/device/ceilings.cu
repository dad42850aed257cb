#include "grace/device/ceilings.hpp"
#include "grace/device/ceilings_kernels.hpp"
#include "grace/device/cuda_launch.cuh"
#include "grace/device/cuda_probe.hpp"

namespace grace::device {

Ceilings measure_cuda_ceilings(int index, double seconds) {
  CudaDevice device(index);
  const bool has_matrix_units = cuda_probe().facts.capabilities[index] >= 80;
  return measure(device, seconds, std::size_t{1} << 30, 4096, has_matrix_units);
}

}  // namespace grace::device
