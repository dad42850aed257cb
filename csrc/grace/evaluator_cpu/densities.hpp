// Densities between the tile's tensors (Real, padded) and the norm and readout (double).
#pragma once

#include "grace/evaluator_cpu/plan.hpp"
#include "grace/evaluator_cpu/tile.hpp"
#include "grace/math/density_norm.hpp"

namespace grace::cpu {

// Densities of the tile in double, [atom][stride], from the layer's slot.
template <class Real>
void read_densities(const LayerPlan<Real>& plan, const Tile<Real>& tile, int stride, double* x) {
  const Slot& slot = plan.slots[plan.density];
  const Real* rows = tile.values + slot.offset * tile.n_atoms;
  for (int a = 0; a < tile.n_atoms; ++a)
    for (int k = 0; k < stride; ++k)
      x[a * stride + k] = k < slot.n_channels ? static_cast<double>(rows[a * slot.stride + k]) : 0.0;
}

template <class Real>
void write_density_gradient(const LayerPlan<Real>& plan, Tile<Real>& tile, int stride, const double* gx) {
  const Slot& slot = plan.slots[plan.density];
  Real* rows = tile.gradients + slot.offset * tile.n_atoms;
  for (int a = 0; a < tile.n_atoms; ++a)
    for (int k = 0; k < slot.stride; ++k)
      rows[a * slot.stride + k] = k < slot.n_channels ? static_cast<Real>(gx[a * stride + k]) : Real(0);
}

// n densities of each atom, rows of `stride`.
inline void apply_norm(const NormPlan& norm, int n_atoms, int n, int stride, const double* x, double* y) {
  for (int a = 0; a < n_atoms; ++a, x += stride, y += stride) {
    if (!norm.present) {
      for (int k = 0; k < n; ++k) y[k] = x[k];
    } else if (norm.only_nonlinear) {
      y[0] = x[0] * norm.gate;
      math::rms_norm(n - 1, x + 1, norm.scale, y + 1);
    } else {
      math::rms_norm(n, x, norm.scale, y);
    }
  }
}

inline void apply_norm_adjoint(const NormPlan& norm, int n_atoms, int n, int stride, const double* x, const double* gy,
                               double* gx) {
  for (int a = 0; a < n_atoms; ++a, x += stride, gy += stride, gx += stride) {
    if (!norm.present) {
      for (int k = 0; k < n; ++k) gx[k] = gy[k];
    } else if (norm.only_nonlinear) {
      gx[0] = gy[0] * norm.gate;
      math::rms_norm_adjoint(n - 1, x + 1, norm.scale, gy + 1, gx + 1);
    } else {
      math::rms_norm_adjoint(n, x, norm.scale, gy, gx);
    }
  }
}

}  // namespace grace::cpu
