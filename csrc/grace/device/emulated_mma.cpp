#include <algorithm>
#include <cmath>
#include <cstdint>

#include "grace/device/mma.hpp"

namespace grace::device {

namespace {

constexpr int n_terms = 9;  // of one number of C: itself and eight products

double read(Tf32 x) { return static_cast<double>(from_tf32({x.bits & 0xffffe000u})); }

float sum_of(const double (&terms)[n_terms]) {
  double largest = 0.0, plain = 0.0;
  for (double term : terms) {
    plain += term;
    largest = std::max(largest, std::fabs(term));
  }
  if (!std::isfinite(plain) || largest < 1e-30) return static_cast<float>(plain);
  const double step = std::ldexp(1.0, std::ilogb(largest) - 23);  // last bit of the mantissa of the largest
  std::int64_t sum = 0;
  for (double term : terms) sum += static_cast<std::int64_t>(term / step);
  std::int64_t lost = 1;  // the sum may need some bits more than a mantissa has
  while (std::abs(sum / lost) >= std::int64_t{1} << 24) lost *= 2;
  return static_cast<float>(static_cast<double>(sum / lost * lost) * step);
}

}  // namespace

void emulate_mma(const MmaOperands (&lanes)[32]) {
  double A[16][8], B[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const Tf32 *a = lanes[lane].a->x, *b = lanes[lane].b->x;
    for (int i = 0; i < 4; ++i) A[g + i % 2 * 8][t + i / 2 * 4] = read(a[i]);
    for (int i = 0; i < 2; ++i) B[t + 4 * i][g] = read(b[i]);
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float& c = lanes[lane].c->x[i];
      double terms[n_terms];
      terms[8] = static_cast<double>(c);
      for (int k = 0; k < 8; ++k) terms[k] = A[row][k] * B[k][column];
      c = sum_of(terms);
    }
}

}  // namespace grace::device
