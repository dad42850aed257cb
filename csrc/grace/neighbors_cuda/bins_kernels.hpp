// Atoms of all structures into bins: wraps, places, and a counting sort with a deterministic order inside each bin.
#pragma once

#include <cmath>
#include <cstdint>

#include "grace/device/atomics.hpp"
#include "grace/device/kernel.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_cuda/list_plan.hpp"

namespace grace::gpu {

// An atom in the order of the bins. 32 bytes: two loads.
struct alignas(16) BinnedAtom {
  double position[3];  // wrapped, A
  std::int32_t atom;
  std::int32_t species;
};

GRACE_DEVICE int floor_divide(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Bin along direction k, before folding.
GRACE_DEVICE std::int64_t bin_along(const ListFrame& frame, const ListBins& bins, const double* wrapped, int k) {
  const double* inverse = frame.inverse;
  const double fractional = wrapped[0] * inverse[k] + wrapped[1] * inverse[3 + k] + wrapped[2] * inverse[6 + k];
  const std::int64_t t = static_cast<std::int64_t>((fractional - bins.low[k]) * bins.bins_per_unit[k]);
  return t < 0 ? 0 : (t < bins.extent[k] ? t : bins.extent[k] - 1);
}

// Wraps every atom; *bad becomes the smallest index of an atom that cannot be listed.
struct WrapAtoms {
  static constexpr const char* name = "list_wrap_atoms";
  static constexpr int threads = 128;
  using Private = device::NoPrivate;
  const double* positions;
  const std::int32_t* species;
  const ListFrame* frames;
  const ListPiece* pieces;
  int n_species;
  double max_coordinate;
  double* built;            // [n_atoms][3]: copy of the positions
  double* fractional;       // [n_atoms][3]
  std::int32_t* wrap;       // [n_atoms][3]
  std::int32_t* structure;  // [n_atoms]
  std::uint64_t* bad;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const ListPiece piece = pieces[block.x()];
      const ListFrame& frame = frames[piece.structure];
      for (std::int64_t i = piece.begin + thread; i < piece.end; i += threads) {
        bool good = species[i] < n_species;
        const double r[3] = {positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]};
        for (int k = 0; k < 3; ++k) {
          good = good && std::fabs(r[k]) <= max_coordinate;
          built[3 * i + k] = r[k];
        }
        structure[i] = static_cast<std::int32_t>(piece.structure);
        double wrapped[3], f[3];
        int n[3];
        good = good && math::wrap_into_cell(r, frame.cell, frame.inverse, frame.periodic, n, wrapped, f) < 0;
        if (!good) {
          device::atomic_min(bad, static_cast<std::uint64_t>(i));
          continue;
        }
        for (int k = 0; k < 3; ++k) {
          wrap[3 * i + k] = n[k];
          fractional[3 * i + k] = f[k];
        }
      }
    });
  }
};

// Bin of every atom, -1 for those that are never listed, and counts[bin].
struct CountBins {
  static constexpr const char* name = "list_count_bins";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const double* positions;
  const std::int32_t* species;
  const std::int32_t* wrap;
  const std::int32_t* structure;
  const ListFrame* frames;
  const ListBins* bins;
  std::int64_t n_atoms;
  std::int64_t* bin;     // [n_atoms]
  std::int64_t* counts;  // [n_bins + 1]

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i >= n_atoms) return;
      if (species[i] < 0) {
        bin[i] = -1;
        return;
      }
      const ListFrame& frame = frames[structure[i]];
      const ListBins& grid = bins[structure[i]];
      const int n[3] = {wrap[3 * i], wrap[3 * i + 1], wrap[3 * i + 2]};
      double wrapped[3];
      math::wrapped_position(positions + 3 * i, n, frame.cell, wrapped);
      std::int64_t index = 0;
      for (int k = 0; k < 3; ++k) index = index * grid.n_bins[k] + bin_along(frame, grid, wrapped, k) % grid.n_bins[k];
      bin[i] = grid.first_bin + index;
      device::atomic_add(counts + bin[i], std::int64_t{1});
    });
  }
};

// Atoms into their bins, in any order.
struct FillBins {
  static constexpr const char* name = "list_fill_bins";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const std::int64_t* bin;
  const std::int64_t* start;  // [n_bins + 1]
  int* filled;                // [n_bins], zero
  std::int64_t n_atoms;
  std::int32_t* members;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      if (i >= n_atoms || bin[i] < 0) return;
      members[start[bin[i]] + device::atomic_add(filled + bin[i], 1)] = static_cast<std::int32_t>(i);
    });
  }
};

// The order inside a bin: an atom's place is the number of smaller indices.
struct OrderBins {
  static constexpr const char* name = "list_order_bins";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  const double* positions;
  const std::int32_t* species;
  const std::int32_t* wrap;
  const std::int32_t* structure;
  const ListFrame* frames;
  const std::int64_t* bin;
  const std::int64_t* start;
  const std::int32_t* members;
  std::int64_t n_atoms, n_bins;
  BinnedAtom* binned;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t p = std::int64_t{block.x()} * threads + thread;
      if (p >= start[n_bins]) return;
      const std::int32_t i = members[p];
      const std::int64_t begin = start[bin[i]], end = start[bin[i] + 1];
      std::int64_t place = begin;
      for (std::int64_t q = begin; q < end; ++q) place += members[q] < i ? 1 : 0;
      const std::int64_t at = 3 * std::int64_t{i};
      const int n[3] = {wrap[at], wrap[at + 1], wrap[at + 2]};
      BinnedAtom atom;
      math::wrapped_position(positions + at, n, frames[structure[i]].cell, atom.position);
      atom.atom = i;
      atom.species = species[i];
      binned[place] = atom;
    });
  }
};

}  // namespace grace::gpu
