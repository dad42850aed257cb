// Kernels of readout.hpp.
#pragma once

#include <algorithm>

#include "grace/device/kernel.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/readout.hpp"
#include "grace/math/dense.hpp"
#include "grace/math/density_norm.hpp"
#include "grace/math/scalar_pack.hpp"

namespace grace::gpu {

// The densities of one atom (math/density_norm.hpp): y = norm(x), and gx = gradient of x from gy.
GRACE_DEVICE void apply_norm(const NormPlan& norm, int n, const double* x, double* y) {
  if (!norm.present) {
    for (int k = 0; k < n; ++k) y[k] = x[k];
  } else if (norm.only_nonlinear) {
    y[0] = x[0] * norm.gate;
    math::rms_norm(n - 1, x + 1, norm.scale, y + 1);
  } else {
    math::rms_norm(n, x, norm.scale, y);
  }
}

GRACE_DEVICE void apply_norm_adjoint(const NormPlan& norm, int n, const double* x, const double* gy, double* gx) {
  if (!norm.present) {
    for (int k = 0; k < n; ++k) gx[k] = gy[k];
  } else if (norm.only_nonlinear) {
    gx[0] = gy[0] * norm.gate;
    math::rms_norm_adjoint(n - 1, x + 1, norm.scale, gy + 1, gx + 1);
  } else {
    math::rms_norm_adjoint(n, x, norm.scale, gy, gx);
  }
}

// One block: up to most_atoms atoms through all layers. Weights pass through shared memory in square pieces, which
// serve forward (lane = column) and, padded by one, backward (lane = row) without bank conflicts.
template <class Real>
struct Readout {
  static constexpr const char* name = "readout";
  static constexpr int piece = 64;
  static constexpr int groups = 4;  // of atoms; a thread has one column and the atoms of its group
  static constexpr int threads = piece * groups;
  static constexpr int atoms_per_thread = 4;
  static constexpr int most_atoms = groups * atoms_per_thread;
  struct Private {
    double sum[atoms_per_thread];
  };

  ReadoutPlan plan;
  NormPlan norm, first_norm;
  bool two_layers;
  int block_atoms;  // most_atoms, or fewer where a wide network leaves no room
  int width;        // numbers per atom of a plane: of the widest layer and of the densities
  Chunk chunk;
  const Real* values;  // density slot [atom][stride]
  int stride;
  const double* densities;
  double* energies;
  Real* gradients;
  double* density_gradients;

  static std::size_t shared_bytes(const ReadoutPlan& plan, int block_atoms, int width) {
    const std::size_t plane = device::shared_size<double>(static_cast<std::size_t>(block_atoms) * width);
    return device::shared_size<double>(piece * (piece + 1)) + (5 + std::max(0, plan.n_layers - 1)) * plane;
  }

