// Norm of the densities and readout MLP of a chunk, in double: energies and density gradients.
#pragma once

#include "grace/evaluator_cuda/plan.hpp"

namespace grace::gpu {

// Densities of layer 1 are kept per centre between the passes of two-layer models, [centre][n_densities].
template <class Device, class Real>
void store_densities(Device& device, const LayerPlan<Real>& layer, int n_densities, const Chunk& chunk,
                     const Real* values, double* densities);

// energies[centre] from the densities of `layer` (the last one) in `values` and, for two layers, those of `first`
// stored before (`first` == nullptr: one layer). If `gradients` is given, also their gradients in eV: of `layer` to its
// density slot in `gradients`, of `first` to density_gradients [centre][n_densities].
template <class Device, class Real>
void readout(Device& device, const ReadoutPlan& plan, const LayerPlan<Real>& layer, const LayerPlan<Real>* first,
             const Chunk& chunk, const Real* values, const double* densities, double* energies, Real* gradients,
             double* density_gradients);

// Density gradients of layer 1 to its slot.
template <class Device, class Real>
void load_density_gradients(Device& device, const LayerPlan<Real>& layer, int n_densities, const Chunk& chunk,
                            const double* density_gradients, Real* gradients);

}  // namespace grace::gpu
