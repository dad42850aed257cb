#include "grace/device/cuda_launch.cuh"
#include "grace/evaluator_cuda/row_gemm_kernels.hpp"

namespace grace::gpu {

using Target = device::CudaDevice;

template void row_gemm(Target&, const RowGemm<double>&, const Chunk&, const double*, const double*, double*, double*,
                       GemmUnits);
template void row_gemm(Target&, const RowGemm<float>&, const Chunk&, const float*, const float*, float*, float*,
                       GemmUnits);

}  // namespace grace::gpu
