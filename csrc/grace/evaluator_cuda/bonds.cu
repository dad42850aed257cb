#include "grace/device/cuda_launch.cuh"
#include "grace/evaluator_cuda/bonds_kernels.hpp"

namespace grace::gpu {

using Target = device::CudaDevice;

template class BondStorage<Target, double>;
template void collect_bonds(Target&, const Frame&, const Chunk&, const RadialPlan<double>&, const Bonds<double>&,
                            StepFlags*);
template void scatter_forces(Target&, const Frame&, const Chunk&, const Bonds<double>&, const ForceSums&);

template class BondStorage<Target, float>;
template void collect_bonds(Target&, const Frame&, const Chunk&, const RadialPlan<float>&, const Bonds<float>&,
                            StepFlags*);
template void scatter_forces(Target&, const Frame&, const Chunk&, const Bonds<float>&, const ForceSums&);

}  // namespace grace::gpu
