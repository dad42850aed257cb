// Real spherical harmonics, 4pi-normalised (mean of Y^2 over the sphere is 1, Y_00 = 1), no Condon-Shortley phase.
// Slot of (l, m) = l^2 + l + m. Evaluated as polynomials of the vector u as given (|u| is slightly below 1,
// docs/theory.md, Bonds):
//   m > 0: sqrt2 P_lm(z) Re(x + iy)^m,  m < 0: sqrt2 P_l|m|(z) Im(x + iy)^|m|,  m = 0: P_l0(z)
//   P_mm = prod_k sqrt((2k+1)/2k),  P_{m+1,m} = sqrt(2m+3) z P_mm,  P_lm = a_lm (z P_{l-1,m} - b_lm P_{l-2,m})
#pragma once

#include "grace/macros.hpp"

namespace grace::math {

constexpr int max_lmax = 8;

// Constants of the recurrence, filled once per evaluator.
template <class Real>
struct HarmonicsTable {
  int lmax = 0;
  Real p_mm[max_lmax + 1];
  Real first[max_lmax + 1];            // sqrt(2m + 3)
  Real a[max_lmax + 1][max_lmax + 1];  // [l][m], l >= m + 2
  Real b[max_lmax + 1][max_lmax + 1];
};

inline namespace GRACE_ISA {

// Values Y[slot] and, with Gradient, dY/du as grad[3 * slot + axis] (axes independent: u is not constrained to the
// sphere). T is a scalar or a SIMD pack of Real; the caller gives arrays of (lmax + 1)^2 and 3 (lmax + 1)^2 elements.
template <bool Gradient, class T, class Real>
GRACE_HD GRACE_FORCEINLINE void spherical_harmonics(const HarmonicsTable<Real>& table, T x, T y, T z, T* Y, T* grad) {
  const Real sqrt2 = Real(1.41421356237309504880);
  // cosine[m] + i sine[m] = (x + iy)^m
  T cosine = x * Real(0) + Real(1), sine = x * Real(0);
  T cosine_before = x * Real(0), sine_before = x * Real(0);  // of m - 1, for derivatives
  for (int m = 0; m <= table.lmax; ++m) {
    const Real factor = m == 0 ? Real(1) : sqrt2;
    T p_before = x * Real(0), p = x * Real(0) + table.p_mm[m];  // P_{l-1,m}, P_{l,m}
    T dp_before = x * Real(0), dp = x * Real(0);                // d/dz
    for (int l = m; l <= table.lmax; ++l) {
      if (l == m + 1) {
        p_before = p;
        dp_before = dp;
        dp = table.first[m] * p;
        p = table.first[m] * z * p;
      } else if (l > m + 1) {
        const Real a = table.a[l][m], b = table.b[l][m];
        const T next = a * (z * p - b * p_before);
        const T dnext = a * (p + z * dp - b * dp_before);
        p_before = p;
        p = next;
        dp_before = dp;
        dp = dnext;
      }
      const int plus = l * l + l + m, minus = l * l + l - m;
      const T q = factor * p;
      Y[plus] = q * cosine;
      if (m > 0) Y[minus] = q * sine;
      if constexpr (Gradient) {
        const T dq = factor * dp;
        const T mq = Real(m) * q;
        // d(x + iy)^m/dx = m (x + iy)^(m-1), d/dy = i m (x + iy)^(m-1)
        grad[3 * plus + 0] = mq * cosine_before;
        grad[3 * plus + 1] = -mq * sine_before;
        grad[3 * plus + 2] = dq * cosine;
        if (m > 0) {
          grad[3 * minus + 0] = mq * sine_before;
          grad[3 * minus + 1] = mq * cosine_before;
          grad[3 * minus + 2] = dq * sine;
        }
      }
    }
    cosine_before = cosine;
    sine_before = sine;
    const T next_cosine = x * cosine - y * sine;
    sine = x * sine + y * cosine;
    cosine = next_cosine;
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::math
