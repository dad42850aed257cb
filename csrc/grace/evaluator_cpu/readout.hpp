// Readout e = x_0 + MLP(x_1..x_n) of a tile's densities, value and gradient in double.
#pragma once

#include "grace/evaluator_cpu/gemm.hpp"
#include "grace/evaluator_cpu/plan.hpp"
#include "grace/math/dense.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// x: [n_atoms][x_stride]; energy: [n_atoms]; gradient: [n_atoms][x_stride] de/dx, or nullptr.
// scratch: [2 * n_layers + 2][n_atoms][widest].
inline void readout(const ReadoutPlan& plan, int n_atoms, const double* x, int x_stride, double* energy,
                    double* gradient, double* scratch) {
  using P = Pack<double>;
  using V = P::V;
  const long plane = static_cast<long>(n_atoms) * plan.widest;
  double* values = scratch;                          // [layer] activations
  double* slopes = scratch + plan.n_layers * plane;  // [layer] activation derivatives
  for (int layer = 0; layer < plan.n_layers; ++layer) {
    const double* in = layer == 0 ? x + 1 : values + (layer - 1) * plane;
    double* out = values + layer * plane;
    const int N = plan.layer_out[layer];
    gemm(n_atoms, N, plan.layer_in[layer], in, layer == 0 ? x_stride : plan.widest, plan.layer_weights[layer], out,
         plan.widest, false);
    if (layer + 1 == plan.n_layers) break;
    for (int a = 0; a < n_atoms; ++a)
      for (int k = 0; k < N; k += P::width) {
        V y, dy;
        double* p = out + static_cast<long>(a) * plan.widest + k;
        if (plan.is_tanh)
          math::tanh<P>(P::load(p), y, dy);
        else
          math::silu<P>(P::load(p), y, dy);
        P::store(p, y);
        P::store(slopes + layer * plane + static_cast<long>(a) * plan.widest + k, dy);
      }
  }
  const double* last = values + (plan.n_layers - 1) * plane;
  for (int a = 0; a < n_atoms; ++a)
    energy[a] = x[static_cast<long>(a) * x_stride] + last[static_cast<long>(a) * plan.widest];
  if (gradient == nullptr) return;

  double* upper = scratch + 2L * plan.n_layers * plane;
  double* lower = upper + plane;
  for (int a = 0; a < n_atoms; ++a) upper[static_cast<long>(a) * plan.widest] = 1.0;
  int upper_width = 1;
  for (int layer = plan.n_layers - 1; layer >= 0; --layer) {
    const int N = plan.layer_transposed_width[layer];
    gemm(n_atoms, N, upper_width, upper, plan.widest, plan.layer_transposed[layer], lower, plan.widest, false);
    upper_width = plan.layer_in[layer];
    if (layer > 0) {
      for (int a = 0; a < n_atoms; ++a)
        for (int k = 0; k < upper_width; ++k)
          lower[static_cast<long>(a) * plan.widest + k] *=
              slopes[(layer - 1) * plane + static_cast<long>(a) * plan.widest + k];
    }
    double* swap = upper;
    upper = lower;
    lower = swap;
  }
  for (int a = 0; a < n_atoms; ++a) {
    gradient[static_cast<long>(a) * x_stride] = 1.0;
    for (int k = 0; k < upper_width; ++k)
      gradient[static_cast<long>(a) * x_stride + 1 + k] = upper[static_cast<long>(a) * plan.widest + k];
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
