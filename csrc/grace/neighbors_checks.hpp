// What the neighbour lists of the CPU and of devices share: cutoffs, cells, the limits of valid input and of motion.
// Internal to neighbors_*.cpp and neighbors_cuda/.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/neighbors.hpp"

namespace grace {

constexpr int kMaxShift = 511;                  // of a packed image
constexpr double kNever = 1e30;                 // -kNever: squared cutoff of pairs that are never listed
constexpr double kMaxCoordinate = 1e12;         // A
constexpr std::int64_t kMaxAtoms = 2147483646;  // indices are int32

struct Cutoffs {
  int n_species = 0;
  double largest = 0.0;         // A, with skin; 0: no pair is ever listed
  std::vector<double> squared;  // [n_species][n_species]; pairs that are never listed: -kNever
};

Cutoffs make_cutoffs(int n_species, const double* pair_cutoffs, double skin);

// Each throws Error naming the structure and the atom (`atom`: in its structure).
void check_structures(const StructureBatch& batch);  // sizes and cells
void check_atom(const StructureBatch& batch, int s, std::int64_t atom, const double* position, std::int32_t species,
                int n_species);
[[noreturn]] void report_far_outside(const StructureBatch& batch, int s, std::int64_t atom, int direction,
                                     double fractional);

// Inverse [9] and heights [3] of the completed cell of a structure; throws Error for cells that are flat or too small
// for the search radius `cutoff`.
void complete_frame(const StructureBatch& batch, int s, double cutoff, double* inverse, double* heights);

// The affine map f[9] from the cell of a list to another one, and the margin that twice the largest displacement left
// after the map must stay below for the list to be complete (A; not positive: it may not be).
double allowed_motion(const double* built_cell, const double* cell, const bool* periodic, double smallest_cutoff,
                      double largest_cutoff, double skin, double* f);

}  // namespace grace
