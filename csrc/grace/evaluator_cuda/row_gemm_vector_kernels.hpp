// Dense maps on the units that multiply and add single numbers: fp64, and fp32 where tensor cores are not wanted.
#pragma once

#include "grace/evaluator_cuda/row_gemm_staging.hpp"

namespace grace::gpu {

// A thread holds thread_atoms x thread_columns sums: atoms a, a + 8, ...; columns in packets that lie as far apart as
// the packets of all threads side by side. So lanes that read rows meet different banks (the pitch is an odd multiple
// of a packet), and lanes that read the matrix meet one stretch of it. Of neighbouring lanes, i and i ^ 1 read the same
// packet of the matrix, i and i ^ 2 the same of the rows: then half a warp reads 16 bytes per lane in one go.
template <class Real, int columns_>
struct VectorTile {
  static constexpr int columns = columns_;
  static constexpr int packet = Packet<Real>::size;
  static constexpr int atoms = tile_atoms(columns);
  static constexpr int thread_atoms = atoms / 8;
  static constexpr int thread_columns = sizeof(Real) == 4 && columns >= 48 ? 8 : 4;
  static constexpr int thread_packets = thread_columns / packet;
  static constexpr int units = columns / thread_columns;
  static constexpr int team_threads = 8 * units;
  static constexpr int teams = 128 / team_threads;
  static constexpr int threads = teams * team_threads;
  static constexpr int slab = slab_size<Real>(columns);
  static constexpr int row_pitch = slab + packet;
  static constexpr int matrix_pitch = columns;
  static constexpr int most_targets = sizeof(Real) == 4 ? 1 : most_block_targets;  // what the registers allow
};

template <class Real, int columns_>
struct RowGemmVector {
  using Tile = VectorTile<Real, columns_>;
  using Input = GemmInput<Real, Tile>;
  static constexpr const char* name = "row_gemm";
  static constexpr int threads = Tile::threads;
  static constexpr int n_sums = Tile::thread_atoms * Tile::thread_packets;
  static constexpr int min_blocks = n_sums == 16 ? 3 : 4;  // 64 registers of sums need as many beside them
  struct Private {
    Packet<Real> sum[n_sums];  // [thread_atoms][thread_packets]
  };

  Input in;

  struct Unit {
    int team, atom, column;
  };
  static GRACE_DEVICE Unit unit_of(int thread) {
    const int team = thread / Tile::team_threads, unit = thread - team * Tile::team_threads;
    return {team, unit % 2 + unit / (2 * Tile::units) * 2, unit / 2 % Tile::units * Tile::packet};
  }
  static constexpr int packet_distance = Tile::columns / Tile::thread_packets;

  template <class Warp>
  static GRACE_DEVICE void multiply(Warp& warp, const GemmPlace&, const Real* rows, const Real* matrix, int inputs) {
    warp.each_lane([&](int thread, Private& own) { multiply(thread, rows, matrix, inputs, own); });
  }
  static GRACE_DEVICE void multiply(int thread, const Real* rows, const Real* matrix, int inputs, Private& own) {
    constexpr int packet = Tile::packet;
    const Unit u = unit_of(thread);
    rows += u.atom * Tile::row_pitch;
    matrix += u.column;
#if defined(__CUDACC__)
#pragma unroll 1
#endif
    for (int k = u.team * packet; k < inputs; k += Tile::teams * packet) {
      Packet<Real> row[Tile::thread_atoms];
      for (int i = 0; i < Tile::thread_atoms; ++i)
        row[i] = *reinterpret_cast<const Packet<Real>*>(rows + 8 * i * Tile::row_pitch + k);
      for (int e = 0; e < packet; ++e)
        for (int p = 0; p < Tile::thread_packets; ++p) {
          const Packet<Real> weight =
              *reinterpret_cast<const Packet<Real>*>(matrix + (k + e) * Tile::matrix_pitch + p * packet_distance);
          for (int i = 0; i < Tile::thread_atoms; ++i)
            for (int c = 0; c < packet; ++c) own.sum[i * Tile::thread_packets + p].x[c] += row[i].x[e] * weight.x[c];
        }
    }
  }

  GRACE_DEVICE void start(int thread, const GemmPlace& place, const GemmTarget& target, Private& own) const {
    const Unit u = unit_of(thread);
    const Real* const tile = in.target(target, place);
    const int pitch = in.gemm.n_columns;
    for (int i = 0; i < Tile::thread_atoms; ++i)
      for (int p = 0; p < Tile::thread_packets; ++p) {
        const int atom = u.atom + 8 * i, column = u.column + p * packet_distance;
        Packet<Real>& sum = own.sum[i * Tile::thread_packets + p];
        sum = {};
        if (target.accumulate != 0 && u.team == 0 && atom < place.count && column < place.n_columns)
          sum = *reinterpret_cast<const Packet<Real>*>(tile + atom * pitch + column);
      }
  }

  GRACE_DEVICE void finish(int thread, const GemmPlace& place, const GemmTarget& target, const Private& own) const {
    const Unit u = unit_of(thread);
    if (u.team != 0) return;
    Real* const tile = in.target(target, place);
    const int pitch = in.gemm.n_columns;
    for (int i = 0; i < Tile::thread_atoms; ++i)
      for (int p = 0; p < Tile::thread_packets; ++p) {
        const int atom = u.atom + 8 * i, column = u.column + p * packet_distance;
        if (atom < place.count && column < place.n_columns)
          *reinterpret_cast<Packet<Real>*>(tile + atom * pitch + column) = own.sum[i * Tile::thread_packets + p];
      }
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    walk_slabs<RowGemmVector, Real>(*this, block);
  }
};

}  // namespace grace::gpu
