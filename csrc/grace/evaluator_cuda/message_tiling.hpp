// How the message basis is dealt to threads, and what both of its kernels stage in shared memory.
//
// A thread holds the sums (or their gradients) of one channel for a tile of lm_tile harmonics x row_tile message rows
// in registers: each number of I or R Y that it loads serves several multiplications. Tiles of harmonics: l = 0, 1, 2
// together are nine; every higher l is cut into parts of at most nine, so that a tile of it has a single R. With lmax =
// 4 that is 9 + 7 + 9 of 27.
#pragma once

#include <algorithm>

#include "grace/device/kernel.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/radial_functions.hpp"
#include "grace/math/spherical_harmonics.hpp"

namespace grace::gpu {

constexpr int lm_tile = 9;
constexpr int message_threads = 192;  // 3 x 2 tiles of 32 channels: lmax = 4 with 16 message rows, or two atoms with 4

// Blocks on a multiprocessor, for tiles of so many bytes in a row: what the registers allow.
constexpr int message_blocks(std::size_t row_bytes) { return row_bytes > 16 ? 2 : 3; }

struct MessageTiling {
  static constexpr int most_groups = 11;  // of harmonics, for lmax = 8
  int n_harmonics = 0;
  int n_groups = 0;
  int first[most_groups + 1] = {};  // harmonic that a group starts with
  int degree[most_groups] = {};     // l of the group; 2 (or lmax) for the first
  int n_rows = 0;
  int n_tiles = 0;       // groups x row tiles
  int channels = 0;      // of a block at a time, a divisor of the channels
  int channel_bits = 0;  // channels = 2^channel_bits
  int pass_tiles = 0;    // tiles of an atom that a block holds at a time
  int n_passes = 0;
  int atoms = 0;  // of a block
  int batch = 0;  // bonds of an atom that are staged at a time

  GRACE_HD int group_size(int group) const { return first[group + 1] - first[group]; }
};

inline MessageTiling message_tiling(int lmax, int n_rows, int stride, int row_tile, int channels, int batch) {
  MessageTiling t;
  t.n_harmonics = (lmax + 1) * (lmax + 1);
  for (int l = std::min(lmax, 2); l <= lmax; ++l) {
    const int begin = l <= 2 ? 0 : l * l, size = (l + 1) * (l + 1) - begin, parts = (size + lm_tile - 1) / lm_tile;
    for (int p = 0; p < parts; ++p) {
      t.first[t.n_groups] = begin + (size * p + parts - 1) / parts;
      t.degree[t.n_groups++] = l;
    }
  }
  t.first[t.n_groups] = t.n_harmonics;
  t.n_rows = n_rows;
  t.n_tiles = t.n_groups * ((n_rows + row_tile - 1) / row_tile);
  while (stride % channels != 0) channels /= 2;
  t.channels = channels;
  while (1 << t.channel_bits < channels) ++t.channel_bits;
  t.pass_tiles = std::min(t.n_tiles, message_threads / channels);
  t.n_passes = (t.n_tiles + t.pass_tiles - 1) / t.pass_tiles;
  t.atoms = t.n_passes > 1 ? 1 : message_threads / channels / t.n_tiles;
  t.batch = batch;
  return t;
}

// The widest blocks of channels whose tiles fit the threads, as long as shared memory holds the blocks that registers
// allow; with more rows or harmonics than usual, fewer channels down to one.
template <class Kernel>
MessageTiling fit_message_tiling(int lmax, int n_rows, int stride, std::size_t most_bytes) {
  const std::size_t good_bytes = std::min<std::size_t>(220 * 1024 / Kernel::min_blocks, most_bytes);
  constexpr int good_channels = 8;
  MessageTiling t;
  for (int channels = 32; channels > 0; channels /= 2) {
    t = message_tiling(lmax, n_rows, stride, Kernel::row_tile, channels, Kernel::batch);
    while (t.atoms > 1 && Kernel::shared_bytes(t, lmax) > good_bytes) --t.atoms;
    const bool good = t.n_passes == 1 && Kernel::shared_bytes(t, lmax) <= good_bytes;
    if (good || (t.channels <= good_channels && Kernel::shared_bytes(t, lmax) <= most_bytes)) return t;
  }
  const std::size_t bytes = Kernel::shared_bytes(t, lmax);
  require(bytes <= most_bytes, "the message has ", n_rows, " rows, which need ", bytes,
          " bytes of shared memory on a GPU, more than ", most_bytes, "; use device cpu");
  return t;
}

// A thread's tile in a pass; its channel and the number of the tile follow from the thread's index without divisions.
struct MessagePlace {
  int atom = -1;  // in the block, -1: nothing to do
  int group = 0;  // of harmonics
  int row0 = 0;   // first message row
};

// Message rows of one neighbour and channel, zero beyond the last row and without a neighbour.
template <int rows, class Real>
GRACE_DEVICE void load_rows(const Real* from, int stride, int left, Real* to) {
  for (int r = 0; r < rows; ++r) to[r] = from != nullptr && r < left ? from[r * stride] : Real(0);
}

// What both kernels know of bonds.
template <class Real>
struct MessageBonds {
  MessageTiling tiling;
  RadialFunctions<Real> radial;
  math::HarmonicsTable<Real> harmonics;
  Chunk chunk;
  Bonds<Real> bonds;
  const std::int32_t* owner;

