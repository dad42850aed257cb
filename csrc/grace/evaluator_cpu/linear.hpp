// Linear maps over channels: channel mixes and reductions, forward and adjoint, all as small matrix products.
#pragma once

#include "grace/evaluator_cpu/gemm.hpp"
#include "grace/evaluator_cpu/plan.hpp"
#include "grace/evaluator_cpu/tile.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

template <class Real>
GRACE_FORCEINLINE Real* slot_rows(Real* arena, const Slot& slot, const Tile<Real>& tile) {
  return arena + slot.offset * tile.n_atoms;
}

// out[segment rows] (+)= in[segment rows] W. Element-dependent weights act run by run: the tile is sorted by species.
template <class Real>
inline void apply_linear(const Weights<Real>& w, const Segment& s, const Tile<Real>& tile, const Real* in, Real* out,
                         bool accumulate) {
  const long in_row = static_cast<long>(tile.n_atoms) * w.in_stride,
             out_row = static_cast<long>(tile.n_atoms) * w.out_stride;
  const long matrix = static_cast<long>(w.n_in) * w.out_stride;
  if (!w.per_element || tile.n_runs == 1) {
    const long element = w.per_element ? tile.species[0] : 0;
    gemm(s.n_rows * tile.n_atoms, w.out_stride, w.n_in, in + s.in_row * in_row, w.in_stride,
         w.forward + (element * w.n_groups + s.group) * matrix, out + s.out_row * out_row, w.out_stride, accumulate);
    return;
  }
  for (int run = 0; run < tile.n_runs; ++run) {
    const int a = tile.run_first[run], n = tile.run_first[run + 1] - a;
    const Real* W = w.forward + (static_cast<long>(tile.species[a]) * w.n_groups + s.group) * matrix;
    for (int row = 0; row < s.n_rows; ++row)
      gemm(n, w.out_stride, w.n_in, in + (s.in_row + row) * in_row + a * w.in_stride, w.in_stride, W,
           out + (s.out_row + row) * out_row + a * w.out_stride, w.out_stride, accumulate);
  }
}

// Adjoint: in_gradient[segment rows] (+)= out_gradient[segment rows] W^T.
template <class Real>
inline void apply_linear_adjoint(const Weights<Real>& w, const Segment& s, const Tile<Real>& tile,
                                 const Real* out_gradient, Real* in_gradient, bool accumulate) {
  const Weights<Real> transposed{w.n_out,    w.n_in,        w.out_stride, w.in_stride,
                                 w.n_groups, w.per_element, w.transposed, nullptr};
  const Segment reversed{s.out_row, s.in_row, s.n_rows, s.group};
  apply_linear(transposed, reversed, tile, out_gradient, in_gradient, accumulate);
}

template <class Real>
inline void linear_forward(const LayerPlan<Real>& layer, const LinearOp<Real>& op, Tile<Real>& tile) {
  const Real* in = op.input == LinearOp<Real>::block ? tile.block : slot_rows(tile.values, layer.slots[op.input], tile);
  Real* out = slot_rows(tile.values, layer.slots[op.output], tile);
  for (int s = 0; s < op.n_segments; ++s) apply_linear(op.weights, op.segments[s], tile, in, out, !op.overwrite);
}

template <class Real>
inline void linear_backward(const LayerPlan<Real>& layer, const LinearOp<Real>& op, Tile<Real>& tile) {
  Real* in =
      op.input == LinearOp<Real>::block ? tile.block_gradient : slot_rows(tile.gradients, layer.slots[op.input], tile);
  const Real* out = slot_rows(tile.gradients, layer.slots[op.output], tile);
  for (int s = 0; s < op.n_segments; ++s) apply_linear_adjoint(op.weights, op.segments[s], tile, out, in, true);
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
