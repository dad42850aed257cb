// Factories of the Snap objects that run device kernels.
#pragma once

#include <memory>

#include "grace/snap/snap.hpp"

namespace grace::snap {

// Throws Error with the reason when GPU `options.device.index` cannot be used (device/cuda_probe.hpp).
std::unique_ptr<Snap> make_cuda_snap(const SnapOptions& options);

std::unique_ptr<Snap> make_emulated_snap(const SnapOptions& options);

}  // namespace grace::snap
