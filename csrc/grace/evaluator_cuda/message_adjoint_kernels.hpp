// Adjoint kernel of the message basis.
#pragma once

#include <algorithm>

#include "grace/evaluator_cuda/message_basis.hpp"
#include "grace/evaluator_cuda/message_tiling.hpp"

namespace grace::gpu {

// Of one bond, with gT the gradients of the pairs T[lm, r] of the centre in registers:
//   g_lm = sum_r gT[lm, r] I_j[r] is the gradient of R_nl Y_lm, contracted with dR/dx and dY/du at once;
//   gI_j[r] += sum_lm R_nl Y_lm gT[lm, r].
// Both are sums over tiles, and the first one over channels: a batch of bonds leaves its terms in shared memory, and
// the block adds them up in a fixed order while it stages the next batch. One atomic per number of gI_j and bond.
template <class Real, int rows>
struct MessageAdjoint {
  static constexpr const char* name = "message_adjoint";
  static constexpr int threads = message_threads;
  static constexpr int min_blocks = message_blocks(sizeof(Real) * rows);
  static constexpr int row_tile = rows;
  static constexpr int batch = sizeof(Real) == 4 && rows == 8 ? 8 : 4;
  static constexpr int segments = 8;  // partial sums of a bond's gradient
  struct Private {
    MessagePlace place;
    Real gT[lm_tile][rows];
  };
  struct alignas(16) Four {
    Real a, x, y, z;  // a harmonic and its gradient, or dE/dx and dE/du of a bond
  };

  MessageBonds<Real> in;
  GatherTable<Real> table;
  const Real* factor;
  const Real* message;
  const Real* gradients;  // slot [target][atom][stride]
  device::AtomicSum<Real> message_gradient;

  // The pairs' gradients leave shared memory before the terms of the bonds come.
  static std::size_t terms_bytes(const MessageTiling& t) {
    const std::size_t units = static_cast<std::size_t>(t.atoms) * t.batch * t.pass_tiles * t.channels;
    return device::shared_size<Real>(units * rows) + device::shared_size<Four>(units);
  }
  static std::size_t pairs_bytes(const MessageTiling& t) {
    return device::shared_size<Real>(static_cast<std::size_t>(t.atoms) * t.n_harmonics * t.n_rows * t.channels);
  }
  static std::size_t shared_bytes(const MessageTiling& t, int lmax) {
    const std::size_t bonds = static_cast<std::size_t>(t.atoms) * t.batch;
    return std::max(terms_bytes(t), pairs_bytes(t)) + 2 * device::shared_size<Real>(bonds * (lmax + 1) * t.channels) +
           device::shared_size<Real>(bonds * t.n_harmonics) + device::shared_size<Real>(3 * bonds * t.n_harmonics) +
           device::shared_size<Four>(bonds * t.n_groups * lm_tile) + device::shared_size<Four>(bonds * segments) +
           device::shared_size<std::int32_t>(2 * bonds);
  }

  // Terms of the bonds of a batch, in the memory of the pairs.
  struct Terms {
    Real* gI;     // [bond][tile of the pass][row][channel]
    Four* force;  // [bond][tile of the pass][channel]
  };

  // gradients of the pairs of all channels of the block, from those of YI
  GRACE_DEVICE void pair_gradients(int thread, int first_atom, int channel0, Real* gT) const {
    const MessageTiling& t = in.tiling;
    const int n_pairs = t.n_harmonics * t.n_rows, stride = in.radial.stride, channel = thread & (t.channels - 1);
    for (int e = thread >> t.channel_bits; e < t.atoms * n_pairs; e += threads >> t.channel_bits) {
      const int atom = e / n_pairs, pair = e - atom * n_pairs;
      if (first_atom + atom >= in.chunk.n_atoms) return;
      const Real* from = gradients + std::int64_t{first_atom + atom} * stride + channel0 + channel;
      const std::int64_t row = std::int64_t{in.chunk.n_atoms} * stride;
      Real sum = Real(0);
      for (int k = table.first_term[pair]; k < table.first_term[pair + 1]; ++k)
        sum += table.terms[k].coefficient * from[table.terms[k].first * row];
      gT[e * t.channels + channel] = sum * factor[in.chunk.species[first_atom + atom]];
    }
  }

  GRACE_DEVICE void load_tile(int thread, const Real* gT, Private& own) const {
    const MessageTiling& t = in.tiling;
    const MessagePlace p = own.place;
    if (p.atom < 0) return;
    const int size = t.group_size(p.group), left = t.n_rows - p.row0;
    const Real* from = gT + ((p.atom * t.n_harmonics + t.first[p.group]) * t.n_rows + p.row0) * t.channels +
                       (thread & (t.channels - 1));
    for (int m = 0; m < lm_tile; ++m)
      for (int r = 0; r < rows; ++r)
        own.gT[m][r] = m < size && r < left ? from[(m * t.n_rows + r) * t.channels] : Real(0);
  }

