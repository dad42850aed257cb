#include "grace/device/cuda_launch.cuh"
#include "grace/evaluator_cuda/basis_kernels.hpp"

namespace grace::gpu {

using Target = device::CudaDevice;

template void basis_forward(Target&, const LayerPlan<double>&, const Chunk&, const Bonds<double>&, double*);
template void basis_adjoint(Target&, const LayerPlan<double>&, const Chunk&, const Bonds<double>&, const double*);

template void basis_forward(Target&, const LayerPlan<float>&, const Chunk&, const Bonds<float>&, float*);
template void basis_adjoint(Target&, const LayerPlan<float>&, const Chunk&, const Bonds<float>&, const float*);

}  // namespace grace::gpu
