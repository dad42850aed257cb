// SIMD packs through the compiler's vector extensions: one text for every instruction set; the width follows the flags
// this translation unit is compiled with.
#pragma once

#include <cstdint>

#include "grace/macros.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class R>
struct Pack;

#define GRACE_PACK(REAL, INTEGER, MANTISSA, BIAS, SHIFTER)                                                       \
  template <>                                                                                                    \
  struct Pack<REAL> {                                                                                            \
    using Real = REAL;                                                                                           \
    typedef REAL V __attribute__((vector_size(vector_bytes), may_alias));                                        \
    typedef REAL VU __attribute__((vector_size(vector_bytes), may_alias, aligned(sizeof(REAL))));                \
    typedef INTEGER VI __attribute__((vector_size(vector_bytes), may_alias));                                    \
    static constexpr int width = vector_bytes / sizeof(REAL);                                                    \
    static GRACE_FORCEINLINE V load(const REAL* p) { return *reinterpret_cast<const VU*>(p); }                   \
    static GRACE_FORCEINLINE void store(REAL* p, V v) { *reinterpret_cast<VU*>(p) = v; }                         \
    static GRACE_FORCEINLINE V set(REAL x) { return x - V{}; }                                                   \
    static GRACE_FORCEINLINE V zero() { return V{}; }                                                            \
    /* nearest integer, by adding and removing 1.5 * 2^mantissa */                                               \
    static GRACE_FORCEINLINE V round(V x) { return (x + REAL(SHIFTER)) - REAL(SHIFTER); }                        \
    /* p * 2^k for integer-valued k within the exponent range */                                                 \
    static GRACE_FORCEINLINE V ldexp(V p, V k) {                                                                 \
      const VI bits = reinterpret_cast<VI>(k + REAL(SHIFTER) + REAL(BIAS)) << MANTISSA;                          \
      return p * reinterpret_cast<V>(bits);                                                                      \
    }                                                                                                            \
    static GRACE_FORCEINLINE V clamp(V x, REAL lo, REAL hi) {                                                    \
      x = x < lo ? set(lo) : x;                                                                                  \
      return x > hi ? set(hi) : x;                                                                               \
    }                                                                                                            \
    static GRACE_FORCEINLINE V abs(V x) { return x < REAL(0) ? -x : x; }                                         \
    static GRACE_FORCEINLINE V copysign(V magnitude, V sign) { return sign < REAL(0) ? -magnitude : magnitude; } \
    static GRACE_FORCEINLINE V select_less(V x, REAL bound, V yes, V no) { return x < bound ? yes : no; }        \
    static GRACE_FORCEINLINE REAL sum(V v) {                                                                     \
      REAL lanes[width];                                                                                         \
      store(lanes, v);                                                                                           \
      for (int step = width / 2; step > 0; step /= 2)                                                            \
        for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];                                              \
      return lanes[0];                                                                                           \
    }                                                                                                            \
  };

GRACE_PACK(double, std::int64_t, 52, 1023.0, 6755399441055744.0)
GRACE_PACK(float, std::int32_t, 23, 127.0f, 12582912.0f)
#undef GRACE_PACK

}  // namespace GRACE_ISA
}  // namespace grace::cpu
