#include "grace/device/emulated_device.hpp"
#include "grace/neighbors_cuda/device_neighbors_kernels.hpp"

namespace grace::gpu {

template class DeviceNeighborList<device::EmulatedDevice>;

}  // namespace grace::gpu
