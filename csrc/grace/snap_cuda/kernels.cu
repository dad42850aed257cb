#include "grace/device/cuda_launch.cuh"
#include "grace/snap_cuda/contraction_kernels.hpp"
#include "grace/snap_cuda/density_kernels.hpp"
#include "grace/snap_cuda/gradient_kernels.hpp"

namespace grace::snap {

using device::CudaDevice;

template void densities(CudaDevice&, const DevicePlan&, const DeviceBatch&, const DevicePairs&, Complex*);
template void bispectrum(CudaDevice&, const DevicePlan&, std::int64_t, const Complex*, double*);
template void adjoints(CudaDevice&, const DevicePlan&, std::int64_t, const Complex*, const double*, Complex*);
template void pair_gradients(CudaDevice&, const DevicePlan&, const DeviceBatch&, const DevicePairs&, const Complex*,
                             double*);
template void collect(CudaDevice&, const DeviceBatch&, const DevicePairs&, const double*, double*);

}  // namespace grace::snap
