// SNAP bispectrum components of atoms with a cutoff radius each, of many structures at once, and the gradient of any
// linear function of them (docs of the formulas: math/snap.hpp, tables.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "grace/operators/scratch.hpp"
#include "grace/snap/kernels.hpp"
#include "grace/snap/pairs.hpp"
#include "grace/snap/tables.hpp"

namespace grace::snap {

// Not safe for calls from two threads at once. Results do not depend on the number of threads, to the last bit.
class Snap {
 public:
  // rfac0 in (0, 1], rmin0 >= 0 in A.
  explicit Snap(int twojmax = 8, double rfac0 = 0.99363, double rmin0 = 0.0);

  int twojmax() const { return tables_.twojmax; }
  int n_features() const { return tables_.n_features; }
  std::int64_t n_atoms() const { return static_cast<std::int64_t>(place_.size()); }
  int n_structures() const { return static_cast<int>(rows_.size()); }
  std::int64_t n_pairs() const { return n_pairs_; }

  // features [n_atoms, n_features], components (J1, J2, J) with J >= J1 >= J2 in lexicographic order. `species` of the
  // batch is not read; cutoffs [n_atoms], A.
  void descriptors(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double* features,
                   int n_threads = 0);

  // For the sum over atoms of beta_i . B_i, beta [n_atoms, n_features], at the last call of descriptors():
  // positions [n_atoms, 3] its gradient, 1/A; strain [n_structures, 3, 3] its derivative by the strain e of
  // x -> x (1 + e), cell included.
  void gradients(const double* beta, double* positions, double* strain, int n_threads = 0);

 private:
  // Grow-only memory that starts at a multiple of 64 bytes.
  class Rows {
   public:
    double* reserve(std::int64_t size);
    double* data() const { return memory_->data(); }

   private:
    std::unique_ptr<ops::AlignedScratch<double>> memory_;
    std::int64_t size_ = -1;
  };

  // A tile of atoms with similar numbers of neighbours, one per lane.
  struct Tile {
    std::int64_t first_atom = 0;  // in order_
    int n_atoms = 0;
    std::int64_t n_neighbors = 0;  // of the atom with the most
    std::int64_t first_row = 0;    // of pairs, in units of neighbours
  };

  void make_tiles();
  void fill_pairs(const Tile& tile, double* pairs) const;
  void add_gradients(std::int64_t s, double* positions, double* strain) const;

  Tables tables_;
  Plan plan_;
  const Kernels* kernels_;
  bool ready_ = false;  // descriptors() has succeeded

  std::vector<std::int64_t> first_atom_;  // [n_structures + 1]
  std::vector<PairRows> rows_;            // of each structure
  std::vector<std::int64_t> order_;       // atoms by number of neighbours
  std::vector<std::int64_t> place_;       // atom -> its index in order_
  std::vector<const Pair*> pairs_of_;     // atom -> its pairs
  std::vector<std::int64_t> count_;       // atom -> how many
  std::vector<Tile> tiles_;
  std::int64_t n_pairs_ = 0;
  Rows pairs_, densities_, pair_gradients_;
};

}  // namespace grace::snap
