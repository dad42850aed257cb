// Small kernels around an evaluation: checks of the input, and what becomes of the sums.
#pragma once

#include <cmath>
#include <cstdint>

#include "grace/device/atomics.hpp"
#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/chunk.hpp"

namespace grace::gpu {

// flags->not_finite = smallest atom index with a position that is not finite.
struct CheckPositions {
  static constexpr const char* name = "check_positions";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const double* positions;
  std::int64_t n_atoms;
  StepFlags* flags;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i >= n_atoms) return;
      const double sum = positions[3 * i] + positions[3 * i + 1] + positions[3 * i + 2];
      // A difference of infinities is not finite either, so one test serves all three.
      if (!(std::fabs(sum) <= 1e300)) device::atomic_min(&flags->not_finite, static_cast<std::uint64_t>(i));
    });
  }
};

// The two atoms of the closest pair: centre by bisection of the rows, and the exact distance.
struct ClosestPair {
  double distance;
  std::int64_t center, neighbor;
};
struct FindClosest {
  static constexpr const char* name = "find_closest";
  static constexpr int threads = 32;
  using Private = device::NoPrivate;
  Frame frame;
  std::int64_t n_centers;
  const StepFlags* flags;
  ClosestPair* out;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      if (thread != 0) return;
      *out = {-1.0, -1, -1};
      if (flags->closest == ~std::uint64_t{0}) return;
      const std::int64_t slot = static_cast<std::int64_t>(flags->closest & 0xffffffffu);
      if (slot == 0xffffffff || slot >= frame.first[n_centers]) return;  // longer lists do not say where it is
      std::int64_t low = 0, high = n_centers;                            // first[low] <= slot < first[high]
      while (high - low > 1) {
        const std::int64_t middle = (low + high) / 2;
        (frame.first[middle] <= slot ? low : high) = middle;
      }
      const std::int64_t i = low, j = frame.neighbor[slot];
      double r2 = 0.0;
      for (int k = 0; k < 3; ++k) {
        double r = frame.positions[3 * j + k] - frame.positions[3 * i + k];
        if (frame.shift != nullptr) {
          const std::int32_t s = frame.shift[slot];
          const double* cell = frame.cells + 9 * (frame.structure == nullptr ? 0 : frame.structure[i]);
          r += ((s & 1023) - 512) * cell[k] + (((s >> 10) & 1023) - 512) * cell[3 + k] +
               (((s >> 20) & 1023) - 512) * cell[6 + k];
        }
        r2 += r * r;
      }
      *out = {std::sqrt(r2), i, j};
    });
  }
};

// out += the sums (floating or fixed point); with `replace`, out = sums.
struct FinishSums {
  static constexpr const char* name = "finish_sums";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  device::AtomicSum<double> sum;
  std::int64_t n;
  double* out;
  bool replace;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i >= n) return;
      const double value = sum.fixed_point
                               ? static_cast<double>(static_cast<const std::int64_t*>(sum.data)[i]) / sum.scale
                               : static_cast<const double*>(sum.data)[i];
      out[i] = replace ? value : out[i] + value;
    });
  }
};

// Centres [begin, end), all of one structure.
struct VirialPiece {
  std::int64_t begin = 0, end = 0;
};
constexpr int virial_piece_atoms = 4096;

// partial[piece][9] = sum of center_virial over the piece, always in the same order.
struct SumPieces {
  static constexpr const char* name = "sum_virial_pieces";
  static constexpr int threads = 288;  // 32 groups of 9 components
  using Private = device::NoPrivate;
  const VirialPiece* pieces;
  const double* center_virial;
  double* partial;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* group_sum = block.template shared<double>(threads);
    const VirialPiece piece = pieces[block.x()];
    block.each_thread([&](int thread, Private&) {
      double sum = 0.0;
      for (std::int64_t i = piece.begin + thread / 9; i < piece.end; i += threads / 9)
        sum += center_virial[9 * i + thread % 9];
      group_sum[thread] = sum;
    });
    block.each_thread([&](int thread, Private&) {
      if (thread >= 9) return;
      double sum = 0.0;
      for (int g = 0; g < threads / 9; ++g) sum += group_sum[9 * g + thread];
      partial[9 * std::int64_t{block.x()} + thread] = sum;
    });
  }
};

// out[structure][9] (+)= sum of its pieces.
struct SumStructures {
  static constexpr const char* name = "sum_virial_structures";
  static constexpr int threads = 32;
  using Private = device::NoPrivate;
  const std::int64_t* first_piece;  // [n_structures + 1]
  const double* partial;
  double* out;
  bool replace;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      if (thread >= 9) return;
      const std::int64_t s = block.x();
      double sum = 0.0;
      for (std::int64_t p = first_piece[s]; p < first_piece[s + 1]; ++p) sum += partial[9 * p + thread];
      out[9 * s + thread] = replace ? sum : out[9 * s + thread] + sum;
    });
  }
};

}  // namespace grace::gpu
