// The tile kernels of the CPU evaluator. Compiled once per instruction set with -DGRACE_ISA=<namespace>; exports one
// function, kernels(), in that namespace. Uses no std:: templates: an inline copy compiled for AVX-512 could otherwise
// be picked by the linker for every machine.
#include "grace/evaluator_cpu/message_basis.hpp"
#include "grace/evaluator_cpu/readout.hpp"

namespace grace::cpu {
inline namespace GRACE_ISA {
namespace {

template <class Real>
void clear_rows(const LayerPlan<Real>& layer, const Tile<Real>& tile, Real* arena, int slot) {
  Real* rows = slot_rows(arena, layer.slots[slot], tile);
  const long size = static_cast<long>(layer.slots[slot].n_rows) * layer.slots[slot].stride * tile.n_atoms;
  for (long e = 0; e < size; e += Pack<Real>::width) Pack<Real>::store(rows + e, Pack<Real>::zero());
}

template <class Real>
void prepare_bonds(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  compute_harmonics<Real, false>(layer.harmonics, tile.bonds);
  compute_radial(layer.radial, tile.bonds);
}

template <class Real>
void layer_forward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  if (layer.basis >= 0) basis_forward(layer, tile);
  if (layer.message_basis >= 0) message_forward(layer, tile);
  for (int s = 0; s < layer.n_accumulated; ++s) clear_rows(layer, tile, tile.values, layer.accumulated[s]);
  for (int i = 0; i < layer.n_ops; ++i) {
    const Op<Real>& op = layer.ops[i];
    if (op.kind == Op<Real>::Kind::product)
      product_forward(layer, op.product, tile);
    else
      linear_forward(layer, op.linear, tile);
  }
}

template <class Real>
void layer_backward(const LayerPlan<Real>& layer, Tile<Real>& tile) {
  for (int slot = 0; slot < layer.n_slots; ++slot)
    if (slot != layer.density && slot != layer.message) clear_rows(layer, tile, tile.gradients, slot);
  for (int i = layer.n_ops - 1; i >= 0; --i) {
    const Op<Real>& op = layer.ops[i];
    if (op.kind == Op<Real>::Kind::product)
      product_backward(layer, op.product, tile);
    else
      linear_backward(layer, op.linear, tile);
  }
  Bonds<Real>& bonds = tile.bonds;
  compute_harmonics<Real, true>(layer.harmonics, bonds);
  compute_radial_slope(layer.radial, bonds);
  for (int k = 0; k < 3; ++k)
    for (int b = 0; b < bonds.count; ++b) bonds.gradient[static_cast<long>(k) * bonds.capacity + b] = 0.0;
  if (layer.message_basis >= 0)
    message_backward(layer, tile);
  else
    basis_backward(layer, tile);
}

template <class Real>
TileKernels<Real> tile_kernels() {
  return {&collect_bonds<Real>, &prepare_bonds<Real>, &layer_forward<Real>, &layer_backward<Real>};
}

}  // namespace

#define GRACE_TEXT_(x) #x
#define GRACE_TEXT(x) GRACE_TEXT_(x)
Kernels kernels() { return {GRACE_TEXT(GRACE_ISA), &readout, tile_kernels<double>(), tile_kernels<float>()}; }

}  // namespace GRACE_ISA
}  // namespace grace::cpu