  // The terms of one thread for the bonds of a batch.
  GRACE_DEVICE void bond_terms(int thread, int channel0, const Private& own, const std::int32_t* neighbors,
                               const Real* R, const Real* dR, const Four* harmonics, const Terms& terms) const {
    const MessageTiling& t = in.tiling;
    const MessagePlace p = own.place;
    if (p.atom < 0) return;
    const int degrees = in.radial.lmax + 1, stride = in.radial.stride, left = t.n_rows - p.row0;
    const int channel = thread & (t.channels - 1), local = (thread >> t.channel_bits) - p.atom * t.pass_tiles;
    int l[3];
    in.degrees_of(p.group, l);
    const Real* of_row = message + std::int64_t{p.row0} * stride + channel0 + channel;
    const int width = t.n_rows * stride;
    const std::int32_t* j = neighbors + p.atom * batch;
    // Where registers leave room for few warps, I of the next bond travels while this one is worked on.
    constexpr bool ahead = min_blocks == 2;
    Real next[rows];
    if (ahead) load_rows<rows>(j[0] < 0 ? nullptr : of_row + std::int64_t{j[0]} * width, stride, left, next);
    for (int b = 0; b < batch && j[b] >= 0; ++b) {
      const int bond = p.atom * batch + b;
      if (!ahead) load_rows<rows>(of_row + std::int64_t{j[b]} * width, stride, left, next);
      Real value[rows], gI[rows];
      for (int r = 0; r < rows; ++r) {
        value[r] = next[r];
        gI[r] = Real(0);
      }
      const std::int32_t other = b + 1 < batch ? j[b + 1] : -1;
      if (ahead) load_rows<rows>(other < 0 ? nullptr : of_row + std::int64_t{other} * width, stride, left, next);
      const int at = bond * degrees * t.channels + channel;
      const Real R0 = R[at + l[0] * t.channels], R1 = R[at + l[1] * t.channels], R2 = R[at + l[2] * t.channels];
      const Four* of_group = harmonics + (bond * t.n_groups + p.group) * lm_tile;
      Real s0 = Real(0), s1 = Real(0), s2 = Real(0);
      Four force{Real(0), Real(0), Real(0), Real(0)};
      for (int m = 0; m < lm_tile; ++m) {
        const Four Y = of_group[m];
        const Real Rm = m == 0 ? R0 : m < 4 ? R1 : R2, ry = Rm * Y.a;
        Real g = Real(0);
        for (int r = 0; r < rows; ++r) {
          g += own.gT[m][r] * value[r];
          gI[r] += own.gT[m][r] * ry;
        }
        (m == 0 ? s0 : m < 4 ? s1 : s2) += g * Y.a;
        g *= Rm;
        force.x += g * Y.x;
        force.y += g * Y.y;
        force.z += g * Y.z;
      }
      force.a = s0 * dR[at + l[0] * t.channels] + s1 * dR[at + l[1] * t.channels] + s2 * dR[at + l[2] * t.channels];
      const int unit = bond * t.pass_tiles + local;
      for (int r = 0; r < rows; ++r) terms.gI[(unit * rows + r) * t.channels + channel] = gI[r];
      terms.force[unit * t.channels + channel] = force;
    }
  }

  // Sums of the terms of a batch: gradients of messages, and partial sums of those of bonds.
  GRACE_DEVICE void add_terms(int thread, int pass, int channel0, const std::int32_t* neighbors, const Terms& terms,
                              Four* partial) const {
    const MessageTiling& t = in.tiling;
    const int stride = in.radial.stride, channel = thread & (t.channels - 1), n = t.atoms * batch * t.n_rows;
    for (int e = thread >> t.channel_bits; e < n; e += threads >> t.channel_bits) {
      const int bond = e / t.n_rows, row = e - bond * t.n_rows;
      if (neighbors[bond] < 0) continue;
      const int first = row / rows * t.n_groups - pass * t.pass_tiles;
      const int begin = first < 0 ? 0 : first;
      const int end = first + t.n_groups < t.pass_tiles ? first + t.n_groups : t.pass_tiles;
      if (begin >= end) continue;
      Real sum = Real(0);
      for (int local = begin; local < end; ++local)
        sum += terms.gI[((bond * t.pass_tiles + local) * rows + row % rows) * t.channels + channel];
      message_gradient.add((std::int64_t{neighbors[bond]} * t.n_rows + row) * stride + channel0 + channel, sum);
    }
    int units = t.n_tiles - pass * t.pass_tiles;
    units = (units < t.pass_tiles ? units : t.pass_tiles) * t.channels;
    for (int e = thread; e < t.atoms * batch * segments * 4; e += threads) {
      const int component = e % 4, segment = e / 4 % segments, bond = e / (4 * segments);
      if (neighbors[bond] < 0) continue;
      // neighbouring lanes read neighbouring numbers
      const Real* from = &terms.force[bond * t.pass_tiles * t.channels].a + component;
      Real sum = Real(0);
      for (int unit = segment; unit < units; unit += segments) sum += from[4 * unit];
      (&partial[bond * segments + segment].a)[component] = sum;
    }
  }

