// Coupling products, block by block, with their consumers (channel mixes and reductions), forward and adjoint.
#pragma once

#include "grace/evaluator_cpu/linear.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// out[target] (+)= sum c first[.] second[.]; rows are `length` contiguous numbers (atoms x padded channels).
template <class Real>
inline void gather(const GatherTable<Real>& table, long length, const Real* first, const Real* second, Real* out,
                   bool accumulate) {
  using P = Pack<Real>;
  using V = typename P::V;
  constexpr int U = 4;
  constexpr int step = U * P::width;
  for (int t = 0; t < table.n_targets; ++t) {
    Real* target = out + table.target[t] * length;
    const math::GatherTerm<Real>* begin = table.terms + table.first_term[t];
    const math::GatherTerm<Real>* end = table.terms + table.first_term[t + 1];
    long e = 0;
    for (; e + step <= length; e += step) {
      V sum[U];
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) sum[u] = accumulate ? P::load(target + e + u * P::width) : P::zero();
      for (const math::GatherTerm<Real>* term = begin; term != end; ++term) {
        const Real* a = first + term->first * length + e;
        const Real* b = second + term->second * length + e;
        const V c = P::set(term->coefficient);
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u)
          math::coupling_term(c, P::load(a + u * P::width), P::load(b + u * P::width), sum[u]);
      }
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) P::store(target + e + u * P::width, sum[u]);
    }
    for (; e < length; e += P::width) {
      V sum = accumulate ? P::load(target + e) : P::zero();
      for (const math::GatherTerm<Real>* term = begin; term != end; ++term)
        math::coupling_term(P::set(term->coefficient), P::load(first + term->first * length + e),
                            P::load(second + term->second * length + e), sum);
      P::store(target + e, sum);
    }
  }
}

template <class Real>
inline void product_forward(const LayerPlan<Real>& layer, const ProductOp<Real>& op, Tile<Real>& tile) {
  const long length = static_cast<long>(tile.n_atoms) * op.stride;
  const Real* left = slot_rows(tile.values, layer.slots[op.left], tile);
  const Real* right = slot_rows(tile.values, layer.slots[op.right], tile);
  for (int i = 0; i < op.n_blocks; ++i) {
    const Block<Real>& block = op.blocks[i];
    gather(block.forward, length, left, right, tile.block, false);
    for (int c = 0; c < block.n_consumers; ++c) linear_forward(layer, block.consumers[c], tile);
  }
}

template <class Real>
inline void product_backward(const LayerPlan<Real>& layer, const ProductOp<Real>& op, Tile<Real>& tile) {
  const long length = static_cast<long>(tile.n_atoms) * op.stride;
  const Real* left = slot_rows(tile.values, layer.slots[op.left], tile);
  const Real* right = slot_rows(tile.values, layer.slots[op.right], tile);
  Real* left_gradient = slot_rows(tile.gradients, layer.slots[op.left], tile);
  Real* right_gradient = slot_rows(tile.gradients, layer.slots[op.right], tile);
  for (int i = 0; i < op.n_blocks; ++i) {
    const Block<Real>& block = op.blocks[i];
    const long size = block.n_rows * length;
    for (long e = 0; e < size; e += Pack<Real>::width) Pack<Real>::store(tile.block_gradient + e, Pack<Real>::zero());
    for (int c = 0; c < block.n_consumers; ++c) linear_backward(layer, block.consumers[c], tile);
    gather(block.adjoint_left, length, tile.block_gradient, right, left_gradient, true);
    gather(block.adjoint_right, length, tile.block_gradient, left, right_gradient, true);
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
