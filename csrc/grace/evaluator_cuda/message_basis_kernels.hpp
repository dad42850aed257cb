// Kernels of message_basis.hpp: the forward pass; its adjoint is in message_adjoint_kernels.hpp.
#pragma once

#include <type_traits>

#include "grace/evaluator_cuda/message_adjoint_kernels.hpp"
#include "grace/evaluator_cuda/message_rows_kernels.hpp"

namespace grace::gpu {

// T[lm, r] = sum_j R_nl Y_lm I_j[r] of every channel in registers, then through shared memory to YI.
template <class Real, int rows>
struct MessageForward {
  static constexpr const char* name = "message_forward";
  static constexpr int threads = message_threads;
  static constexpr int min_blocks = message_blocks(sizeof(Real) * rows);
  static constexpr int row_tile = rows;
  static constexpr int batch = 16;
  struct Private {
    MessagePlace place;
    Real sum[lm_tile][rows];
  };

  // The harmonics of a group, padded to whole 16-byte loads.
  struct alignas(16) Harmonics {
    Real Y[12];
  };

  MessageBonds<Real> in;
  GatherTable<Real> table;
  const Real* factor;
  const Real* message;
  Real* out;  // slot [target][atom][stride]

  static std::size_t shared_bytes(const MessageTiling& t, int lmax) {
    const std::size_t bonds = static_cast<std::size_t>(t.atoms) * t.batch;
    return device::shared_size<Real>(static_cast<std::size_t>(t.atoms) * t.n_harmonics * t.n_rows * t.channels) +
           device::shared_size<Real>(bonds * (lmax + 1) * t.channels) +
           device::shared_size<Real>(bonds * t.n_harmonics) + device::shared_size<Harmonics>(bonds * t.n_groups) +
           device::shared_size<std::int32_t>(bonds);
  }

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    const MessageTiling& t = in.tiling;
    const int n_pairs = t.n_harmonics * t.n_rows, degrees = in.radial.lmax + 1, stride = in.radial.stride;
    const int bonds = t.atoms * t.batch, channel0 = static_cast<int>(block.y()) * t.channels;
    const int first_atom = static_cast<int>(block.x()) * t.atoms, most = in.most_bonds(first_atom);
    Real* T = block.template shared<Real>(t.atoms * n_pairs * t.channels);
    Real* R = block.template shared<Real>(bonds * degrees * t.channels);
    Real* Y = block.template shared<Real>(bonds * t.n_harmonics);
    Harmonics* grouped = block.template shared<Harmonics>(bonds * t.n_groups);
    std::int32_t* neighbors = block.template shared<std::int32_t>(bonds);

    for (int pass = 0; pass < t.n_passes; ++pass) {
      block.each_thread([&](int thread, Private& own) {
        own.place = in.place(thread, rows, first_atom, pass);
        for (int m = 0; m < lm_tile; ++m)
          for (int r = 0; r < rows; ++r) own.sum[m][r] = Real(0);
      });
      for (int first_bond = 0; first_bond < most; first_bond += t.batch) {
        block.each_thread([&](int thread, Private&) {
          in.template stage_neighbors<false>(thread, first_atom, first_bond, neighbors, Y, static_cast<Real*>(nullptr));
          in.template stage_radial<false>(thread, first_atom, first_bond, channel0, R, static_cast<Real*>(nullptr));
        });
        block.each_thread([&](int thread, Private&) {
          constexpr int padded = sizeof(Harmonics) / sizeof(Real);
          for (int e = thread; e < bonds * t.n_groups * padded; e += threads) {
            const int m = e % padded, group = e / padded % t.n_groups, bond = e / padded / t.n_groups;
            grouped[bond * t.n_groups + group].Y[m] = m < t.group_size(group) && neighbors[bond] >= 0
                                                          ? Y[bond * t.n_harmonics + t.first[group] + m]
                                                          : Real(0);
          }
        });
        block.each_thread([&](int thread, Private& own) {
          const MessagePlace p = own.place;
          if (p.atom < 0) return;
          const int left = t.n_rows - p.row0, channel = thread & (t.channels - 1);
          int l[3];
          in.degrees_of(p.group, l);
          const Real* of_row = message + std::int64_t{p.row0} * stride + channel0 + channel;
          const int width = t.n_rows * stride;
          const std::int32_t* j = neighbors + p.atom * t.batch;
          Real next[rows];  // I of the next bond travels while this one is worked on
          load_rows<rows>(j[0] < 0 ? nullptr : of_row + std::int64_t{j[0]} * width, stride, left, next);
          for (int b = 0; b < t.batch && j[b] >= 0; ++b) {
            const int bond = p.atom * t.batch + b;
            Real value[rows];
            for (int r = 0; r < rows; ++r) value[r] = next[r];
            const std::int32_t other = b + 1 < t.batch ? j[b + 1] : -1;
            load_rows<rows>(other < 0 ? nullptr : of_row + std::int64_t{other} * width, stride, left, next);
            const Real* of_bond = R + bond * degrees * t.channels + channel;
            const Real r0 = of_bond[l[0] * t.channels], r1 = of_bond[l[1] * t.channels],
                       r2 = of_bond[l[2] * t.channels];
            const Harmonics of_group = grouped[bond * t.n_groups + p.group];
            for (int m = 0; m < lm_tile; ++m) {
              const Real ry = (m == 0 ? r0 : m < 4 ? r1 : r2) * of_group.Y[m];
              for (int r = 0; r < rows; ++r) own.sum[m][r] += ry * value[r];
            }
          }
        });
      }
      block.each_thread([&](int thread, Private& own) {
        const MessagePlace p = own.place;
        if (p.atom < 0) return;
        const int size = t.group_size(p.group), left = t.n_rows - p.row0, channel = thread & (t.channels - 1);
        Real* to = T + (p.atom * n_pairs + t.first[p.group] * t.n_rows + p.row0) * t.channels + channel;
        for (int m = 0; m < lm_tile; ++m)
          for (int r = 0; r < rows; ++r)
            if (m < size && r < left) to[(m * t.n_rows + r) * t.channels] = own.sum[m][r];
      });
    }
    block.each_thread([&](int thread, Private&) {
      const int channel = thread & (t.channels - 1);
      for (int e = thread >> t.channel_bits; e < t.atoms * table.n_targets; e += threads >> t.channel_bits) {
        const int atom = e / table.n_targets, target = e - atom * table.n_targets;
        if (first_atom + atom >= in.chunk.n_atoms) return;
        const Real* pairs = T + atom * n_pairs * t.channels + channel;
        Real sum = Real(0);
        for (int k = table.first_term[target]; k < table.first_term[target + 1]; ++k)
          sum += table.terms[k].coefficient * pairs[table.terms[k].first * t.channels];
        out[(std::int64_t{target} * in.chunk.n_atoms + first_atom + atom) * stride + channel0 + channel] =
            sum * factor[in.chunk.species[first_atom + atom]];
      }
    });
  }
};

