// Blocks of coupling products P[row] = sum_terms c L[left] R[right]: description on the host, and the compiled form
// that the kernels of product.hpp run.
#pragma once

#include <cstdint>
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

// ---- compiled form
// --------------------------------------------------------------------------------------------------- Forward and
// adjoint are one operation, target (+)= sum of terms c first second, with other rows in the places: block from
// operands, or gradients of operands from gradients of the block and operands. The rows that a launch reads are its
// sources, by number.

// Sum over the terms of three multiplets: kind = pattern_pair (product_pattern.hpp) of the two source multiplets that
// start at sources `first` and `second`. coefficients: start, in the order of the pattern.
struct alignas(16) ProductPiece {
  std::int32_t kind = 0;
  std::int32_t first = 0;
  std::int32_t second = 0;
  std::int32_t coefficients = 0;
};

// A multiplet of 2 degree + 1 rows with its pieces [begin, end); or degree = single_row: one row with its terms [begin,
// end) of ProductGather::terms, for tables that do not follow the pattern.
struct alignas(8) ProductTarget {
  static constexpr std::int32_t single_row = -1;
  std::int64_t offset = 0;  // of the first row, as in RowAddress; the next ones follow at ProductBlock::stride
  std::int32_t degree = single_row;
  std::int32_t begin = 0;
  std::int32_t end = 0;
  std::uint32_t accumulate = 0;  // bit r: add to row r, else write it
};

// One launch.
template <class Real>
struct ProductGather {
  int n_sources = 0;
  int n_targets = 0;
  const RowAddress* sources = nullptr;     // arena: values of operands; block: gradients of the block's rows
  const ProductTarget* targets = nullptr;  // those with the most work first
  const ProductPiece* pieces = nullptr;
  const Real* coefficients = nullptr;  // every piece starts at a multiple of 16 bytes
  const math::GatherTerm<Real>* terms = nullptr;
};

// Mostly one launch each. More where the sources do not fit into shared memory together; they run in order.
template <class Real>
struct ProductBlock {
  int n_rows = 0;
  int stride = 0;
  std::vector<ProductGather<Real>> forward, adjoint;
};

constexpr int most_product_sources = 220;  // of a launch: four blocks of its kernel fit on a multiprocessor

// Every gradient row that a term reads is written by the adjoint; others are left alone.
template <class Real>
ProductBlock<Real> make_product_block(const ProductRows& rows, device::ModelMemory& memory);

}  // namespace grace::gpu
