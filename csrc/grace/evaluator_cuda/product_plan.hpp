// Blocks of coupling products P[row] = sum_terms c L[left] R[right]: description on the host, and the compiled form
// that the kernels of product.hpp run.
#pragma once

#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/evaluator_cuda/chunk.hpp"
#include "grace/math/coupling.hpp"
#include "grace/model/spec.hpp"

namespace grace::gpu {

// A stored operand tensor. `path[r]` is equal for the rows of one (l, parity, coupling history) multiplet, whose 2l + 1
// rows follow each other in order of m.
struct ProductOperand {
  std::vector<RowAddress> rows;
  std::vector<int> path;
  std::vector<char>
      gradient_exists;  // per row: the adjoint adds to the gradient row (else it is the first to write it)
};

// One block. `right_is_left`: both operands are one tensor (then `right` is empty and term.right counts rows of
// `left`).
struct ProductRows {
  bool right_is_left = false;
  ProductOperand left, right;
  int stride = 0;                   // padded channels, the same for operands and block
  std::vector<int> path;            // of every block row; block row r has RowAddress{block, stride, r * stride}
  std::vector<CouplingTerm> terms;  // row, left, right: block row and stored rows of the operands
};

template <class Real>
struct ProductBlock {
  int n_rows = 0;
  int stride = 0;
};

// Every gradient row that a term reads is written by the adjoint; others are left alone.
template <class Real>
ProductBlock<Real> make_product_block(const ProductRows& rows, device::ModelMemory& memory);

}  // namespace grace::gpu