  // finish(atom, column, sum over k of in[atom][k] W(k, column)), W transposed or not, for all atoms and columns.
  template <class Block, class Finish>
  GRACE_DEVICE void multiply(Block& block, double* tile, int layer, bool transposed, const double* in, int in_stride,
                             Finish finish) const {
    const double* weights = plan.layer_weights[layer];
    const int n_in = plan.layer_in[layer], n_out = plan.layer_out[layer];
    const int n_columns = transposed ? n_in : n_out, n_inner = transposed ? n_out : n_in;
    const int inner_step = transposed ? 1 : piece + 1, column_step = transposed ? piece + 1 : 1;
    for (int column0 = 0; column0 < n_columns; column0 += piece)
      for (int inner0 = 0; inner0 < n_inner; inner0 += piece) {
        const int row0 = transposed ? column0 : inner0, first_column = transposed ? inner0 : column0;
        const int inner = n_inner - inner0 < piece ? n_inner - inner0 : piece;
        block.each_thread([&](int thread, Private&) {
          for (int e = thread; e < piece * piece; e += threads) {
            const int row = row0 + e / piece, column = first_column + e % piece;
            if (row < n_in && column < n_out)
              tile[e / piece * (piece + 1) + e % piece] = weights[static_cast<std::int64_t>(row) * n_out + column];
          }
        });
        block.each_thread([&](int thread, Private& own) {
          const int column = thread % piece, atom0 = thread / piece * atoms_per_thread;
          if (inner0 == 0)
            for (int a = 0; a < atoms_per_thread; ++a) own.sum[a] = 0.0;
          if (column0 + column >= n_columns) return;
          for (int k = 0; k < inner; ++k) {
            const double w = tile[k * inner_step + column * column_step];
            for (int a = 0; a < atoms_per_thread; ++a)
              if (atom0 + a < block_atoms) own.sum[a] += in[(atom0 + a) * in_stride + inner0 + k] * w;
          }
          if (inner0 + piece < n_inner) return;
          for (int a = 0; a < atoms_per_thread; ++a)
            if (atom0 + a < block_atoms) finish(atom0 + a, column0 + column, own.sum[a]);
        });
      }
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    using Pack = math::ScalarPack<double>;
    const int n = plan.n_densities, plane = block_atoms * width;
    const int begin = static_cast<int>(block.x()) * block_atoms;
    const int count = chunk.n_atoms - begin < block_atoms ? chunk.n_atoms - begin : block_atoms;
    double* tile = block.template shared<double>(piece * (piece + 1));
    double* x = block.template shared<double>(plane);  // densities of the last layer
    double* x_first = block.template shared<double>(plane);
    double* y = block.template shared<double>(plane);  // their normalised sum, then its gradient
    double* even = block.template shared<double>(plane);
    double* odd = block.template shared<double>(plane);
    double* slopes = plan.n_layers > 1 ? block.template shared<double>((plan.n_layers - 1) * plane) : nullptr;

    block.each_thread([&](int thread, Private&) {
      for (int e = thread; e < block_atoms * n; e += threads) {
        const int a = e / n, k = e % n;
        x[a * width + k] =
            a < count ? static_cast<double>(values[static_cast<std::int64_t>(begin + a) * stride + k]) : 0.0;
        if (two_layers)
          x_first[a * width + k] =
              a < count ? densities[static_cast<std::int64_t>(chunk.centers[begin + a]) * n + k] : 0.0;
      }
    });
    block.each_thread([&](int thread, Private&) {
      if (thread >= block_atoms) return;
      double* sum = y + thread * width;
      apply_norm(norm, n, x + thread * width, sum);
      if (!two_layers) return;
      double* other = even + thread * width;
      apply_norm(first_norm, n, x_first + thread * width, other);
      for (int k = 0; k < n; ++k) sum[k] += other[k];
    });

    for (int layer = 0; layer < plan.n_layers; ++layer) {
      const double* in = layer == 0 ? y + 1 : (layer % 2 == 0 ? odd : even);
      double* out = layer % 2 == 0 ? even : odd;
      const bool last = layer + 1 == plan.n_layers;
      multiply(block, tile, layer, false, in, width, [&](int a, int column, double sum) {
        if (last) {
          if (column == 0 && a < count)
            energies[chunk.centers[begin + a]] =
                (y[a * width] + sum) * plan.output_scale + plan.shift[chunk.species[begin + a]];
          return;
        }
        double value, slope;
        if (plan.is_tanh)
          math::tanh<Pack>(sum, value, slope);
        else
          math::silu<Pack>(sum, value, slope);
        out[a * width + column] = value;
        slopes[layer * plane + a * width + column] = slope;
      });
    }
    if (gradients == nullptr) return;

    double *upper = even, *lower = odd;
    block.each_thread([&](int thread, Private&) {
      if (thread < block_atoms) {
        upper[thread * width] = plan.output_scale;
        y[thread * width] = plan.output_scale;
      }
    });
    for (int layer = plan.n_layers - 1; layer >= 0; --layer) {
      const double* slope = layer == 0 ? nullptr : slopes + (layer - 1) * plane;
      multiply(block, tile, layer, true, upper, width, [&](int a, int column, double sum) {
        if (layer == 0)
          y[a * width + 1 + column] = sum;
        else
          lower[a * width + column] = sum * slope[a * width + column];
      });
      double* swap = upper;
      upper = lower;
      lower = swap;
    }
    block.each_thread([&](int thread, Private&) {
      if (thread >= block_atoms) return;
      apply_norm_adjoint(norm, n, x + thread * width, y + thread * width, even + thread * width);
      if (two_layers)
        apply_norm_adjoint(first_norm, n, x_first + thread * width, y + thread * width, odd + thread * width);
    });
    block.each_thread([&](int thread, Private&) {
      for (int e = thread; e < count * stride; e += threads) {
        const int a = e / stride, k = e % stride;
        gradients[static_cast<std::int64_t>(begin) * stride + e] =
            k < n ? static_cast<Real>(even[a * width + k]) : Real(0);
      }
      if (!two_layers) return;
      for (int e = thread; e < count * n; e += threads)
        density_gradients[static_cast<std::int64_t>(chunk.centers[begin + e / n]) * n + e % n] =
            odd[e / n * width + e % n];
    });
  }
};

template <class Real>
struct StoreDensities {
  static constexpr const char* name = "store_densities";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  Chunk chunk;
  int n_densities;
  int stride;
  const Real* rows;
  double* densities;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t e = std::int64_t{block.x()} * threads + thread, atom = e / n_densities;
      if (atom >= chunk.n_atoms) return;
      const std::int64_t k = e - atom * n_densities;
      densities[std::int64_t{chunk.centers[atom]} * n_densities + k] = static_cast<double>(rows[atom * stride + k]);
    });
  }
};

