#include "grace/device/ceilings.hpp"

#include "grace/device/ceilings_kernels.hpp"
#include "grace/device/emulated_device.hpp"
#include "grace/error.hpp"

namespace grace::device {

Ceilings measure_ceilings(const grace::Device& device, double seconds) {
  require(seconds > 0.0, "`seconds` must be > 0, got ", seconds);
  require(device.kind == DeviceKind::cuda || device.kind == DeviceKind::emulated,
          "`device` must be a GPU, such as cuda:0, to measure its ceilings");
  if (device.kind == DeviceKind::cuda) return measure_cuda_ceilings(device.index, seconds);
  EmulatedDevice emulated(static_cast<std::uint64_t>(device.index));
  return measure(emulated, seconds, 4096, 2, true);
}

}  // namespace grace::device
