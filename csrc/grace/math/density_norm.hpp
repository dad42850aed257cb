// RMS norm over the densities of one atom (docs/theory.md, Two layers): y_k = s_k x_k / sqrt(mean_k x_k^2 + 1e-10).
#pragma once

#include "grace/macros.hpp"

namespace grace::math {
inline namespace GRACE_ISA {

constexpr double density_norm_epsilon = 1e-10;

GRACE_HD GRACE_FORCEINLINE double inverse_rms(int n, const double* x) {
  double sum = 0.0;
  for (int k = 0; k < n; ++k) sum += x[k] * x[k];
  return 1.0 / __builtin_sqrt(sum / n + density_norm_epsilon);
}

GRACE_HD GRACE_FORCEINLINE void rms_norm(int n, const double* x, const double* scale, double* y) {
  const double inverse = inverse_rms(n, x);
  for (int k = 0; k < n; ++k) y[k] = x[k] * scale[k] * inverse;
}

// gx_k = s_k gy_k / r - x_k (sum_j s_j gy_j x_j) / (n r^3); gx may be gy.
GRACE_HD GRACE_FORCEINLINE void rms_norm_adjoint(int n, const double* x, const double* scale, const double* gy,
                                                 double* gx) {
  const double inverse = inverse_rms(n, x);
  double dot = 0.0;
  for (int k = 0; k < n; ++k) dot += scale[k] * gy[k] * x[k];
  const double c = dot * inverse * inverse * inverse / n;
  for (int k = 0; k < n; ++k) gx[k] = scale[k] * gy[k] * inverse - x[k] * c;
}

}  // namespace GRACE_ISA
}  // namespace grace::math
