// Launches of the kernels of basis.hpp.
#pragma once

#include <algorithm>
#include <type_traits>

#include "grace/error.hpp"
#include "grace/evaluator_cuda/basis_adjoint_kernels.hpp"
#include "grace/evaluator_cuda/basis_forward_kernels.hpp"

namespace grace::gpu {

// Calls launch(lmax bound, coefficients in registers): registers are allotted for the largest l, and tables of the
// usual degree stay in registers.
template <class Real, class Launch>
void with_basis_sizes(const RadialPlan<Real>& radial, Launch launch) {
  using std::integral_constant;
  constexpr int usual = usual_coefficients<Real>;
  const bool table = radial.n_intervals > 0 && radial.n_coefficients == usual;
  if (radial.lmax <= 4) {
    if (table) return launch(integral_constant<int, 4>(), integral_constant<int, usual>());
    return launch(integral_constant<int, 4>(), integral_constant<int, 0>());
  }
  if (table) return launch(integral_constant<int, 8>(), integral_constant<int, usual>());
  launch(integral_constant<int, 8>(), integral_constant<int, 0>());
}

template <class Device, class Real>
void basis_forward(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Bonds<Real>& bonds,
                   Real* values) {
  const Slot& slot = layer.slots[layer.basis];
  const int lmax = layer.radial.lmax, n_harmonics = (lmax + 1) * (lmax + 1);
  with_basis_sizes(layer.radial, [&](auto max_l, auto coefficients) {
    using Kernel = BasisForward<Real, decltype(max_l)::value, decltype(coefficients)::value>;
    const int all_groups = layer.radial.stride / Kernel::channels, groups = std::min(all_groups, Kernel::threads);
    const int tiles = (all_groups + groups - 1) / groups, atoms = Kernel::most_atoms(n_harmonics, groups);
    device.launch(
        Kernel{radial_functions(layer.radial, bonds), layer.harmonics, chunk, bonds, layer.chemical, layer.basis_factor,
               values + slot.offset * chunk.n_atoms, atoms, groups, all_groups, n_harmonics},
        {device::blocks_for(chunk.n_atoms, atoms), static_cast<unsigned>((lmax + 1) * tiles)},
        Kernel::shared_bytes(n_harmonics, atoms));
  });
}

template <class Device, class Real>
void basis_adjoint(Device& device, const LayerPlan<Real>& layer, const Chunk& chunk, const Bonds<Real>& bonds,
                   const Real* gradients) {
  const Slot& slot = layer.slots[layer.basis];
  const int lmax = layer.radial.lmax, n_harmonics = (lmax + 1) * (lmax + 1);
  with_basis_sizes(layer.radial, [&](auto max_l, auto coefficients) {
    using Kernel = BasisAdjoint<Real, decltype(max_l)::value, decltype(coefficients)::value>;
    // Two blocks on a multiprocessor where it is large; a pass stages the bonds again.
    const std::size_t good_bytes = std::min<std::size_t>(112 * 1024, device.most_shared_bytes());
    int channels = layer.radial.stride;
    while (channels > channel_unit && Kernel::shared_bytes(lmax, channels) > good_bytes)
      channels = padded_channels(channels / 2);  // a multiple of the unit, and smaller
    const std::size_t bytes = Kernel::shared_bytes(lmax, channels);
    require(bytes <= device.most_shared_bytes(), "the basis has harmonics up to l = ", lmax, ", which need ", bytes,
            " bytes of shared memory on a GPU, more than ", device.most_shared_bytes(),
            "; use precision mixed or device cpu");
    const int n_groups = std::max(lmax - 1, 1), splits = Kernel::warps / n_groups;
    device.launch(
        Kernel{radial_functions(layer.radial, bonds), layer.harmonics, chunk, bonds, layer.chemical, layer.basis_factor,
               gradients + slot.offset * chunk.n_atoms, n_harmonics, channels, n_groups, splits},
        {static_cast<unsigned>(chunk.n_atoms), 1}, bytes);
  });
}

}  // namespace grace::gpu
