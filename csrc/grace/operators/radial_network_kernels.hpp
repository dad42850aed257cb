// The radial network and the adjoint of its weights, for tiles of bonds whose layers stay in the L1 and L2 caches. The
// rows of a layer are the values of all bonds of the tile, then their derivatives: h' follows the same matrices as h.
#pragma once

#include "grace/evaluator_cpu/gemm.hpp"
#include "grace/math/dense.hpp"
#include "grace/operators/kernels.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

// C[M, stride] (+)= A[M, K] B[K, stride]
template <class Real>
void multiply(int M, int stride, int K, const Real* A, int lda, const Real* B, Real* C, bool accumulate) {
  constexpr int width = cpu::Pack<Real>::width;
  int n = 0;
  if constexpr (cpu::vector_bytes == 64)
    for (; n + 3 * width <= stride; n += 3 * width)
      cpu::gemm_panel<Real, 3>(M, K, A, lda, B + n, stride, C + n, stride, accumulate);
  for (; n + 2 * width <= stride; n += 2 * width)
    cpu::gemm_panel<Real, 2>(M, K, A, lda, B + n, stride, C + n, stride, accumulate);
  for (; n < stride; n += width) cpu::gemm_panel<Real, 1>(M, K, A, lda, B + n, stride, C + n, stride, accumulate);
}

// Rows [count, n] of values and of derivatives, one after the other, into rows of `stride` whose padding is zero.
template <class Real>
GRACE_FORCEINLINE void stack_rows(int count, int n, int stride, const Real* value, const Real* derivative, Real* rows) {
  for (int t = 0; t < count; ++t) {
    Real* a = rows + static_cast<long>(t) * stride;
    Real* b = rows + static_cast<long>(count + t) * stride;
    for (int k = 0; k < n; ++k) {
      a[k] = value[static_cast<long>(t) * n + k];
      b[k] = derivative[static_cast<long>(t) * n + k];
    }
    for (int k = n; k < stride; ++k) a[k] = b[k] = Real(0);
  }
}

template <class Real, bool Second>
GRACE_FORCEINLINE void activation(bool is_tanh, typename cpu::Pack<Real>::V x, typename cpu::Pack<Real>::V& value,
                                  typename cpu::Pack<Real>::V& first, typename cpu::Pack<Real>::V& second) {
  using P = cpu::Pack<Real>;
  if constexpr (Second) {
    if (is_tanh)
      math::tanh<P>(x, value, first, second);
    else
      math::silu<P>(x, value, first, second);
  } else {
    if (is_tanh)
      math::tanh<P>(x, value, first);
    else
      math::silu<P>(x, value, first);
  }
}

// (a, a') -> (f(a), f'(a) a') in place; with Keep also f'(a) and f''(a) a' for the adjoint.
template <class Real, bool Keep>
void activate(bool is_tanh, int count, int stride, Real* rows, Real* first, Real* second) {
  using P = cpu::Pack<Real>;
  using V = typename P::V;
  const long size = static_cast<long>(count) * stride;
  for (long e = 0; e < size; e += P::width) {
    const V slope = P::load(rows + size + e);
    V value, f1, f2;
    activation<Real, Keep>(is_tanh, P::load(rows + e), value, f1, f2);
    P::store(rows + e, value);
    P::store(rows + size + e, f1 * slope);
    if constexpr (Keep) {
      P::store(first + e, f1);
      P::store(second + e, f2 * slope);
    }
  }
}

