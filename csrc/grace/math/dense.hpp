// Dense-layer activations and their derivatives, for scalars and for SIMD packs alike.
#pragma once

#include "grace/macros.hpp"

namespace grace::math {
inline namespace GRACE_ISA {

// e^x for |x| up to ~700 (double) or ~87 (float); clamped outside. Cody-Waite reduction x = k ln2 + r, then a Taylor
// polynomial of r in [-ln2/2, ln2/2]; 2^k is assembled by Pack::ldexp. Relative error < 3 units in the last place.
// g++ turns std::exp loops into vector code only under -ffast-math, which would also remove NaN checks.
template <class Pack>
GRACE_HD GRACE_FORCEINLINE typename Pack::V exponential(typename Pack::V x) {
  using V = typename Pack::V;
  using Real = typename Pack::Real;
  constexpr bool is_double = sizeof(Real) == 8;
  x = Pack::clamp(x, is_double ? Real(-708) : Real(-87), is_double ? Real(708) : Real(87));
  const V k = Pack::round(x * Real(1.4426950408889634074));
  // ln2 in two parts: the first has enough trailing zeros that k * part is exact.
  V r = x - k * (is_double ? Real(6.93147180369123816490e-01) : Real(0.693359375));
  r = r - k * (is_double ? Real(1.90821492927058770002e-10) : Real(-2.12194440e-4));
  V p;
  if constexpr (is_double) {
    p = Pack::set(Real(1.0 / 6227020800.0));
    p = p * r + Real(1.0 / 479001600.0);
    p = p * r + Real(1.0 / 39916800.0);
    p = p * r + Real(1.0 / 3628800.0);
    p = p * r + Real(1.0 / 362880.0);
    p = p * r + Real(1.0 / 40320.0);
    p = p * r + Real(1.0 / 5040.0);
    p = p * r + Real(1.0 / 720.0);
  } else {
    p = Pack::set(Real(1.0 / 5040.0));
    p = p * r + Real(1.0 / 720.0);
  }
  p = p * r + Real(1.0 / 120.0);
  p = p * r + Real(1.0 / 24.0);
  p = p * r + Real(1.0 / 6.0);
  p = p * r + Real(0.5);
  p = p * r + Real(1);
  p = p * r + Real(1);
  return Pack::ldexp(p, k);
}

// silu(x) = x sigmoid(x); derivative = s + x s (1 - s).
template <class Pack>
GRACE_HD GRACE_FORCEINLINE void silu(typename Pack::V x, typename Pack::V& value, typename Pack::V& derivative) {
  using Real = typename Pack::Real;
  const typename Pack::V s = Real(1) / (Real(1) + exponential<Pack>(-x));
  value = x * s;
  derivative = s + value * (Real(1) - s);
}

// The same with the second derivative s (1 - s) (2 + x (1 - 2s)).
template <class Pack>
GRACE_HD GRACE_FORCEINLINE void silu(typename Pack::V x, typename Pack::V& value, typename Pack::V& derivative,
                                     typename Pack::V& second) {
  using Real = typename Pack::Real;
  const typename Pack::V s = Real(1) / (Real(1) + exponential<Pack>(-x));
  value = x * s;
  derivative = s + value * (Real(1) - s);
  second = s * (Real(1) - s) * (Real(2) + x * (Real(1) - Real(2) * s));
}

// tanh(x) = (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x; derivative = 1 - tanh^2. Below |x| = 0.1 the difference
// 1 - e^-2|x| would cancel: there a Taylor polynomial is used.
template <class Pack>
GRACE_HD GRACE_FORCEINLINE void tanh(typename Pack::V x, typename Pack::V& value, typename Pack::V& derivative) {
  using V = typename Pack::V;
  using Real = typename Pack::Real;
  const V magnitude = Pack::abs(x);
  const V e = exponential<Pack>(Real(-2) * magnitude);
  const V large = (Real(1) - e) / (Real(1) + e);
  const V q = x * x;
  V series = q * Real(-929569.0 / 638512875.0) + Real(21844.0 / 6081075.0);
  series = series * q + Real(-1382.0 / 155925.0);
  series = series * q + Real(62.0 / 2835.0);
  series = series * q + Real(-17.0 / 315.0);
  series = series * q + Real(2.0 / 15.0);
  series = series * q + Real(-1.0 / 3.0);
  series = series * q + Real(1);
  const V t = Pack::select_less(magnitude, Real(0.1), series * magnitude, large);
  value = Pack::copysign(t, x);
  derivative = Real(1) - t * t;
}

// The same with the second derivative -2 tanh(x) (1 - tanh^2).
template <class Pack>
GRACE_HD GRACE_FORCEINLINE void tanh(typename Pack::V x, typename Pack::V& value, typename Pack::V& derivative,
                                     typename Pack::V& second) {
  using Real = typename Pack::Real;
  tanh<Pack>(x, value, derivative);
  second = Real(-2) * value * derivative;
}

}  // namespace GRACE_ISA
}  // namespace grace::math
