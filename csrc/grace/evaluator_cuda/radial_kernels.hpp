// Kernel of the exact radial network: R and dR/dx of every bond of a chunk.
#pragma once

#include "grace/device/kernel.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/bonds.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/radial.hpp"
#include "grace/math/scalar_pack.hpp"

namespace grace::gpu {

// The network on the bonds in a range of slots, with derivatives dh/dx carried along (forward mode). Layers are
// products of a [bonds][inputs] matrix in shared memory with the weights; a thread has a tile of 4 bonds x 4 outputs.
template <class Real>
struct ExactRadial {
  static constexpr const char* name = "exact_radial";
  static constexpr int threads = 128;
  static constexpr int tile = 4;
  static constexpr int most_bonds = 64;  // of a block
  using Private = device::NoPrivate;
  struct alignas(4 * sizeof(Real) < 16 ? 4 * sizeof(Real) : 16) Four {
    Real of[tile];
  };

  RadialPlan<Real> radial;
  Chunk chunk;
  Bonds<Real> bonds;
  int n_bonds;  // slots of a block, a multiple of the tile

  // Activations are [input][bond], rows of whole vectors that start on different banks.
  GRACE_HD static int spacing(int n_bonds) { return n_bonds + static_cast<int>(16 / sizeof(Real)); }
  static std::size_t shared_bytes(const RadialPlan<Real>& radial, int n_bonds) {
    return 4 * device::shared_size<Real>(static_cast<std::size_t>(radial.widest) * spacing(n_bonds)) +
           2 * device::shared_size<double>(static_cast<std::size_t>(n_bonds) * (radial.n_basis | 1)) +
           2 * device::shared_size<std::int32_t>(n_bonds);
  }

