// Atomic operations of device kernels. The emulated device runs one thread at a time, so plain operations do there.
#pragma once

#include <cmath>
#include <cstdint>

#include "grace/macros.hpp"

namespace grace::device {

GRACE_DEVICE void atomic_add(double* to, double value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, value);
#else
  *to += value;
#endif
}

GRACE_DEVICE void atomic_add(float* to, float value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, value);
#else
  *to += value;
#endif
}

GRACE_DEVICE void atomic_add(std::int64_t* to, std::int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
#else
  *to += value;
#endif
}

// Returns the value before.
GRACE_DEVICE int atomic_add(int* to, int value) {
#if defined(__CUDA_ARCH__)
  return atomicAdd(to, value);
#else
  const int before = *to;
  *to += value;
  return before;
#endif
}

GRACE_DEVICE void atomic_min(std::uint64_t* to, std::uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMin(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
#else
  if (value < *to) *to = value;
#endif
}

// Sums that several blocks add to. Floating-point atomics depend on the order of the additions; with `fixed_point` the
// terms are integers of 2^-bits, so that the sum does not (option `deterministic`). The memory holds 8-byte numbers.
template <class Real>
struct AtomicSum {
  void* data = nullptr;  // Real, or int64 with fixed_point
  bool fixed_point = false;
  double scale = 1.0;  // 2^bits

  GRACE_DEVICE void add(std::int64_t index, Real value) const {
    if (fixed_point)
      atomic_add(static_cast<std::int64_t*>(data) + index,
                 static_cast<std::int64_t>(std::llrint(static_cast<double>(value) * scale)));
    else
      atomic_add(static_cast<Real*>(data) + index, value);
  }
};

}  // namespace grace::device
