// Kernels of coupling products and their adjoints.
#pragma once

#include "grace/evaluator_cuda/product_plan.hpp"

namespace grace::gpu {

// block[row] = sum of terms over the operand rows in `values`.
template <class Device, class Real>
void product_forward(Device& device, const ProductBlock<Real>& block, int n_atoms, const Real* values, Real* rows);

// Adds (or writes, ProductOperand::gradient_exists) the gradients of the operand rows, from those of the block's rows.
template <class Device, class Real>
void product_adjoint(Device& device, const ProductBlock<Real>& block, int n_atoms, const Real* values,
                     const Real* row_gradients, Real* gradients);

}  // namespace grace::gpu
