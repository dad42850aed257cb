#include "grace/device/emulated_device.hpp"
#include "grace/evaluator_cuda/message_basis_kernels.hpp"

namespace grace::gpu {

using Target = device::EmulatedDevice;

template void message_forward(Target&, const LayerPlan<double>&, const Frame&, const Chunk&, const Bonds<double>&,
                              const double*, double*);
template void message_adjoint(Target&, const LayerPlan<double>&, const Frame&, const Chunk&, const Bonds<double>&,
                              const double*, const double*, const device::AtomicSum<double>&);
template void store_message(Target&, const LayerPlan<double>&, const Chunk&, const double*, double*);
template void load_message_gradient(Target&, const LayerPlan<double>&, const Chunk&, const double*, double*);
template void from_fixed_point(Target&, const device::AtomicSum<double>&, std::int64_t, double*);

template void message_forward(Target&, const LayerPlan<float>&, const Frame&, const Chunk&, const Bonds<float>&,
                              const float*, float*);
template void message_adjoint(Target&, const LayerPlan<float>&, const Frame&, const Chunk&, const Bonds<float>&,
                              const float*, const float*, const device::AtomicSum<float>&);
template void store_message(Target&, const LayerPlan<float>&, const Chunk&, const float*, float*);
template void load_message_gradient(Target&, const LayerPlan<float>&, const Chunk&, const float*, float*);
template void from_fixed_point(Target&, const device::AtomicSum<float>&, std::int64_t, float*);

}  // namespace grace::gpu
