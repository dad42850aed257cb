// Message basis of the second layer, YI[n,row] = f_i sum_terms c sum_j R_nl Y_lm I_j[n,r], and its adjoint.
#pragma once

#include "grace/evaluator_cuda/bonds.hpp"

namespace grace::gpu {

// message: [atom or owner][message row][radial.stride]. A neighbour j reads row frame.owner[j] if there is an owner
// map, else row j. Writes the rows of slot layer.message_basis in `values`.
template <class Device, class Real>
void message_forward(Device& device, const LayerPlan<Real>& layer, const Frame& frame, const Chunk& chunk,
                     const Bonds<Real>& bonds, const Real* message, Real* values);

// Adds to bonds.gradient and to message_gradient (shape of message).
template <class Device, class Real>
void message_adjoint(Device& device, const LayerPlan<Real>& layer, const Frame& frame, const Chunk& chunk,
                     const Bonds<Real>& bonds, const Real* message, const Real* gradients,
                     const device::AtomicSum<Real>& message_gradient);

// Rows of the message slot of a chunk (layer 1) to the message of all atoms, and the gradient back.
template <class Device, class Real>
void store_message(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Real* values, Real* message);
template <class Device, class Real>
void load_message_gradient(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk,
                           const Real* message_gradient, Real* gradients);

// Message gradients of n numbers: fixed point to Real (device/atomics.hpp).
template <class Device, class Real>
void from_fixed_point(Device& device, const device::AtomicSum<Real>& sum, std::int64_t n, Real* out);

}  // namespace grace::gpu
