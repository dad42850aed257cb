// Grow-only memory of one thread of the CPU evaluator, and the tile view into it.
#pragma once

#include <algorithm>
#include <limits>

#include "grace/evaluator_cpu/compiled_model.hpp"
#include "grace/evaluator_cpu/tile.hpp"

namespace grace::cpu {

template <class Real>
class Workspace {
 public:
  // Room for tiles of `tile_atoms` atoms with at most `bonds` list entries, for every layer of the model.
  void reserve(const CompiledModel<Real>& model, int tile_atoms, std::int64_t bonds) {
    const int capacity = static_cast<int>((std::max<std::int64_t>(bonds, 1) + 15) / 16 * 16);
    std::size_t arena = 0, block = 0, width = 0, harmonics = 0, coefficients = 0, intervals = 0, widest = 0, pairs = 0;
    for (const CompiledLayer<Real>& layer : model.layers) {
      const LayerPlan<Real>& plan = layer.plan;
      arena = std::max(arena, plan.arena_per_atom);
      block = std::max(block, plan.block_per_atom);
      width = std::max<std::size_t>(width, plan.radial.width);
      harmonics = std::max<std::size_t>(harmonics, plan.n_harmonics);
      coefficients = std::max<std::size_t>(coefficients, plan.radial.n_coefficients);
      intervals = std::max<std::size_t>(intervals, plan.radial.n_intervals);
      widest = std::max<std::size_t>(widest, plan.radial.widest);
      pairs = std::max<std::size_t>(pairs, static_cast<std::size_t>(plan.n_harmonics) * (plan.n_message_rows + 3) * 16);
    }
    grow(values_, arena * tile_atoms);
    grow(gradients_, arena * tile_atoms);
    grow(block_, block * tile_atoms);
    grow(block_gradient_, block * tile_atoms);
    grow(pair_buffer_, pairs);
    grow(densities_, static_cast<std::size_t>(tile_atoms) * density_stride(model) * 4);
    grow(readout_scratch_,
         static_cast<std::size_t>(tile_atoms) * model.readout.widest * (2 * model.readout.n_layers + 2));
    grow(energies_, tile_atoms);
    grow(runs_, tile_atoms + 1);
    if (capacity > tile.bonds.capacity || interval_count_.size() < intervals + 1) {
      const std::size_t n = capacity;
      grow(first_, tile_atoms + 1);
      grow(integers_, n * 5);
      grow(interval_count_, intervals + 1);
      grow(doubles_, n * 8);
      grow(reals_, n * (3 + 4 * harmonics + coefficients));
      grow(radial_, n * width);
      grow(radial_slope_, n * width);
      grow(hidden_, n * widest * 4);
      Bonds<Real>& b = tile.bonds;
      b.capacity = capacity;
      b.first = first_.data();
      b.neighbor = integers_.data();
      b.species = b.neighbor + n;
      b.radial_row = b.species + n;
      b.order = b.radial_row + n;
      b.interval = b.order + n;
      b.interval_count = interval_count_.data();
      b.vector = doubles_.data();
      b.distance = b.vector + 3 * n;
      b.inverse_cutoff = b.distance + n;
      b.gradient = b.inverse_cutoff + n;
      b.direction = reals_.data();
      b.harmonics = b.direction + 3 * n;
      b.harmonics_gradient = b.harmonics + harmonics * n;
      b.powers = b.harmonics_gradient + 3 * harmonics * n;
      b.radial = radial_.data();
      b.radial_slope = radial_slope_.data();
      b.hidden = hidden_.data();
    }
    tile.gradients = gradients_.data();
    tile.block = block_.data();
    tile.block_gradient = block_gradient_.data();
    tile.pair_buffer = pair_buffer_.data();
    tile.run_first = runs_.data();
    tile.closest2 = std::numeric_limits<double>::infinity();
    tile.closest[0] = tile.closest[1] = -1;
  }

  static int density_stride(const CompiledModel<Real>& model) { return (model.readout.n_densities + 7) / 8 * 8; }

  void set_tile(const std::int32_t* atoms, const std::int32_t* species, int n_atoms) {
    tile.atoms = atoms;
    tile.species = species;
    tile.n_atoms = n_atoms;
    tile.values = values_.data();
    int runs = 0;
    for (int a = 0; a < n_atoms; ++a)
      if (a == 0 || species[a] != species[a - 1]) runs_[runs++] = a;
    runs_[runs] = n_atoms;
    tile.n_runs = runs;
  }

  std::size_t bytes() const {
    return (values_.capacity() + gradients_.capacity() + block_.capacity() + block_gradient_.capacity() +
            pair_buffer_.capacity() + reals_.capacity() + radial_.capacity() + radial_slope_.capacity() +
            hidden_.capacity() + message_gradient.capacity()) *
               sizeof(Real) +
           (doubles_.capacity() + forces.capacity() + virial.capacity() + atom_virial.capacity() +
            centroid_virial.capacity()) *
               sizeof(double);
  }

  Tile<Real> tile;
  double* densities() { return densities_.data(); }  // four [tile atom][density_stride]
  double* readout_scratch() { return readout_scratch_.data(); }
  double* energies() { return energies_.data(); }

  // Sums of this thread, folded in thread order so that results are reproducible.
  AlignedVector<double> forces, virial, atom_virial, centroid_virial;
  AlignedVector<Real> message_gradient;
  std::vector<char> touched;  // blocks of message_gradient in use

 private:
  template <class Vector>
  static void grow(Vector& v, std::size_t n) {
    if (v.size() < n) v.resize(n);
  }

  AlignedVector<Real> values_, gradients_, block_, block_gradient_, pair_buffer_, reals_, radial_, radial_slope_,
      hidden_;
  AlignedVector<double> doubles_, densities_, readout_scratch_, energies_;
  std::vector<int> first_, integers_, interval_count_, runs_;
};

}  // namespace grace::cpu
