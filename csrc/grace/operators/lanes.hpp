// Vectors of any width for the operators, whose channel counts are whatever the model says: the loops over channels run
// in whole vectors, the last of which ends at the last channel and overlaps the one before it.
#pragma once

#include <utility>

#include "grace/evaluator_cpu/simd.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {

template <class R, int Width>
struct Lanes {
  using Real = R;
  static constexpr int width = Width;
  typedef R V __attribute__((vector_size(Width * sizeof(R))));

  static GRACE_FORCEINLINE V load(const R* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof(V));
    return v;
  }
  static GRACE_FORCEINLINE void store(R* p, V v) { __builtin_memcpy(p, &v, sizeof(V)); }
  static GRACE_FORCEINLINE V zero() { return V{}; }
  static GRACE_FORCEINLINE V set(R x) { return x - V{}; }
};

// The widest vectors of this instruction set, 4 and 1: a count of channels uses the widest that it fills.
template <class Real>
constexpr int native_width = cpu::vector_bytes / static_cast<int>(sizeof(Real));

// f(Lanes<Real, width>{}) with the widest vectors that n_channels numbers fill.
template <class Real, class Function>
GRACE_FORCEINLINE void with_lanes(long n_channels, Function f) {
  constexpr int native = native_width<Real>;
  if (n_channels >= native) return f(Lanes<Real, native>{});
  if constexpr (native > 4)
    if (n_channels >= 4) return f(Lanes<Real, 4>{});
  f(Lanes<Real, 1>{});
}

// f(n, overlap) for the first channel n of every vector; `overlap` of its lanes were in the vector before. n_channels
// is at least `width`, as with_lanes sees to.
template <class L, class Function>
GRACE_FORCEINLINE void for_channels(long n_channels, Function f) {
  long n = 0;
  for (; n + L::width <= n_channels; n += L::width) f(n, 0);
  if (n < n_channels) f(n_channels - L::width, static_cast<int>(n - (n_channels - L::width)));
}

// 0 in the first `overlap` lanes, 1 in the others: factor of what is added up over channels.
template <class L>
GRACE_FORCEINLINE typename L::V fresh_lanes(int overlap) {
  typename L::Real lanes[L::width];
  for (int k = 0; k < L::width; ++k) lanes[k] = k < overlap ? 0 : 1;
  return L::load(lanes);
}

// ---- sums over lanes of many vectors at once -----------------------------------------------------------------------

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define GRACE_SHUFFLES
#endif
#endif

#ifdef GRACE_SHUFFLES
// Lane i of the result: the sum of lanes i and i ^ K of `a` where bit K of i is clear, of `b` where it is set.
template <class L, int K, int... I>
GRACE_FORCEINLINE typename L::V fold(typename L::V a, typename L::V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, ((I & K) != 0 ? L::width + I : I)...) +
         __builtin_shufflevector(a, b, ((I & K) != 0 ? L::width + (I ^ K) : (I ^ K))...);
}

template <class L, int K>
GRACE_FORCEINLINE void fold_all(typename L::V* rows) {
  if constexpr (K < L::width) {
#pragma GCC unroll 16
    for (int k = 0; k < L::width; k += 2 * K)
      rows[k] = fold<L, K>(rows[k], rows[k + K], std::make_integer_sequence<int, L::width>{});
    fold_all<L, 2 * K>(rows);
  }
}
#endif

// out[row] = sum of the lanes of rows[row], row < N. A tree of shuffles: a sum over the lanes of single vectors would
// cost several times the products that it follows.
template <class L, int N>
GRACE_FORCEINLINE void sum_lanes(const typename L::V* rows, typename L::Real* out) {
  using Real = typename L::Real;
#ifdef GRACE_SHUFFLES
#pragma GCC unroll 16
  for (int first = 0; first < N; first += L::width) {
    typename L::V group[L::width];
#pragma GCC unroll 16
    for (int k = 0; k < L::width; ++k) group[k] = first + k < N ? rows[first + k] : L::zero();
    fold_all<L, 1>(group);
    Real sums[L::width];
    L::store(sums, group[0]);
    const int count = N - first < L::width ? N - first : L::width;
#pragma GCC unroll 16
    for (int k = 0; k < count; ++k) out[first + k] = sums[k];
  }
#else
  for (int row = 0; row < N; ++row) {
    Real lanes[L::width];
    L::store(lanes, rows[row]);
    for (int step = L::width / 2; step > 0; step /= 2)
      for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
    out[row] = lanes[0];
  }
#endif
}

// out[row] += sum of the lanes of rows[row], row < n.
template <class L>
GRACE_FORCEINLINE void add_lane_sums(const typename L::V* rows, int n, typename L::Real* out) {
  for (int first = 0; first < n; first += L::width) {
    typename L::V group[L::width];
    typename L::Real sums[L::width];
#pragma GCC unroll 16
    for (int k = 0; k < L::width; ++k) group[k] = first + k < n ? rows[first + k] : L::zero();
    sum_lanes<L, L::width>(group, sums);
    for (int k = 0; k < L::width && first + k < n; ++k) out[first + k] += sums[k];
  }
}

// f.operator()<LA, LB>() over groups of degrees whose 2l + 1 rows fit the registers: {0..3}, {4}, {5}, ... (32
// registers) or {0..2}, {3}, ... (16).
template <class Function>
GRACE_FORCEINLINE void for_degree_groups(int lmax, Function f) {
  constexpr bool wide = cpu::vector_bytes == 64;
  if (lmax == 0) f.template operator()<0, 0>();
  if (lmax == 1) f.template operator()<0, 1>();
  if (lmax == 2 || (!wide && lmax > 2)) f.template operator()<0, 2>();
  if (wide && lmax >= 3) f.template operator()<0, 3>();
  if (!wide && lmax >= 3) f.template operator()<3, 3>();
  if (lmax >= 4) f.template operator()<4, 4>();
  if (lmax >= 5) f.template operator()<5, 5>();
  if (lmax >= 6) f.template operator()<6, 6>();
  if (lmax >= 7) f.template operator()<7, 7>();
  if (lmax >= 8) f.template operator()<8, 8>();
}

}  // namespace GRACE_ISA
}  // namespace grace::ops
