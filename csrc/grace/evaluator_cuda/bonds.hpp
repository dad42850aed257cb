// Bonds of a chunk: those of the neighbour rows that are inside their pair cutoff now, with what the bases need of
// them.
#pragma once

#include "grace/evaluator_cuda/plan.hpp"

namespace grace::gpu {

// Structure of arrays over bond slots (chunk.hpp), `capacity` apart between components.
template <class Real>
struct Bonds {
  std::int64_t capacity = 0;
  std::int32_t* count = nullptr;     // [n_atoms]
  std::int32_t* neighbor = nullptr;  // atom index in the Frame
  std::int32_t* species = nullptr;   // of the neighbour
  double* vector = nullptr;          // [3][capacity] r_j - r_i, A
  double* distance = nullptr;        // d = sqrt(|r|^2 + 1e-10), A
  double* inverse_cutoff = nullptr;  // 1 / rc(pair), 1/A
  Real* direction = nullptr;         // [3][capacity] u
  std::int32_t* interval = nullptr;  // of the radial table; -1: slot not in use
  Real* table_t = nullptr;           // argument in the interval
  Real* table_y = nullptr;           // 1 - x
  double* gradient = nullptr;        // [3][capacity] dE/dr_ij of this layer, eV/A
  Real* radial = nullptr;            // [capacity][radial.width] and its d/dx, exact mode only
  Real* radial_slope = nullptr;
};

// Memory of the bonds of chunks with up to n_atoms atoms and n_slots slots. It only grows, and addresses stay as they
// are unless it does: recorded launches hold them.
template <class Device, class Real>
class BondStorage {
 public:
  explicit BondStorage(Device& device);
  bool reserve(int n_atoms, std::int64_t n_slots, const RadialPlan<Real>& radial);  // true when memory moved
  Bonds<Real> bonds() { return bonds_; }
  std::size_t bytes() const;
  std::size_t bytes_for(int n_atoms, std::int64_t n_slots, const RadialPlan<Real>& radial) const;  // after reserve()

 private:
  device::Buffer<Device, std::int32_t> integers_;
  device::Buffer<Device, double> doubles_;
  device::Buffer<Device, Real> reals_;
  struct Size {
    int atoms = 0;
    std::int64_t slots = 0;
    int exact_width = 0;  // numbers per bond of the exact network, 0 with tables
    std::size_t integers() const { return 3 * slots + atoms; }
    std::size_t doubles() const { return 8 * slots; }
    std::size_t reals() const { return (5 + 2 * std::int64_t{exact_width}) * slots; }
  };
  Size size_for(int n_atoms, std::int64_t n_slots, const RadialPlan<Real>& radial) const;

  Bonds<Real> bonds_;
  Size size_;
};

// Compacts the neighbour rows to bonds, in row order, and clears their gradients; locates them in the radial table, or
// evaluates the exact network with its slopes.
template <class Device, class Real>
void collect_bonds(Device& device, const Frame& frame, const Chunk& chunk, const RadialPlan<Real>& radial,
                   const Bonds<Real>& bonds, StepFlags* flags);

// Force of each bond on its two atoms, and virials: f = -gradient acts +f on the neighbour and -f on the centre.
template <class Device, class Real>
void scatter_forces(Device& device, const Frame& frame, const Chunk& chunk, const Bonds<Real>& bonds,
                    const ForceSums& sums);

}  // namespace grace::gpu
