#include "grace/snap_cuda/snap_cuda.hpp"

#include "grace/device/cuda_device.hpp"
#include "grace/device/cuda_probe.hpp"
#include "grace/snap_cuda/device_snap.hpp"

namespace grace::snap {

std::unique_ptr<Snap> make_cuda_snap(const SnapOptions& options) {
  const std::string obstacle = device::cuda_obstacle(device::cuda_probe().facts, options.device.index);
  require(obstacle.empty(), obstacle);
  return std::make_unique<DeviceSnap<device::CudaDevice>>(options);
}

}  // namespace grace::snap
