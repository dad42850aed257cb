#include "grace/device/cuda_launch.cuh"
#include "grace/neighbors_cuda/device_neighbors_kernels.hpp"

namespace grace::gpu {

template class DeviceNeighborList<device::CudaDevice>;

}  // namespace grace::gpu
