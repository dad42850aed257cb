// Small dense matrices: C[M x N] (+)= A[M x K] B[K x N]. M is rows times atoms (8 and more), K and N are channel counts
// (12 to 64), N padded to 64 bytes. A and C are row-major; B is packed in panels at load (panel_units in plan.hpp).
#pragma once

#include "grace/evaluator_cpu/plan.hpp"
#include "grace/evaluator_cpu/simd.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// Register tile of MR rows x NV vectors: MR * NV sums, NV vectors of B, one broadcast of A.
template <class Real, int MR, int NV>
GRACE_FORCEINLINE void gemm_tile(int K, const Real* A, int lda, const Real* B, int ldb, Real* C, int ldc,
                                 bool accumulate) {
  using P = Pack<Real>;
  using V = typename P::V;
  V sum[MR][NV];
  if (accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[r][v] = P::load(C + r * ldc + v * P::width);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[r][v] = P::zero();
  }
  constexpr int ahead = 16;  // rows of B to prefetch: weights come from L2 and L3, and the load ports have room
  for (int k = 0; k < K; ++k) {
    V b[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      const Real* p = B + static_cast<long>(k) * ldb + v * P::width;
      b[v] = P::load(p);
      __builtin_prefetch(p + static_cast<long>(ahead) * ldb);
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const V a = P::set(A[static_cast<long>(r) * lda + k]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[r][v] += a * b[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) P::store(C + r * ldc + v * P::width, sum[r][v]);
}

template <class Real, int NV>
inline void gemm_panel(int M, int K, const Real* A, int lda, const Real* B, int ldb, Real* C, int ldc,
                       bool accumulate) {
  constexpr int MR = vector_bytes == 64 ? 8 : 4;  // 8 x 3 of 32 registers, 4 x 2 of 16
  int m = 0;
  for (; m + MR <= M; m += MR)
    gemm_tile<Real, MR, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc,
                            accumulate);
  if constexpr (MR == 8) {
    for (; m + 4 <= M; m += 4)
      gemm_tile<Real, 4, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc,
                             accumulate);
  }
  for (; m + 2 <= M; m += 2)
    gemm_tile<Real, 2, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc,
                           accumulate);
  for (; m < M; ++m)
    gemm_tile<Real, 1, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc,
                           accumulate);
}

template <class Real>
inline void gemm(int M, int N, int K, const Real* A, int lda, const Real* B, Real* C, int ldc, bool accumulate) {
  constexpr int unit = row_bytes / static_cast<int>(sizeof(Real));
  for (int left = N / unit; left > 0;) {
    const int units = panel_units(left), panel = units * unit;
    if constexpr (vector_bytes == row_bytes) {
      if (units == 3) gemm_panel<Real, 3>(M, K, A, lda, B, panel, C, ldc, accumulate);
      if (units == 2) gemm_panel<Real, 2>(M, K, A, lda, B, panel, C, ldc, accumulate);
      if (units == 1) gemm_panel<Real, 1>(M, K, A, lda, B, panel, C, ldc, accumulate);
    } else {
      for (int n = 0; n < panel; n += 2 * Pack<Real>::width)
        gemm_panel<Real, 2>(M, K, A, lda, B + n, panel, C + n, ldc, accumulate);
    }
    B += static_cast<long>(K) * panel;
    C += panel;
    left -= units;
  }
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