template <class Real>
void network(const NetworkPlan<Real>& plan, Index begin, Index end, Real* value, Real* derivative, Real* scratch) {
  const int n_out = plan.width[plan.n_layers];
  int widest = 0;
  for (int k = 0; k <= plan.n_layers; ++k) widest = plan.stride[k] > widest ? plan.stride[k] : widest;
  for (Index b = begin; b < end; b += network_tile) {
    const int count = end - b < network_tile ? static_cast<int>(end - b) : network_tile;
    Real* h = scratch;
    Real* next = scratch + 2L * network_tile * widest;
    stack_rows(count, plan.width[0], plan.stride[0], plan.basis + b * plan.width[0], plan.slope + b * plan.width[0], h);
    for (int k = 0; k < plan.n_layers; ++k) {
      multiply(2 * count, plan.stride[k + 1], plan.width[k], h, plan.stride[k], plan.weights[k], next, false);
      if (k + 1 < plan.n_layers) activate<Real, false>(plan.is_tanh, count, plan.stride[k + 1], next, nullptr, nullptr);
      Real* swap = h;
      h = next;
      next = swap;
    }
    const long stride = plan.stride[plan.n_layers];
    for (int t = 0; t < count; ++t)
      for (int n = 0; n < n_out; ++n) {
        value[(b + t) * n_out + n] = h[t * stride + n];
        derivative[(b + t) * n_out + n] = h[(count + t) * stride + n];
      }
  }
}

template <class Real>
void network_adjoint(const NetworkPlan<Real>& plan, Index begin, Index end, const Real* value_gradient,
                     const Real* derivative_gradient, Real* const* sums, Real* scratch) {
  using P = cpu::Pack<Real>;
  const int L = plan.n_layers, n_out = plan.width[L];
  int widest = 0;
  for (int k = 0; k <= L; ++k) widest = plan.stride[k] > widest ? plan.stride[k] : widest;
  const long rows = 2L * network_tile;
  // two gradients, a transposed layer, then per layer its input, f' and f'' a'
  Real* g = scratch;
  Real* next = g + rows * widest;
  Real* transposed = next + rows * widest;
  Real* const layers = transposed + rows * widest;
  for (Index b = begin; b < end; b += network_tile) {
    const int count = end - b < network_tile ? static_cast<int>(end - b) : network_tile;
    Real* layer = layers;
    stack_rows(count, plan.width[0], plan.stride[0], plan.basis + b * plan.width[0], plan.slope + b * plan.width[0],
               layer);
    for (int k = 0; k + 1 < L; ++k) {
      Real* output = layer + 2 * rows * plan.stride[k];
      Real* first = output + rows * plan.stride[k + 1];
      multiply(2 * count, plan.stride[k + 1], plan.width[k], layer, plan.stride[k], plan.weights[k], output, false);
      activate<Real, true>(plan.is_tanh, count, plan.stride[k + 1], output, first,
                           first + network_tile * plan.stride[k + 1]);
      layer = output;
    }
    stack_rows(count, n_out, plan.stride[L], value_gradient + b * n_out, derivative_gradient + b * n_out, g);
    for (int k = L - 1; k >= 0; --k) {
      const int n_in = plan.width[k], stride = plan.stride[k];
      for (int t = 0; t < 2 * count; ++t)
        for (int i = 0; i < n_in; ++i) transposed[i * rows + t] = layer[static_cast<long>(t) * stride + i];
      multiply(n_in, plan.stride[k + 1], 2 * count, transposed, static_cast<int>(rows), g, sums[k], true);
      if (k == 0) break;
      multiply(2 * count, stride, plan.width[k + 1], g, plan.stride[k + 1], plan.transposed[k], next, false);
      // h = f(a), h' = f'(a) a':  ga = gh f' + gh' f'' a',  ga' = gh' f'
      const Real* first = layer + rows * stride;
      const Real* second = first + network_tile * stride;
      const long size = static_cast<long>(count) * stride;
      for (long e = 0; e < size; e += P::width) {
        const auto gh = P::load(next + e), gs = P::load(next + size + e), f1 = P::load(first + e);
        P::store(next + e, gh * f1 + gs * P::load(second + e));
        P::store(next + size + e, gs * f1);
      }
      Real* swap = g;
      g = next;
      next = swap;
      layer -= 2 * rows * plan.stride[k - 1];
    }
  }
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
