// Single-particle basis A[n,lm] = f_i sum_j R_nl Y_lm z_n(mu_j) of a chunk, and its adjoint down to dE/dr_ij.
#pragma once

#include "grace/evaluator_cuda/bonds.hpp"

namespace grace::gpu {

// Writes the rows of slot layer.basis in `values`.
template <class Device, class Real>
void basis_forward(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Bonds<Real>& bonds,
                   Real* values);

// Adds to bonds.gradient.
template <class Device, class Real>
void basis_adjoint(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Bonds<Real>& bonds,
                   const Real* gradients);

}  // namespace grace::gpu
