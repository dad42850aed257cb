#include "grace/device/cuda_launch.cuh"
#include "grace/evaluator_cuda/product_kernels.hpp"

namespace grace::gpu {

using Target = device::CudaDevice;

template void product_forward(Target&, const ProductBlock<double>&, int, const double*, double*);
template void product_adjoint(Target&, const ProductBlock<double>&, int, const double*, const double*, double*);

template void product_forward(Target&, const ProductBlock<float>&, int, const float*, float*);
template void product_adjoint(Target&, const ProductBlock<float>&, int, const float*, const float*, float*);

}  // namespace grace::gpu
