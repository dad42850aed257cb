// Small dense matrices: C[M x N] (+)= A[M x K] B[K x N], row-major, N a multiple of the vector width. M is rows times
// atoms (8 and more), K and N are channel counts (12 to 64), so B stays in L1 and nothing is packed.
#pragma once

#include "grace/evaluator_cpu/simd.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {

// Register tile of MR rows x NV vectors: MR * NV sums, NV vectors of B, one broadcast of A.
template <class Real, int MR, int NV>
GRACE_FORCEINLINE void gemm_tile(int K, const Real* A, int lda, const Real* B, int ldb, Real* C, int ldc, bool accumulate) {
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
  for (int k = 0; k < K; ++k) {
    V b[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) b[v] = P::load(B + static_cast<long>(k) * ldb + v * P::width);
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
inline void gemm_panel(int M, int K, const Real* A, int lda, const Real* B, int ldb, Real* C, int ldc, bool accumulate) {
  constexpr int MR = vector_bytes == 64 ? 8 : 4;  // 8 x 3 of 32 registers, 4 x 2 of 16
  int m = 0;
  for (; m + MR <= M; m += MR)
    gemm_tile<Real, MR, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc, accumulate);
  if constexpr (MR == 8) {
    for (; m + 4 <= M; m += 4)
      gemm_tile<Real, 4, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc, accumulate);
  }
  for (; m + 2 <= M; m += 2)
    gemm_tile<Real, 2, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc, accumulate);
  for (; m < M; ++m)
    gemm_tile<Real, 1, NV>(K, A + static_cast<long>(m) * lda, lda, B, ldb, C + static_cast<long>(m) * ldc, ldc, accumulate);
}

template <class Real>
inline void gemm(int M, int N, int K, const Real* A, int lda, const Real* B, int ldb, Real* C, int ldc, bool accumulate) {
  constexpr int width = Pack<Real>::width;
  int n = 0;
  if constexpr (vector_bytes == 64) {
    while (N - n >= 3 * width && N - n != 4 * width) {
      gemm_panel<Real, 3>(M, K, A, lda, B + n, ldb, C + n, ldc, accumulate);
      n += 3 * width;
    }
  }
  for (; N - n >= 2 * width; n += 2 * width) gemm_panel<Real, 2>(M, K, A, lda, B + n, ldb, C + n, ldc, accumulate);
  for (; n < N; n += width) gemm_panel<Real, 1>(M, K, A, lda, B + n, ldb, C + n, ldc, accumulate);
}

}  // namespace GRACE_ISA
}  // namespace grace::cpu
