// The work unit of the CPU evaluator: a few atoms, their bonds, and the memory they need. Plain data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace grace::cpu {

// Geometry of a compute call as the kernels read it (evaluator.hpp documents the members).
struct Inputs {
  const double* positions = nullptr;
  const std::int32_t* species = nullptr;
  const std::int64_t* first = nullptr;
  const std::int32_t* neighbor = nullptr;
  const std::int32_t* shift = nullptr;
  const double* cells = nullptr;
  const std::int32_t* structure = nullptr;
  int n_elements = 0;
  const double* pair_cutoffs = nullptr;  // [n_elements][n_elements]
};

// Bonds of a tile inside their pair cutoff, structure of arrays; bonds of one atom are consecutive.
template <class Real>
struct Bonds {
  int count = 0;
  int capacity = 0;                    // also the stride between components; a multiple of 16
  int* first = nullptr;                // [n_atoms + 1]
  int* neighbor = nullptr;             // [capacity] atom index
  int* species = nullptr;              // [capacity] of the neighbour
  int* radial_row = nullptr;           // [capacity] row of the bond in radial and radial_slope
  double* vector = nullptr;            // [3][capacity] r_j - r_i
  double* distance = nullptr;          // [capacity] d
  double* inverse_cutoff = nullptr;    // [capacity]
  Real* direction = nullptr;           // [3][capacity] u
  Real* harmonics = nullptr;           // [n_harmonics][capacity]
  Real* harmonics_gradient = nullptr;  // [n_harmonics * 3][capacity]
  Real* radial = nullptr;              // [count][width]
  Real* radial_slope = nullptr;        // [count][width], dR/dx
  Real* powers = nullptr;              // [capacity][n_coefficients]; scratch of the table
  int* order = nullptr;                // [capacity] scratch
  int* interval = nullptr;             // [capacity] scratch
  int* interval_count = nullptr;       // [n_intervals + 1] scratch
  Real* hidden = nullptr;              // [4][capacity][widest]; scratch of the exact network
  double* gradient = nullptr;          // [3][capacity] dE/dr_ij
};

template <class Real>
struct Tile {
  int n_atoms = 0;
  const std::int32_t* atoms = nullptr;    // [n_atoms] centre indices
  const std::int32_t* species = nullptr;  // [n_atoms], sorted
  int n_runs = 0;                         // runs of equal species
  const int* run_first = nullptr;         // [n_runs + 1]
  Bonds<Real> bonds;
  Real* values = nullptr;     // arena of the layer: slot rows start at offset * n_atoms
  Real* gradients = nullptr;  // same layout
  Real* block = nullptr;
  Real* block_gradient = nullptr;
  Real* pair_buffer = nullptr;    // message basis: pairs and their scratch
  const Real* message = nullptr;  // [owner][n_message_rows][stride] of all atoms
  Real* message_gradient = nullptr;
  const std::int32_t* owner = nullptr;  // row of a neighbour in message; nullptr: itself
  double closest2 = 0.0;                // smallest squared distance met
  std::int64_t closest[2] = {-1, -1};
};

// Entry points of one instruction-set unit.
template <class Real>
struct LayerPlan;

template <class Real>
struct TileKernels {
  // bonds of the tile's atoms with the geometry they need
  void (*collect_bonds)(const Inputs&, Tile<Real>&) = nullptr;
  // harmonics and radial functions of the layer for collected bonds
  void (*prepare_bonds)(const LayerPlan<Real>&, Tile<Real>&) = nullptr;
  // fills the value arena from prepared bonds
  void (*layer_forward)(const LayerPlan<Real>&, Tile<Real>&) = nullptr;
  // expects values, prepared bonds and the gradients of density (and message) in the arena; fills bonds.gradient
  // and adds to message_gradient
  void (*layer_backward)(const LayerPlan<Real>&, Tile<Real>&) = nullptr;
};

struct ReadoutPlan;

struct Kernels {
  const char* name = nullptr;
  void (*readout)(const ReadoutPlan&, int n_atoms, const double* x, int x_stride, double* energy, double* gradient,
                  double* scratch) = nullptr;
  TileKernels<double> fp64;
  TileKernels<float> fp32;
};

}  // namespace grace::cpu