template <class Real>
struct LoadDensityGradients {
  static constexpr const char* name = "load_density_gradients";
  static constexpr int threads = 256;
  using Private = device::NoPrivate;
  Chunk chunk;
  int n_densities;
  int stride;
  const double* density_gradients;
  Real* rows;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t e = std::int64_t{block.x()} * threads + thread, atom = e / stride;
      if (atom >= chunk.n_atoms) return;
      const std::int64_t k = e - atom * stride;
      rows[e] = k < n_densities
                    ? static_cast<Real>(density_gradients[std::int64_t{chunk.centers[atom]} * n_densities + k])
                    : Real(0);
    });
  }
};

template <class Device, class Real>
void store_densities(Device& device, const LayerPlan<Real>& layer, int n_densities, const Chunk& chunk,
                     const Real* values, double* densities) {
  using Kernel = StoreDensities<Real>;
  const Slot& slot = layer.slots[layer.density];
  const std::size_t n = static_cast<std::size_t>(chunk.n_atoms) * n_densities;
  device.launch(Kernel{chunk, n_densities, slot.stride, values + slot.offset * chunk.n_atoms, densities},
                {device::blocks_for(n, Kernel::threads), 1});
}

template <class Device, class Real>
void load_density_gradients(Device& device, const LayerPlan<Real>& layer, int n_densities, const Chunk& chunk,
                            const double* density_gradients, Real* gradients) {
  using Kernel = LoadDensityGradients<Real>;
  const Slot& slot = layer.slots[layer.density];
  const std::size_t n = static_cast<std::size_t>(chunk.n_atoms) * slot.stride;
  device.launch(Kernel{chunk, n_densities, slot.stride, density_gradients, gradients + slot.offset * chunk.n_atoms},
                {device::blocks_for(n, Kernel::threads), 1});
}

template <class Device, class Real>
void readout(Device& device, const ReadoutPlan& plan, const LayerPlan<Real>& layer, const LayerPlan<Real>* first,
             const Chunk& chunk, const Real* values, const double* densities, double* energies, Real* gradients,
             double* density_gradients) {
  using Kernel = Readout<Real>;
  const Slot& slot = layer.slots[layer.density];
  const int width = std::max(plan.widest, plan.n_densities);
  int atoms = Kernel::most_atoms;
  while (atoms > 1 && Kernel::shared_bytes(plan, atoms, width) > device.most_shared_bytes()) atoms /= 2;
  const std::size_t bytes = Kernel::shared_bytes(plan, atoms, width);
  require(bytes <= device.most_shared_bytes(), "the readout has ", plan.n_layers, " layers of up to ", plan.widest,
          " units, which need ", bytes, " bytes of shared memory on a GPU, more than ", device.most_shared_bytes(),
          "; use device cpu");
  const std::size_t start = slot.offset * chunk.n_atoms;
  device.launch(Kernel{plan, layer.norm, first == nullptr ? NormPlan{} : first->norm, first != nullptr, atoms, width,
                       chunk, values + start, slot.stride, densities, energies,
                       gradients == nullptr ? nullptr : gradients + start, density_gradients},
                {device::blocks_for(chunk.n_atoms, atoms), 1}, bytes);
}

}  // namespace grace::gpu
