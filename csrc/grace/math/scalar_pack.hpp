// One number with the interface of a SIMD pack, for the activations of math/dense.hpp.
#pragma once

#include <cmath>

#include "grace/macros.hpp"

namespace grace::math {
inline namespace GRACE_ISA {

template <class R>
struct ScalarPack {
  using Real = R;
  using V = R;
  static GRACE_HD GRACE_FORCEINLINE R set(R x) { return x; }
  static GRACE_HD GRACE_FORCEINLINE R round(R x) { return std::nearbyint(x); }
  static GRACE_HD GRACE_FORCEINLINE R ldexp(R p, R k) { return std::ldexp(p, static_cast<int>(k)); }
  static GRACE_HD GRACE_FORCEINLINE R clamp(R x, R lo, R hi) { return x < lo ? lo : (x > hi ? hi : x); }
  static GRACE_HD GRACE_FORCEINLINE R abs(R x) { return std::fabs(x); }
  static GRACE_HD GRACE_FORCEINLINE R copysign(R magnitude, R sign) { return std::copysign(magnitude, sign); }
  static GRACE_HD GRACE_FORCEINLINE R select_less(R x, R bound, R yes, R no) { return x < bound ? yes : no; }
};

}  // namespace GRACE_ISA
}  // namespace grace::math
