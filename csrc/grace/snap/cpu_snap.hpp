// Snap on the CPU: tiles of as many atoms as a vector has lanes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grace/operators/scratch.hpp"
#include "grace/snap/kernels.hpp"
#include "grace/snap/snap.hpp"
#include "grace/snap/tables.hpp"

namespace grace::snap {

class CpuSnap final : public Snap {
 public:
  explicit CpuSnap(const SnapOptions& options = {});

  int twojmax() const override { return tables_.twojmax; }
  int n_features() const override { return tables_.n_features; }
  std::string device_name() const override { return "cpu"; }
  std::int64_t n_atoms() const override { return static_cast<std::int64_t>(place_.size()); }
  int n_structures() const override { return static_cast<int>(rows_.size()); }
  std::int64_t n_pairs() const override { return n_pairs_; }

  void descriptors(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double* features,
                   int n_threads = 0) override;
  void gradients(const double* beta, double* positions, double* strain, int n_threads = 0) override;

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
