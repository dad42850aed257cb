// Adjoint kernel of the single-particle basis.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/basis.hpp"
#include "grace/evaluator_cuda/radial_series.hpp"
#include "grace/math/spherical_harmonics.hpp"

namespace grace::gpu {

// Of one bond, with g = f_i dE/dA of the centre:
//   v_lm = sum_n g[lm, n] z_n R_nl is contracted with dY/du, u_nl = sum_m g[lm, n] Y_lm with z_n dR_nl/dx.
// A block has one atom and a batch of its bonds. First lane = channel: R and dR/dx of all bonds go to shared memory.
// Then lane = bond: g is the same for all lanes (one read for 32 bonds), v stays in registers, and no sum over channels
// crosses lanes. The warps share out the degrees l and the channels; their terms are added in a fixed order.
template <class Real, int MaxL, int K>
struct BasisAdjoint {
  static constexpr const char* name = "basis_adjoint";
  static constexpr int batch = 32;
  static constexpr int warps = 9;  // lmax = 4: three groups of l x three parts of the channels
  static constexpr int threads = warps * batch;
  static constexpr int spacing = batch + 1;  // of rows of bonds: lanes that are channels write to different banks
  using Series = RadialSeries<Real, K, 1>;
  using Private = device::NoPrivate;
  struct alignas(16) Four {
    Real a, x, y, z;  // dE/dx and dE/du of a bond
  };

  RadialFunctions<Real> radial;
  math::HarmonicsTable<Real> harmonics;
  Chunk chunk;
  Bonds<Real> bonds;
  const Real* chemical;
  const Real* factor;
  const Real* gradients;  // [lm][atom][stride]
  int n_harmonics;
  int channels;  // of a pass
  int n_groups;  // of degrees: 0 .. 2 together, then one by one
  int splits;    // parts of the channels

  static std::size_t shared_bytes(int lmax, int n_channels) {
    const std::size_t n_lm = static_cast<std::size_t>(lmax + 1) * (lmax + 1);
    return 2 * device::shared_size<Real>(static_cast<std::size_t>(lmax + 1) * n_channels * spacing) +
           device::shared_size<Real>(n_lm * n_channels) + device::shared_size<Real>(batch * (n_lm | 1)) +
           device::shared_size<Real>(batch * (3 * n_lm | 1)) + device::shared_size<Four>(warps * batch) +
           device::shared_size<StagedBond<Real>>(batch);
  }

  // Arrays of a block.
  struct Memory {
    Real *R, *dR;   // [l][channel][bond], times z
    Real* g;        // [channel][lm]
    Real *Y, *dY;   // [bond][lm], [bond][lm][3]
    Four* partial;  // [warp][bond]
    StagedBond<Real>* staged;
  };

  GRACE_DEVICE void stage_bond(int bond, std::int64_t begin, int n, StagedBond<Real>* staged) const {
    if (bond >= n) return;
    const std::int64_t slot = begin + bond;
    StagedBond<Real> own{0, bonds.species[slot], bond, 1, Real(0), Real(0)};
    int to = bond;
    if (radial.coefficients != nullptr) {
      own.interval = bonds.interval[slot];
      own.t = bonds.table_t[slot];
      own.y = bonds.table_y[slot];
      to = place_by_interval(bonds.interval, begin, bond, n);
    }
    staged[to] = own;
  }

  // R z and dR/dx z. The bonds of the batch are shared out where there are more threads than functions.
  GRACE_DEVICE void stage_radial(int thread, int channel0, int in_pass, std::int64_t begin, int n,
                                 const Memory& memory) const {
    const int functions = (radial.lmax + 1) * in_pass, workers = threads - batch;
    if (thread >= workers) return;
    const int parts = functions < workers ? workers / functions : 1;
    for (int e = thread; e < functions * parts; e += workers) {
      const int part = e / functions, function = e - part * functions;
      const int l = function / in_pass, local = function - l * in_pass, channel = channel0 + local;
      Real* R = memory.R + (l * channels + local) * spacing;
      Real* dR = memory.dR + (l * channels + local) * spacing;
      const int row = l * radial.stride + channel;
      Series series{};
      std::int32_t interval = -1;
      for (int b = n * part / parts; b < n * (part + 1) / parts; ++b) {
        const StagedBond<Real> bond = memory.staged[b];
        const Real z = chemical[std::int64_t{bond.species} * radial.stride + channel];
        Real value, slope;
        if (radial.coefficients != nullptr) {
          if (bond.interval != interval) {
            interval = bond.interval;
            series.load(radial.series_of(interval, l, channel), radial.stride, radial.n_coefficients);
          }
          Real sum, derivative;
          series.template evaluate<true>(bond.t, &sum, &derivative);
          radial.value_and_slope_of(interval, bond.y, sum, derivative, value, slope);
        } else {
          const std::int64_t at = (begin + bond.place) * radial.width + row;
          value = radial.exact_value[at];
          slope = radial.exact_slope[at];
        }
        R[bond.place] = value * z;
        dR[bond.place] = slope * z;
      }
    }
  }

