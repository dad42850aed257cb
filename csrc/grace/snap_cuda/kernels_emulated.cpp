#include "grace/device/emulated_device.hpp"
#include "grace/snap_cuda/contraction_kernels.hpp"
#include "grace/snap_cuda/density_kernels.hpp"
#include "grace/snap_cuda/gradient_kernels.hpp"

namespace grace::snap {

using device::EmulatedDevice;

template void densities(EmulatedDevice&, const DevicePlan&, const DeviceBatch&, const DevicePairs&, Complex*);
template void bispectrum(EmulatedDevice&, const DevicePlan&, std::int64_t, const Complex*, double*);
template void adjoints(EmulatedDevice&, const DevicePlan&, std::int64_t, const Complex*, const double*, Complex*);
template void pair_gradients(EmulatedDevice&, const DevicePlan&, const DeviceBatch&, const DevicePairs&, const Complex*,
                             double*);
template void collect(EmulatedDevice&, const DeviceBatch&, const DevicePairs&, const double*, double*);

}  // namespace grace::snap
