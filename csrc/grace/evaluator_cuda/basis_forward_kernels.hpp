// Forward kernel of the single-particle basis.
#pragma once

#include <algorithm>

#include "grace/device/kernel.hpp"
#include "grace/evaluator_cuda/basis.hpp"
#include "grace/evaluator_cuda/radial_series.hpp"
#include "grace/math/spherical_harmonics.hpp"

namespace grace::gpu {

// A thread has one atom, one l and two neighbouring channels: the sums of its 2 (2l + 1) rows stay in registers, and
// what it reads of a bond serves both channels. A block works on a single l (grid.y counts l and groups of channels),
// so that the coefficients of its table fit the L1 cache. Bonds come in batches that are ordered by interval.
template <class Real, int MaxL, int K>
struct BasisForward {
  static constexpr const char* name = "basis_forward";
  static constexpr int threads = 256;
  static constexpr int min_blocks = sizeof(Real) == 4 && MaxL <= 4 ? 3 : 1;  // bounds the registers
  static constexpr int batch = 32;
  static constexpr int channels = 2;  // of a thread
  using Series = RadialSeries<Real, K, channels>;
  using Group = typename Series::Group;
  struct Private {
    Real sum[channels][2 * MaxL + 1];
    Series series;
    std::int32_t interval;
  };

  RadialFunctions<Real> radial;
  math::HarmonicsTable<Real> harmonics;
  Chunk chunk;
  Bonds<Real> bonds;
  const Real* chemical;
  const Real* factor;
  Real* out;       // [lm][atom][stride]
  int atoms;       // of a block
  int groups;      // of two channels, of a block
  int all_groups;  // stride / 2
  int n_harmonics;

  static int most_atoms(int n_harmonics, int groups) {
    constexpr std::size_t good_bytes = 48 * 1024;  // four blocks on a multiprocessor
    const int fit = static_cast<int>(good_bytes / shared_bytes(n_harmonics, 1));
    return std::max(1, std::min(threads / groups, fit));
  }
  // Bonds and harmonics of an atom start in other banks than those of the next atom, which a warp reads with them.
  static constexpr int bonds_pitch = batch + 1;
  static GRACE_HD int harmonics_pitch(int n_harmonics) { return batch * (n_harmonics | 1) + 1; }
  static std::size_t shared_bytes(int n_harmonics, int n_atoms) {
    return device::shared_size<StagedBond<Real>>(n_atoms * bonds_pitch) +
           device::shared_size<Real>(n_atoms * harmonics_pitch(n_harmonics));
  }

  GRACE_DEVICE int batch_size(int atom, int first_bond) const {
    const int left = atom < chunk.n_atoms ? bonds.count[atom] - first_bond : 0;
    return left < batch ? (left > 0 ? left : 0) : batch;
  }

  // Harmonics and table arguments of one bond of a batch.
  GRACE_DEVICE void stage(int e, int first_atom, int first_bond, StagedBond<Real>* staged, Real* Y) const {
    const int atom = e / batch, a = first_atom + atom, bond = e % batch, n = batch_size(a, first_bond);
    staged += atom * bonds_pitch;
    if (bond >= n) {
      staged[bond].used = 0;
      return;
    }
    const std::int64_t begin = std::int64_t{chunk.slot[a]} + first_bond, slot = begin + bond, c = bonds.capacity;
    StagedBond<Real> own{0, bonds.species[slot], bond, 1, Real(0), Real(0)};
    int to = bond;
    if (radial.coefficients != nullptr) {
      own.interval = bonds.interval[slot];
      own.t = bonds.table_t[slot];
      own.y = bonds.table_y[slot];
      to = place_by_interval(bonds.interval, begin, bond, n);
    }
    staged[to] = own;
    math::spherical_harmonics<false>(
        harmonics, bonds.direction[slot], bonds.direction[c + slot], bonds.direction[2 * c + slot],
        Y + atom * harmonics_pitch(n_harmonics) + to * (n_harmonics | 1), static_cast<Real*>(nullptr));
  }

