#include "grace/device/emulated_device.hpp"
#include "grace/snap_cuda/device_snap.hpp"
#include "grace/snap_cuda/snap_cuda.hpp"

namespace grace::snap {

std::unique_ptr<Snap> make_emulated_snap(const SnapOptions& options) {
  return std::make_unique<DeviceSnap<device::EmulatedDevice>>(options);
}

}  // namespace grace::snap