  // Terms of one bond, degrees LA .. LB and a part of the channels.
  template <int LA, int LB>
  GRACE_DEVICE Four contract(int bond, int split, int in_pass, const Memory& memory) const {
    constexpr int row0 = LA * LA, n_rows = (LB + 1) * (LB + 1) - row0;
    Real Y[n_rows], v[n_rows];
    for (int r = 0; r < n_rows; ++r) {
      Y[r] = memory.Y[bond * (n_harmonics | 1) + row0 + r];
      v[r] = Real(0);
    }
    Real slope = Real(0);
    for (int n = split; n < in_pass; n += splits) {
      const Real* g = memory.g + n * n_harmonics + row0;
      for (int l = LA; l <= LB; ++l) {
        const int at = (l * channels + n) * spacing + bond;
        const Real R = memory.R[at];
        Real u = Real(0);
        for (int r = l * l - row0; r < (l + 1) * (l + 1) - row0; ++r) {
          const Real g_lm = g[r];
          v[r] += g_lm * R;
          u += g_lm * Y[r];
        }
        slope += u * memory.dR[at];
      }
    }
    Four sum{slope, Real(0), Real(0), Real(0)};
    const Real* dY = memory.dY + bond * (3 * n_harmonics | 1) + 3 * row0;
    for (int r = 0; r < n_rows; ++r) {
      sum.x += v[r] * dY[3 * r];
      sum.y += v[r] * dY[3 * r + 1];
      sum.z += v[r] * dY[3 * r + 2];
    }
    return sum;
  }

  GRACE_DEVICE void contract_group(int thread, int in_pass, int n, const Memory& memory) const {
    const int bond = thread % batch, unit = thread / batch, group = unit / splits, split = unit - group * splits;
    if (group >= n_groups || bond >= n) return;
    Four sum;
    if (group == 0 && radial.lmax == 0)
      sum = contract<0, 0>(bond, split, in_pass, memory);
    else if (group == 0 && radial.lmax == 1)
      sum = contract<0, 1>(bond, split, in_pass, memory);
    else if (group == 0)
      sum = contract<0, 2>(bond, split, in_pass, memory);
    else if (group == 1)
      sum = contract<3, 3>(bond, split, in_pass, memory);
    else if (MaxL <= 4 || group == 2)
      sum = contract<4, 4>(bond, split, in_pass, memory);
    else if constexpr (MaxL > 4) {
      if (group == 3)
        sum = contract<5, 5>(bond, split, in_pass, memory);
      else if (group == 4)
        sum = contract<6, 6>(bond, split, in_pass, memory);
      else if (group == 5)
        sum = contract<7, 7>(bond, split, in_pass, memory);
      else
        sum = contract<8, 8>(bond, split, in_pass, memory);
    }
    memory.partial[unit * batch + bond] = sum;
  }

  GRACE_DEVICE void finish_bond(int bond, std::int64_t begin, int n, Real f, const Four* partial) const {
    if (bond >= n) return;
    double slope = 0.0, x = 0.0, y = 0.0, z = 0.0;
    for (int unit = 0; unit < n_groups * splits; ++unit) {
      const Four part = partial[unit * batch + bond];
      slope += static_cast<double>(part.a);
      x += static_cast<double>(part.x);
      y += static_cast<double>(part.y);
      z += static_cast<double>(part.z);
    }
    add_bond_gradient(bonds, begin + bond, f * slope, f * x, f * y, f * z);
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const int a = static_cast<int>(block.x()), count = bonds.count[a];
    if (count == 0) return;
    const std::int64_t first_slot = chunk.slot[a];
    Memory memory;
    memory.R = block.template shared<Real>((radial.lmax + 1) * channels * spacing);
    memory.dR = block.template shared<Real>((radial.lmax + 1) * channels * spacing);
    memory.g = block.template shared<Real>(n_harmonics * channels);
    memory.Y = block.template shared<Real>(batch * (n_harmonics | 1));
    memory.dY = block.template shared<Real>(batch * (3 * n_harmonics | 1));
    memory.partial = block.template shared<Four>(warps * batch);
    memory.staged = block.template shared<StagedBond<Real>>(batch);
    const Real f = factor[chunk.species[a]];

    for (int channel0 = 0; channel0 < radial.stride; channel0 += channels) {
      const int left = radial.stride - channel0, in_pass = left < channels ? left : channels;
      for (int first_bond = 0; first_bond < count; first_bond += batch) {
        const std::int64_t begin = first_slot + first_bond;
        const int n = count - first_bond < batch ? count - first_bond : batch;
        block.each_thread([&](int thread, Private&) {
          if (thread < batch) stage_bond(thread, begin, n, memory.staged);
          if (first_bond > 0 && thread >= batch && thread < 2 * batch)
            finish_bond(thread - batch, begin - batch, batch, f, memory.partial);
          if (first_bond == 0)
            for (int e = thread; e < n_harmonics * in_pass; e += threads) {
              const int lm = e / in_pass, local = e - lm * in_pass;
              memory.g[local * n_harmonics + lm] =
                  gradients[(std::int64_t{lm} * chunk.n_atoms + a) * radial.stride + channel0 + local];
            }
        });
        block.each_thread([&](int thread, Private&) {
          stage_radial(thread, channel0, in_pass, begin, n, memory);
          // The last warp makes the harmonics meanwhile.
          const int bond = thread - (threads - batch);
          if (bond < 0 || bond >= n) return;
          const std::int64_t slot = begin + bond, c = bonds.capacity;
          math::spherical_harmonics<true>(harmonics, bonds.direction[slot], bonds.direction[c + slot],
                                          bonds.direction[2 * c + slot], memory.Y + bond * (n_harmonics | 1),
                                          memory.dY + bond * (3 * n_harmonics | 1));
        });
        block.each_thread([&](int thread, Private&) { contract_group(thread, in_pass, n, memory); });
        if (first_bond + batch >= count)
          block.each_thread([&](int thread, Private&) {
            if (thread < batch) finish_bond(thread, begin, n, f, memory.partial);
          });
      }
    }
  }
};

}  // namespace grace::gpu
