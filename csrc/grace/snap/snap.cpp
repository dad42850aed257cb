#include "grace/snap/snap.hpp"

#include "grace/evaluator.hpp"
#include "grace/snap/cpu_snap.hpp"
#include "grace/snap_cuda/snap_cuda.hpp"

namespace grace::snap {

std::unique_ptr<Snap> make_snap(const SnapOptions& options) {
  SnapOptions chosen = options;
  chosen.device = resolve_device(options.device);
  switch (chosen.device.kind) {
    case DeviceKind::cuda:
      return make_cuda_snap(chosen);
    case DeviceKind::emulated:
      return make_emulated_snap(chosen);
    default:
      return std::make_unique<CpuSnap>(chosen);
  }
}

}  // namespace grace::snap
