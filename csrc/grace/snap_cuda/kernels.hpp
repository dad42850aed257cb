// The SNAP kernels of a device (kernels.cu, kernels_emulated.cpp), over all atoms of a batch.
//
// Per atom, twojmax 8 and 50 neighbours: 0.14 MFLOP for B and 0.32 for Y whatever the neighbours, 0.13 for U and 0.22
// for the pair gradients, all in double. What is moved is small (U and Y 2.5 kB each, 64 B for a pair), so that
// arithmetic and shared memory bound the kernels:
//   density         a block for an atom. U of one pair is made row by row: a thread makes the rows of one m, in
//                   registers, without waiting for others; rows of a tile of neighbours meet in shared memory, where
//                   the sums of elements are made by other threads, in the order of the neighbours.
//   bispectrum,     two blocks for eight atoms, so that the table of terms, half a megabyte, comes from L2 once for
//   adjoints        eight atoms, and eight lanes read one element of eight atoms from all banks of shared memory.
//                   The terms of each are dealt to 32 streams (device_plan.hpp).
//   pair_gradients  a block for an atom, whose coefficients are in shared memory; a thread for an m of a pair.
//   collect         a warp for an atom gathers what its pairs and those of others with it contribute: no atomics.
// Every sum has an order of its own: results do not depend on what else is in the batch.
#pragma once

#include <cstdint>

#include "grace/snap_cuda/device_plan.hpp"
#include "grace/snap_cuda/layout.hpp"

namespace grace::snap {

// Levels (twojmax) that the kernels are compiled for, and the atoms of a block of the contractions: all matrices of
// these atoms lie in shared memory.
constexpr int low_levels = 8, low_levels_atoms = 8;
constexpr int max_levels = max_twojmax, max_levels_atoms = 2;
constexpr int contraction_threads = 256;

constexpr int contraction_streams(int twojmax) {
  return contraction_threads / (twojmax <= low_levels ? low_levels_atoms : max_levels_atoms);
}

// densities [n_atoms][n_half]: U
template <class Device>
void densities(Device& device, const DevicePlan& plan, const DeviceBatch& batch, const DevicePairs& pairs,
               Complex* densities);

// features [n_atoms][n_features]
template <class Device>
void bispectrum(Device& device, const DevicePlan& plan, std::int64_t n_atoms, const Complex* densities,
                double* features);

// adjoints [n_atoms][n_half]: Y with the norms of the p, for beta [n_atoms][n_features]
template <class Device>
void adjoints(Device& device, const DevicePlan& plan, std::int64_t n_atoms, const Complex* densities,
              const double* beta, Complex* adjoints);

// gradients [3][pairs.capacity] by the vectors of the pairs
template <class Device>
void pair_gradients(Device& device, const DevicePlan& plan, const DeviceBatch& batch, const DevicePairs& pairs,
                    const Complex* adjoints, double* gradients);

// sums [n_atoms][12]: gradient by the position of the atom, and its part [3][3] of the derivative by strain
constexpr int n_collected = 12;
template <class Device>
void collect(Device& device, const DeviceBatch& batch, const DevicePairs& pairs, const double* gradients, double* sums);

}  // namespace grace::snap
