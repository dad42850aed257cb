// Products of small matrices on tensor cores: C += A B of 16 x 8 and 8 x 8 numbers in TF32 (8 bits of exponent, 10 of
// mantissa), the sums in fp32, by the 32 lanes of a warp together (Warp::multiply_add, device/kernel.hpp).
//
// Every lane holds a part of each matrix. With lane = 4 g + t (PTX mma.m16n8k8):
//   A[16][8]  x[0] = A[g][t]     x[1] = A[g + 8][t]      x[2] = A[g][t + 4]   x[3] = A[g + 8][t + 4]
//   B[8][8]   x[0] = B[t][g]     x[1] = B[t + 4][g]
//   C[16][8]  x[0] = C[g][2 t]   x[1] = C[g][2 t + 1]    x[2] = C[g + 8][2 t]   x[3] = C[g + 8][2 t + 1]
#pragma once

#include <cstdint>
#include <cstring>

#include "grace/macros.hpp"

namespace grace::device {

// The bits of an fp32 number. Tensor cores do not read the lower 13, which rounds towards zero.
struct Tf32 {
  std::uint32_t bits;
};

GRACE_DEVICE Tf32 as_tf32(float x) {
#if defined(__CUDA_ARCH__)
  return {__float_as_uint(x)};
#else
  Tf32 made;
  std::memcpy(&made.bits, &x, sizeof(x));
  return made;
#endif
}

GRACE_DEVICE float from_tf32(Tf32 x) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(x.bits);
#else
  float value;
  std::memcpy(&value, &x.bits, sizeof(value));
  return value;
#endif
}

// The nearest number, with lower bits of zero; ties go away from zero. A NaN may become a zero:
// x - from_tf32(nearest_tf32(x)) still is one. The instruction for it, cvt.tf32, promises nothing about the lower bits.
GRACE_DEVICE Tf32 nearest_tf32(float x) { return {(as_tf32(x).bits + 0x1000u) & 0xffffe000u}; }

struct MmaA {
  Tf32 x[4];
};
struct MmaB {
  Tf32 x[2];
};
struct alignas(16) MmaC {
  float x[4];
};

// The parts of one lane.
struct MmaOperands {
  MmaC* c;
  const MmaA* a;
  const MmaB* b;
};

#if defined(__CUDACC__)
__device__ __forceinline__ void mma(const MmaOperands& lane) {
  float* c = lane.c->x;
  const Tf32 *a = lane.a->x, *b = lane.b->x;
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0].bits), "r"(a[1].bits), "r"(a[2].bits), "r"(a[3].bits), "r"(b[0].bits), "r"(b[1].bits));
}
#endif

// The same on the CPU, which reads the upper bits only. Products are exact; they and the number of C are cut at the
// last bit of the largest of them, added, and the sum is rounded towards zero: the least exact of what tensor cores
// were seen to do.
void emulate_mma(const MmaOperands (&lanes)[32]);

}  // namespace grace::device
