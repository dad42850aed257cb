// One slot of the trilinear form of a coupling product: out[a, target] = sum c first[a, .] second[a, .].
#pragma once

#include "grace/operators/kernels.hpp"
#include "grace/operators/lanes.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

// Channels n .. n + NV width - 1 of one atom. The vectors of a term are independent, so that NV of them hide the
// latency of the sums.
template <class Real, class L, int NV>
GRACE_FORCEINLINE void product_channels(const CouplingProduct<Real>& form, const Gather<Real>& gather,
                                        const Real* first, const Real* second, Real* out) {
  using V = typename L::V;
  const Index nc = form.n_channels;
  for (Index target = 0; target < form.n_targets; ++target) {
    V sum[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[v] = L::zero();
    for (int t = gather.first_term[target]; t < gather.first_term[target + 1]; ++t) {
      const math::GatherTerm<Real> term = gather.terms[t];
      const Real* a = first + term.first * nc;
      const Real* b = second + term.second * nc;
      const V c = L::set(term.coefficient);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) math::coupling_term(c, L::load(a + v * L::width), L::load(b + v * L::width), sum[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) L::store(out + target * nc + v * L::width, sum[v]);
  }
}

template <class Real>
void product(const CouplingProduct<Real>& form, const Gather<Real>& gather, Index begin, Index end, Real* out) {
  const Index nc = form.n_channels;
  with_lanes<Real>(nc, [&](auto lanes) __attribute__((always_inline)) {
    using L = decltype(lanes);
    for (Index atom = begin; atom < end; ++atom) {
      const Real* first = form.first + atom * form.n_first * nc;
      const Real* second = form.second + atom * form.n_second * nc;
      Real* target = out + atom * form.n_targets * nc;
      Index n = 0;
      for (; n + 4 * L::width <= nc; n += 4 * L::width)
        product_channels<Real, L, 4>(form, gather, first + n, second + n, target + n);
      for (; n + 2 * L::width <= nc; n += 2 * L::width)
        product_channels<Real, L, 2>(form, gather, first + n, second + n, target + n);
      if (n + L::width <= nc) {
        product_channels<Real, L, 1>(form, gather, first + n, second + n, target + n);
        n += L::width;
      }
      if (n < nc) {
        n = nc - L::width;
        product_channels<Real, L, 1>(form, gather, first + n, second + n, target + n);
      }
    }
  });
}

}  // namespace
}  // namespace GRACE_ISA
}  // namespace grace::ops