// Rows of a tile: eight where they come to no more padding than four; one for a message of scalars. Doubles take two
// registers each.
template <class Real, class Launch>
void with_row_tile(int n_rows, Launch launch) {
  if (n_rows == 1) return launch(std::integral_constant<int, 1>());
  if constexpr (sizeof(Real) == 4)
    if ((n_rows + 3) / 4 % 2 == 0) return launch(std::integral_constant<int, 8>());
  launch(std::integral_constant<int, 4>());
}

template <class Device, class Real>
void message_forward(Device& device, const LayerPlan<Real>& layer, const Frame& frame, const Chunk& chunk,
                     const Bonds<Real>& bonds, const Real* message, Real* values) {
  const MessagePlan<Real>& plan = layer.message_plan;
  const Slot& slot = layer.slots[layer.message_basis];
  const int lmax = layer.radial.lmax, stride = layer.radial.stride;
  with_row_tile<Real>(plan.n_rows, [&](auto rows) {
    using Kernel = MessageForward<Real, decltype(rows)::value>;
    const MessageTiling t = fit_message_tiling<Kernel>(lmax, plan.n_rows, stride, device.most_shared_bytes());
    device.launch(Kernel{message_bonds(layer, t, frame, chunk, bonds), plan.forward, plan.factor, message,
                         values + slot.offset * chunk.n_atoms},
                  {device::blocks_for(chunk.n_atoms, t.atoms), static_cast<unsigned>(stride / t.channels)},
                  Kernel::shared_bytes(t, lmax));
  });
}

template <class Device, class Real>
void message_adjoint(Device& device, const LayerPlan<Real>& layer, const Frame& frame, const Chunk& chunk,
                     const Bonds<Real>& bonds, const Real* message, const Real* gradients,
                     const device::AtomicSum<Real>& message_gradient) {
  const MessagePlan<Real>& plan = layer.message_plan;
  const Slot& slot = layer.slots[layer.message_basis];
  const int lmax = layer.radial.lmax, stride = layer.radial.stride;
  with_row_tile<Real>(plan.n_rows, [&](auto rows) {
    using Kernel = MessageAdjoint<Real, decltype(rows)::value>;
    const MessageTiling t = fit_message_tiling<Kernel>(lmax, plan.n_rows, stride, device.most_shared_bytes());
    device.launch(Kernel{message_bonds(layer, t, frame, chunk, bonds), plan.adjoint, plan.factor, message,
                         gradients + slot.offset * chunk.n_atoms, message_gradient},
                  {device::blocks_for(chunk.n_atoms, t.atoms), 1}, Kernel::shared_bytes(t, lmax));
  });
}

}  // namespace grace::gpu