  // One layer: of_bonds[output] = sum over inputs, and the same of the derivatives; store(output, bond, value, slope).
  template <class Store>
  GRACE_DEVICE void multiply(int thread, int layer, int n_used, const Real* h, const Real* dh, Store store) const {
    const int K = radial.layer_in[layer], N = radial.layer_out[layer], columns = (N + tile - 1) / tile;
    const int row = spacing(n_bonds);
    const Real* W = radial.layer_weights[layer];
    // Neighbouring threads take neighbouring outputs: their weights come from one line, their bonds are the same.
    for (int e = thread; e < columns * ((n_used + tile - 1) / tile); e += threads) {
      const int bond0 = e / columns * tile, output0 = e % columns;
      int output[tile];
      for (int o = 0; o < tile; ++o) output[o] = output0 + o * columns < N ? output0 + o * columns : N - 1;
      Real sum[tile][tile], slope[tile][tile];
      for (int o = 0; o < tile; ++o)
        for (int b = 0; b < tile; ++b) sum[o][b] = slope[o][b] = Real(0);
      for (int k = 0; k < K; ++k) {
        const Four value = *reinterpret_cast<const Four*>(h + k * row + bond0);
        const Four derivative = *reinterpret_cast<const Four*>(dh + k * row + bond0);
        for (int o = 0; o < tile; ++o) {
          const Real w = W[static_cast<std::int64_t>(k) * N + output[o]];
          for (int b = 0; b < tile; ++b) {
            sum[o][b] += w * value.of[b];
            slope[o][b] += w * derivative.of[b];
          }
        }
      }
      for (int o = 0; o < tile; ++o)
        if (output0 + o * columns < N)
          for (int b = 0; b < tile; ++b)
            if (bond0 + b < n_used) store(output[o], bond0 + b, sum[o][b], slope[o][b]);
    }
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const int row = spacing(n_bonds), basis_row = radial.n_basis | 1;
    const std::size_t plane = static_cast<std::size_t>(radial.widest) * row;
    Real* h = block.template shared<Real>(plane);
    Real* dh = block.template shared<Real>(plane);
    Real* next = block.template shared<Real>(plane);
    Real* dnext = block.template shared<Real>(plane);
    double* g = block.template shared<double>(n_bonds * basis_row);
    double* dg = block.template shared<double>(n_bonds * basis_row);
    std::int32_t* slots = block.template shared<std::int32_t>(n_bonds);
    std::int32_t* used = block.template shared<std::int32_t>(n_bonds);
    const int first_slot = static_cast<int>(block.x()) * n_bonds;

    block.each_thread([&](int thread, Private&) {
      if (thread >= n_bonds) return;
      const int slot = first_slot + thread;
      used[thread] = slot < chunk.n_slots && bonds.interval[slot] >= 0 ? 1 : 0;
      if (used[thread] == 0) return;
      const double x = bonds.distance[slot] * bonds.inverse_cutoff[slot];
      math::chebyshev_basis(x, radial.n_basis, radial.envelope_order, 1.0, g + thread * basis_row,
                            dg + thread * basis_row);
    });
    int n_used = 0;
    for (int b = 0; b < n_bonds && first_slot + b < chunk.n_slots; ++b)
      if (bonds.interval[first_slot + b] >= 0) ++n_used;
    if (n_used == 0) return;
    // Slots that are in use move together. What is computed for the rest of a thread's tile is never stored.
    block.each_thread([&](int thread, Private&) {
      if (thread >= n_bonds || used[thread] == 0) return;
      int to = 0;
      for (int b = 0; b < thread; ++b) to += used[b];
      slots[to] = first_slot + thread;
      for (int k = 0; k < radial.n_basis; ++k) {
        h[k * row + to] = static_cast<Real>(g[thread * basis_row + k]);
        dh[k * row + to] = static_cast<Real>(dg[thread * basis_row + k]);
      }
    });
    for (int layer = 0; layer + 1 < radial.n_layers; ++layer) {
      block.each_thread([&](int thread, Private&) {
        multiply(thread, layer, n_used, h, dh, [&](int output, int bond, Real value, Real slope) {
          next[output * row + bond] = value;
          dnext[output * row + bond] = slope;
        });
      });
      block.each_thread([&](int thread, Private&) {
        for (int e = thread; e < radial.layer_out[layer] * n_used; e += threads) {
          using Pack = math::ScalarPack<Real>;
          const int at = e / n_used * row + e % n_used;
          Real y, dy;
          if (radial.is_tanh)
            math::tanh<Pack>(next[at], y, dy);
          else
            math::silu<Pack>(next[at], y, dy);
          next[at] = y;
          dnext[at] *= dy;
        }
      });
      Real* swap = h;
      h = next;
      next = swap;
      swap = dh;
      dh = dnext;
      dnext = swap;
    }
    block.each_thread([&](int thread, Private&) {
      multiply(thread, radial.n_layers - 1, n_used, h, dh, [&](int output, int bond, Real value, Real slope) {
        const std::int64_t at = std::int64_t{slots[bond]} * radial.width + output;
        bonds.radial[at] = value;
        bonds.radial_slope[at] = slope;
      });
    });
  }
};

template <class Device, class Real>
void exact_radial(Device& device, const Chunk& chunk, const RadialPlan<Real>& radial, const Bonds<Real>& bonds) {
  using Kernel = ExactRadial<Real>;
  // Two blocks on a multiprocessor where it is large.
  const std::size_t good_bytes = std::min<std::size_t>(110 * 1024, device.most_shared_bytes());
  int n_bonds = Kernel::most_bonds;
  while (n_bonds > Kernel::tile && Kernel::shared_bytes(radial, n_bonds) > good_bytes) n_bonds /= 2;
  const std::size_t bytes = Kernel::shared_bytes(radial, n_bonds);
  require(bytes <= device.most_shared_bytes(), "the radial network has layers of ", radial.widest,
          " inputs, which need ", bytes, " bytes of shared memory on a GPU, more than ", device.most_shared_bytes(),
          "; use radial table or device cpu");
  device.launch(Kernel{radial, chunk, bonds, n_bonds}, {device::blocks_for(chunk.n_slots, n_bonds), 1}, bytes);
}

}  // namespace grace::gpu