  GRACE_DEVICE MessagePlace place(int thread, int row_tile, int first_atom, int pass) const {
    const int index = thread >> tiling.channel_bits, atom = index / tiling.pass_tiles;
    const int tile = pass * tiling.pass_tiles + index - atom * tiling.pass_tiles;
    if (atom >= tiling.atoms || first_atom + atom >= chunk.n_atoms || tile >= tiling.n_tiles) return {};
    return {atom, tile % tiling.n_groups, tile / tiling.n_groups * row_tile};
  }

  // The degrees l of harmonics 0, 1..3 and 4..8 of a group.
  GRACE_DEVICE void degrees_of(int group, int* l) const {
    const int last = tiling.degree[group];
    l[0] = group == 0 ? 0 : last;
    l[1] = group == 0 && last > 1 ? 1 : last;
    l[2] = last;
  }

  GRACE_DEVICE int most_bonds(int first_atom) const {
    int most = 0;
    for (int a = 0; a < tiling.atoms && first_atom + a < chunk.n_atoms; ++a)
      if (bonds.count[first_atom + a] > most) most = bonds.count[first_atom + a];
    return most;
  }

  // Bond slot of number `bond` of an atom of the block, -1: there is none.
  GRACE_DEVICE std::int64_t slot(int first_atom, int atom, int bond) const {
    const int a = first_atom + atom;
    return a < chunk.n_atoms && bond < bonds.count[a] ? std::int64_t{chunk.slot[a]} + bond : -1;
  }

  // Message rows and harmonics of a batch: neighbours[atom][batch] (-1: no bond), Y[atom][batch][lm] and, with
  // Gradient, dY[atom][batch][lm][3].
  template <bool Gradient>
  GRACE_DEVICE void stage_neighbors(int thread, int first_atom, int first_bond, std::int32_t* neighbors, Real* Y,
                                    Real* dY) const {
    for (int e = thread; e < tiling.atoms * tiling.batch; e += message_threads) {
      const std::int64_t s = slot(first_atom, e / tiling.batch, first_bond + e % tiling.batch);
      neighbors[e] = -1;
      if (s < 0) continue;
      const std::int32_t j = bonds.neighbor[s];
      neighbors[e] = owner == nullptr ? j : owner[j];
      const std::int64_t c = bonds.capacity;
      math::spherical_harmonics<Gradient>(harmonics, bonds.direction[s], bonds.direction[c + s],
                                          bonds.direction[2 * c + s], Y + e * tiling.n_harmonics,
                                          Gradient ? dY + 3 * e * tiling.n_harmonics : nullptr);
    }
  }

  // R[atom][batch][l][channel] of the block's channels and, with Slope, dR/dx.
  template <bool Slope>
  GRACE_DEVICE void stage_radial(int thread, int first_atom, int first_bond, int channel0, Real* R, Real* dR) const {
    const int degrees = radial.lmax + 1, channel = thread & (tiling.channels - 1);
    const int n = tiling.atoms * tiling.batch * degrees;
    for (int e = thread >> tiling.channel_bits; e < n; e += message_threads >> tiling.channel_bits) {
      const int bond = e / degrees, l = e % degrees, to = e * tiling.channels + channel;
      const std::int64_t s = slot(first_atom, bond / tiling.batch, first_bond + bond % tiling.batch);
      if (s < 0) continue;
      if constexpr (Slope)
        radial.value_and_slope(s, l, channel0 + channel, R[to], dR[to]);
      else
        R[to] = radial.value(s, l, channel0 + channel);
    }
  }
};

template <class Real>
MessageBonds<Real> message_bonds(const LayerPlan<Real>& layer, const MessageTiling& tiling, const Frame& frame,
                                 const Chunk& chunk, const Bonds<Real>& bonds) {
  return {tiling, radial_functions(layer.radial, bonds), layer.harmonics, chunk, bonds, frame.owner};
}

}  // namespace grace::gpu
