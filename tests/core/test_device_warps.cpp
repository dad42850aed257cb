// Products of matrices by warps and asynchronous copies on the emulated device.
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "grace/device/buffer.hpp"
#include "grace/device/emulated_device.hpp"
#include "grace/device/mma.hpp"

using namespace grace::device;

namespace {

std::vector<float> read(EmulatedDevice& device, const Buffer<EmulatedDevice, float>& buffer) {
  std::vector<float> list(buffer.size());
  buffer.download(list.data(), list.size());
  device.synchronize();
  return list;
}

// C += A B of small integers, which every step of the units keeps exact.
struct OneProduct {
  static constexpr const char* name = "one_product";
  static constexpr int threads = 32;
  struct Private {
    MmaA a;
    MmaB b;
    MmaC c;
  };
  const float *A, *B;  // [16][8], [8][8]
  float* C;            // [16][8]

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_warp([&](auto& warp) {
      warp.each_lane([&](int lane, Private& own) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) {
          own.a.x[i] = nearest_tf32(A[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
          own.c.x[i] = C[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
        }
        for (int i = 0; i < 2; ++i) own.b.x[i] = nearest_tf32(B[(t + 4 * i) * 8 + g]);
      });
      warp.multiply_add([](Private& own) { return MmaOperands{&own.c, &own.a, &own.b}; });
      warp.each_lane([&](int lane, Private& own) {
        for (int i = 0; i < 4; ++i) C[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = own.c.x[i];
      });
    });
  }
};

// A copy that is read without waiting for it.
template <bool waits>
struct EarlyCopy {
  static constexpr const char* name = "early_copy";
  static constexpr int threads = 32;
  using Private = NoPrivate;
  const float* from;  // [32][4]
  float* to;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    float* shared = block.template shared<float>(128);
    block.each_thread([&](int thread, Private&) {
      block.copy_async(shared + 4 * thread, from + 4 * thread);
      block.commit_copies();
      block.commit_copies();
      if (waits)
        block.template wait_copies<1>();
      else
        block.template wait_copies<2>();
    });
    block.each_thread([&](int thread, Private&) {
      for (int i = 0; i < 4; ++i) to[4 * thread + i] = shared[4 * (31 - thread) + i];
    });
  }
};

}  // namespace

TEST(emulated_device_multiplies_matrices_by_warps) {
  std::vector<float> A(128), B(64), C(128), expected(128);
  for (int i = 0; i < 128; ++i) A[i] = static_cast<float>(i % 13 - 6), C[i] = expected[i] = static_cast<float>(i % 7);
  for (int i = 0; i < 64; ++i) B[i] = static_cast<float>(i % 11 - 5);
  for (int i = 0; i < 128; ++i)
    for (int k = 0; k < 8; ++k) expected[i] += A[i / 8 * 8 + k] * B[k * 8 + i % 8];
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    EmulatedDevice device(seed);
    Buffer<EmulatedDevice, float> a(device, "A"), b(device, "B"), c(device, "C");
    a.upload(A);
    b.upload(B);
    c.upload(C);
    device.launch(OneProduct{a.data(), b.data(), c.data()}, {1, 1});
    CHECK(read(device, c) == expected);
  }
}

TEST(tf32_has_ten_bits_of_mantissa) {
  const float step = std::ldexp(1.0f, -10);
  for (const float sign : {1.0f, -1.0f}) {
    CHECK(from_tf32(nearest_tf32(sign * (1.0f + 0.49f * step))) == sign);
    CHECK(from_tf32(nearest_tf32(sign * (1.0f + 0.50f * step))) == sign * (1.0f + step));  // away from zero
    CHECK(from_tf32(nearest_tf32(sign * (1.0f + 1.51f * step))) == sign * (1.0f + 2.0f * step));
  }
  const float nan = std::nanf("");
  CHECK(std::isnan(nan - from_tf32(nearest_tf32(nan))));
}

TEST(emulated_device_lands_copies_when_they_are_waited_for) {
  EmulatedDevice device(1);
  Buffer<EmulatedDevice, float> from(device, "numbers"), to(device, "numbers");
  from.upload(std::vector<float>(128, 1.0f));
  to.reserve(128);
  device.launch(EarlyCopy<true>{from.data(), to.data()}, {1, 1}, shared_size<float>(128));
  CHECK(read(device, to) == std::vector<float>(128, 1.0f));
  device.launch(EarlyCopy<false>{from.data(), to.data()}, {1, 1}, shared_size<float>(128));
  for (const float v : read(device, to)) CHECK(std::isnan(v));
}