  template <int L, class Block>
  GRACE_DEVICE void sum_bonds(Block& block, int tile) const {
    StagedBond<Real>* staged = block.template shared<StagedBond<Real>>(atoms * bonds_pitch);
    Real* Y = block.template shared<Real>(atoms * harmonics_pitch(n_harmonics));
    const int first_atom = static_cast<int>(block.x()) * atoms, first_group = tile * groups;
    int most = 0;
    for (int a = first_atom; a < first_atom + atoms && a < chunk.n_atoms; ++a)
      if (bonds.count[a] > most) most = bonds.count[a];
    block.each_thread([&](int, Private& own) {
      own.interval = -1;
      for (int i = 0; i < channels; ++i)
        for (int m = 0; m < 2 * L + 1; ++m) own.sum[i][m] = Real(0);
    });
    for (int first_bond = 0; first_bond < most; first_bond += batch) {
      block.each_thread([&](int thread, Private&) {
        for (int e = thread; e < atoms * batch; e += threads) stage(e, first_atom, first_bond, staged, Y);
      });
      block.each_thread([&](int thread, Private& own) {
        const int atom = thread / groups, channel = (first_group + thread % groups) * channels;
        if (atom >= atoms || first_atom + atom >= chunk.n_atoms || channel >= radial.stride) return;
        const int row = L * radial.stride + channel;
        const StagedBond<Real>* const of_atom = staged + atom * bonds_pitch;
        const Real* of_bond = Y + atom * harmonics_pitch(n_harmonics) + L * L;
        for (int b = 0; b < batch; ++b, of_bond += n_harmonics | 1) {
          const StagedBond<Real> bond = of_atom[b];
          if (bond.used == 0) break;
          Real R[channels];
          if (radial.coefficients != nullptr) {
            if (bond.interval != own.interval) {
              own.interval = bond.interval;
              own.series.load(radial.series_of(bond.interval, L, channel), radial.stride, radial.n_coefficients);
            }
            own.series.template evaluate<false>(bond.t, R, static_cast<Real*>(nullptr));
            const Real y3 = bond.y * bond.y * bond.y;
            for (int i = 0; i < channels; ++i) R[i] *= y3;
          } else {
            const std::int64_t slot = std::int64_t{chunk.slot[first_atom + atom]} + first_bond + bond.place;
            const Group value = *reinterpret_cast<const Group*>(radial.exact_value + slot * radial.width + row);
            for (int i = 0; i < channels; ++i) R[i] = value.of[i];
          }
          const Group z =
              *reinterpret_cast<const Group*>(chemical + std::int64_t{bond.species} * radial.stride + channel);
          for (int i = 0; i < channels; ++i) R[i] *= z.of[i];
          for (int m = 0; m < 2 * L + 1; ++m) {
            const Real y = of_bond[m];
            for (int i = 0; i < channels; ++i) own.sum[i][m] += R[i] * y;
          }
        }
      });
    }
    block.each_thread([&](int thread, Private& own) {
      const int atom = thread / groups, a = first_atom + atom, channel = (first_group + thread % groups) * channels;
      if (atom >= atoms || a >= chunk.n_atoms || channel >= radial.stride) return;
      const Real f = factor[chunk.species[a]];
      for (int m = 0; m < 2 * L + 1; ++m) {
        Group value;
        for (int i = 0; i < channels; ++i) value.of[i] = f * own.sum[i][m];
        *reinterpret_cast<Group*>(out + (std::int64_t{L * L + m} * chunk.n_atoms + a) * radial.stride + channel) =
            value;
      }
    });
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const int tiles = (all_groups + groups - 1) / groups, l = static_cast<int>(block.y()) / tiles;
    const int tile = static_cast<int>(block.y()) - l * tiles;
    if (l == 0) sum_bonds<0>(block, tile);
    if constexpr (MaxL > 0) {
      if (l == 1) sum_bonds<1>(block, tile);
      if (l == 2) sum_bonds<2>(block, tile);
      if (l == 3) sum_bonds<3>(block, tile);
      if (l == 4) sum_bonds<4>(block, tile);
    }
    if constexpr (MaxL > 4) {
      if (l == 5) sum_bonds<5>(block, tile);
      if (l == 6) sum_bonds<6>(block, tile);
      if (l == 7) sum_bonds<7>(block, tile);
      if (l == 8) sum_bonds<8>(block, tile);
    }
  }
};

}  // namespace grace::gpu
