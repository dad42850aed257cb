// Radial basis: Chebyshev polynomials under a polynomial envelope, as functions of x = d / rc(pair)
// (docs/theory.md, Radial functions).
#pragma once

#include "grace/macros.hpp"

namespace grace::math {
inline namespace GRACE_ISA {

// f_p(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), zero with its first two derivatives at x = 1.
// That sum cancels near x = 1; the same polynomial is (1 - x)^3 sum_{k<p} (k+1)(k+2)/2 x^k, whose terms are positive.
// f_p' = -p(p+1)(p+2)/2 x^(p-1) (1 - x)^2.
template <class T, class Real>
GRACE_HD GRACE_FORCEINLINE void envelope(T x, int p, Real unit, T& value, T& derivative) {
  T sum = x * Real(0) + Real(0.5) * Real(p * (p + 1));
  T power = x * Real(0) + unit;  // x^(p-1)
  for (int k = p - 2; k >= 0; --k) {
    sum = sum * x + Real(0.5) * Real((k + 1) * (k + 2));
    power = power * x;
  }
  const T y = unit - x;
  value = y * y * y * sum;
  derivative = Real(-0.5) * Real(p * (p + 1) * (p + 2)) * power * y * y;
}

// g_k(x) = T_k(2x - 1) f_p(x), k = 1..n (T_0 is not used), and dg_k/dx, both zero for x >= 1 by the caller's mask.
template <class T, class Real>
GRACE_HD GRACE_FORCEINLINE void chebyshev_basis(T x, int n, int p, Real unit, T* g, T* dg) {
  T f, df;
  envelope(x, p, unit, f, df);
  const T t = Real(2) * x - unit;
  T before = x * Real(0) + unit, current = t;
  T dbefore = x * Real(0), dcurrent = x * Real(0) + Real(2);  // dT/dx = 2 dT/dt
  for (int k = 0; k < n; ++k) {
    g[k] = current * f;
    dg[k] = dcurrent * f + current * df;
    const T next = Real(2) * t * current - before;
    const T dnext = Real(4) * current + Real(2) * t * dcurrent - dbefore;
    before = current;
    current = next;
    dbefore = dcurrent;
    dcurrent = dnext;
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::math
