// Ranges of vectors over the atoms of a structure, the test whether atoms have moved too far, and wrapped positions.
#pragma once

#include <cstdint>

#include "grace/device/atomics.hpp"
#include "grace/device/kernel.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_cuda/list_plan.hpp"

namespace grace::gpu {

constexpr double kListInfinity = 1e300;  // beyond every coordinate

// What is left of the motion of an atom after the affine map of its structure.
struct Displacement {
  const double* built;
  const double* positions;
  const double* maps;  // [n_structures][9]

  GRACE_DEVICE double operator()(std::int64_t i, std::int64_t s, int k) const {
    return math::displacement(built + 3 * i, positions + 3 * i, maps + 9 * s, k);
  }
};

struct StoredVector {
  const double* values;  // [n_atoms][3]

  GRACE_DEVICE double operator()(std::int64_t i, std::int64_t, int k) const { return values[3 * i + k]; }
};

// Smallest and largest components of the threads of a block; the result is in row 0 of low and high.
template <int threads, class Private, class Block>
GRACE_DEVICE void reduce_ranges(Block& block, double* low, double* high) {
  for (int half = threads / 2; half > 0; half /= 2)
    block.each_thread([&](int thread, Private&) {
      if (thread >= half) return;
      for (int k = 0; k < 3; ++k) {
        const int mine = k * threads + thread, other = mine + half;
        if (low[other] < low[mine]) low[mine] = low[other];
        if (high[other] > high[mine]) high[mine] = high[other];
      }
    });
}

// One block: ranges[piece][6] of a vector over the atoms of a piece, low then high. Values that are not numbers are
// passed over.
template <class Vector>
struct PieceRanges {
  static constexpr const char* name = "list_piece_ranges";
  static constexpr int threads = 128;
  using Private = device::NoPrivate;
  Vector vector;
  const ListPiece* pieces;
  double* ranges;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* low = block.template shared<double>(3 * threads);
    double* high = block.template shared<double>(3 * threads);
    block.each_thread([&](int thread, Private&) {
      const ListPiece piece = pieces[block.x()];
      double lowest[3] = {kListInfinity, kListInfinity, kListInfinity};
      double highest[3] = {-kListInfinity, -kListInfinity, -kListInfinity};
      for (std::int64_t i = piece.begin + thread; i < piece.end; i += threads)
        for (int k = 0; k < 3; ++k) {
          const double value = vector(i, piece.structure, k);
          if (value < lowest[k]) lowest[k] = value;
          if (value > highest[k]) highest[k] = value;
        }
      for (int k = 0; k < 3; ++k) {
        low[k * threads + thread] = lowest[k];
        high[k * threads + thread] = highest[k];
      }
    });
    reduce_ranges<threads, Private>(block, low, high);
    block.each_thread([&](int thread, Private&) {
      if (thread < 6)
        ranges[6 * std::int64_t{block.x()} + thread] =
            thread < 3 ? low[thread * threads] : high[(thread - 3) * threads];
    });
  }
};

// One block: the ranges [structure][6] from those of its pieces.
struct StructureRanges {
  static constexpr const char* name = "list_structure_ranges";
  static constexpr int threads = 128;
  using Private = device::NoPrivate;
  const std::int64_t* first_piece;
  const double* piece_ranges;
  double* ranges;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* low = block.template shared<double>(3 * threads);
    double* high = block.template shared<double>(3 * threads);
    const std::int64_t s = block.x();
    block.each_thread([&](int thread, Private&) {
      for (int k = 0; k < 3; ++k) {
        double lowest = kListInfinity, highest = -kListInfinity;
        for (std::int64_t p = first_piece[s] + thread; p < first_piece[s + 1]; p += threads) {
          const double l = piece_ranges[6 * p + k], h = piece_ranges[6 * p + 3 + k];
          if (l < lowest) lowest = l;
          if (h > highest) highest = h;
        }
        low[k * threads + thread] = lowest;
        high[k * threads + thread] = highest;
      }
    });
    reduce_ranges<threads, Private>(block, low, high);
    block.each_thread([&](int thread, Private&) {
      if (thread < 6) ranges[6 * s + thread] = thread < 3 ? low[thread * threads] : high[(thread - 3) * threads];
    });
  }
};

// One block: lowers *moved to the index of an atom whose displacement from the middle of the range is too large.
struct FindMoved {
  static constexpr const char* name = "list_find_moved";
  static constexpr int threads = 128;
  using Private = device::NoPrivate;
  Displacement displacement;
  const ListPiece* pieces;
  const double* ranges;   // [n_structures][6]
  const double* allowed;  // [n_structures], A
  std::uint64_t* moved;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const ListPiece piece = pieces[block.x()];
      const double* range = ranges + 6 * piece.structure;
      const double limit = allowed[piece.structure];
      for (std::int64_t i = piece.begin + thread; i < piece.end; i += threads) {
        double u[3];
        for (int k = 0; k < 3; ++k) u[k] = displacement(i, piece.structure, k) - 0.5 * (range[k] + range[3 + k]);
        if (!(4.0 * math::dot3(u, u) < limit * limit)) device::atomic_min(moved, static_cast<std::uint64_t>(i));
      }
    });
  }
};

struct WrappedPositions {
  static constexpr const char* name = "list_wrapped_positions";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const double* positions;
  const double* cells;
  const std::int32_t* wrap;
  const std::int32_t* structure;
  double* out;
  std::int64_t n_atoms;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i >= n_atoms) return;
      const int n[3] = {wrap[3 * i], wrap[3 * i + 1], wrap[3 * i + 2]};
      math::wrapped_position(positions + 3 * i, n, cells + 9 * std::int64_t{structure[i]}, out + 3 * i);
    });
  }
};

}  // namespace grace::gpu
