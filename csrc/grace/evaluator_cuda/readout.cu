#include "grace/device/cuda_launch.cuh"
#include "grace/evaluator_cuda/readout_kernels.hpp"

namespace grace::gpu {

using Target = device::CudaDevice;

template void store_densities(Target&, const LayerPlan<double>&, int, const Chunk&, const double*, double*);
template void load_density_gradients(Target&, const LayerPlan<double>&, int, const Chunk&, const double*, double*);
template void readout(Target&, const ReadoutPlan&, const LayerPlan<double>&, const LayerPlan<double>*, const Chunk&,
                      const double*, const double*, double*, double*, double*);

template void store_densities(Target&, const LayerPlan<float>&, int, const Chunk&, const float*, double*);
template void load_density_gradients(Target&, const LayerPlan<float>&, int, const Chunk&, const double*, float*);
template void readout(Target&, const ReadoutPlan&, const LayerPlan<float>&, const LayerPlan<float>*, const Chunk&,
                      const float*, const double*, double*, float*, double*);

}  // namespace grace::gpu