  GRACE_DEVICE void add_gradients(int thread, int first_atom, int first_bond, const Four* partial) const {
    for (int bond = thread; bond < in.tiling.atoms * batch; bond += threads) {
      const std::int64_t slot = in.slot(first_atom, bond / batch, first_bond + bond % batch);
      if (slot < 0) continue;
      double slope = 0.0, x = 0.0, y = 0.0, z = 0.0;
      for (int s = 0; s < segments; ++s) {
        const Four part = partial[bond * segments + s];
        slope += static_cast<double>(part.a);
        x += static_cast<double>(part.x);
        y += static_cast<double>(part.y);
        z += static_cast<double>(part.z);
      }
      add_bond_gradient(in.bonds, slot, slope, x, y, z);
    }
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const MessageTiling& t = in.tiling;
    const int n_pairs = t.n_harmonics * t.n_rows, degrees = in.radial.lmax + 1, bonds = t.atoms * batch;
    const int first_atom = static_cast<int>(block.x()) * t.atoms, most = in.most_bonds(first_atom);
    const int units = bonds * t.pass_tiles * t.channels;
    const std::size_t gI_bytes = device::shared_size<Real>(units * rows);
    const std::size_t terms_end = gI_bytes + device::shared_size<Four>(units);
    const std::size_t pairs_end = device::shared_size<Real>(t.atoms * n_pairs * t.channels);
    unsigned char* memory = block.template shared<unsigned char>(terms_end < pairs_end ? pairs_end : terms_end);
    Real* gT = reinterpret_cast<Real*>(memory);
    const Terms terms{reinterpret_cast<Real*>(memory), reinterpret_cast<Four*>(memory + gI_bytes)};
    Four* partial = block.template shared<Four>(bonds * segments);
    Four* harmonics = block.template shared<Four>(bonds * t.n_groups * lm_tile);
    Real* R = block.template shared<Real>(bonds * degrees * t.channels);
    Real* dR = block.template shared<Real>(bonds * degrees * t.channels);
    Real* Y = block.template shared<Real>(bonds * t.n_harmonics);
    Real* dY = block.template shared<Real>(3 * bonds * t.n_harmonics);
    std::int32_t* neighbors = block.template shared<std::int32_t>(2 * bonds);

    // Channels one after another in the same block, so that the gradient of a bond has one writer.
    for (int channel0 = 0; channel0 < in.radial.stride; channel0 += t.channels)
      for (int pass = 0; pass < t.n_passes; ++pass) {
        block.each_thread([&](int thread, Private& own) {
          own.place = in.place(thread, rows, first_atom, pass);
          pair_gradients(thread, first_atom, channel0, gT);
        });
        block.each_thread([&](int thread, Private& own) { load_tile(thread, gT, own); });
        for (int first_bond = 0; first_bond < most + batch; first_bond += batch) {
          std::int32_t* now = neighbors + first_bond / batch % 2 * bonds;
          const std::int32_t* before = neighbors + (first_bond / batch + 1) % 2 * bonds;
          const bool more = first_bond < most;
          block.each_thread([&](int thread, Private&) {
            if (first_bond > 0) add_terms(thread, pass, channel0, before, terms, partial);
            if (!more) return;
            in.template stage_neighbors<true>(thread, first_atom, first_bond, now, Y, dY);
            in.template stage_radial<true>(thread, first_atom, first_bond, channel0, R, dR);
          });
          block.each_thread([&](int thread, Private&) {
            if (first_bond > 0) add_gradients(thread, first_atom, first_bond - batch, partial);
            if (!more) return;
            for (int e = thread; e < bonds * t.n_groups * lm_tile; e += threads) {
              const int m = e % lm_tile, group = e / lm_tile % t.n_groups, bond = e / lm_tile / t.n_groups;
              const int lm = bond * t.n_harmonics + t.first[group] + m;
              harmonics[e] = m < t.group_size(group) && now[bond] >= 0
                                 ? Four{Y[lm], dY[3 * lm], dY[3 * lm + 1], dY[3 * lm + 2]}
                                 : Four{Real(0), Real(0), Real(0), Real(0)};
            }
          });
          if (more)
            block.each_thread(
                [&](int thread, Private& own) { bond_terms(thread, channel0, own, now, R, dR, harmonics, terms); });
        }
      }
  }
};

}  // namespace grace::gpu
