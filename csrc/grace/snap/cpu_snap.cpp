#include "grace/snap/cpu_snap.hpp"

#include <algorithm>
#include <numeric>

#include "grace/error.hpp"
#include "grace/parallel.hpp"

namespace grace::snap {
namespace {

Plan make_plan(const Tables& tables, const math::SnapShape& shape) {
  Plan plan;
  plan.shape = shape;
  plan.twojmax = tables.twojmax;
  plan.n_features = tables.n_features;
  plan.n_half = tables.n_half;
  plan.n_full = tables.n_full;
  plan.n_value = tables.n_value;
  plan.n_elements = static_cast<int>(tables.elements.size());
  plan.elements = tables.elements.data();
  plan.terms = tables.terms.data();
  plan.norms = tables.norms.data();
  plan.self = tables.self.data();
  plan.mirrors = tables.mirrors.data();
  return plan;
}

}  // namespace

double* CpuSnap::Rows::reserve(std::int64_t size) {
  if (size > size_) {
    memory_.reset();  // before the new one is made: both at once might not fit
    memory_ = std::make_unique<ops::AlignedScratch<double>>(size);
    size_ = size;
  }
  return memory_->data();
}

CpuSnap::CpuSnap(const SnapOptions& options) : tables_(make_tables(options.twojmax)), kernels_(nullptr) {
  plan_ = make_plan(tables_, checked_shape(options.rfac0, options.rmin0));
  kernels_ = &kernels_of(select_isa());
}

void CpuSnap::make_tiles() {
  // By number of neighbours, most first, so that the lanes of a tile are equally busy; equal numbers stay in order.
  const std::int64_t n_atoms = static_cast<std::int64_t>(count_.size());
  order_.resize(count_.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  std::stable_sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) { return count_[a] > count_[b]; });
  place_.resize(count_.size());
  for (std::int64_t k = 0; k < n_atoms; ++k) place_[order_[k]] = k;
  tiles_.clear();
  std::int64_t row = 0;
  for (std::int64_t first = 0; first < n_atoms; first += kernels_->width) {
    const int size = static_cast<int>(std::min<std::int64_t>(kernels_->width, n_atoms - first));
    const std::int64_t n_neighbors = count_[order_[first]];
    tiles_.push_back({first, size, n_neighbors, row});
    row += n_neighbors;
  }
}

void CpuSnap::fill_pairs(const Tile& tile, double* pairs) const {
  const int width = kernels_->width;
  for (int lane = 0; lane < width; ++lane) {
    const std::int64_t atom = lane < tile.n_atoms ? order_[tile.first_atom + lane] : -1;
    const std::int64_t count = atom >= 0 ? count_[atom] : 0;
    for (std::int64_t k = 0; k < tile.n_neighbors; ++k) {
      double* out = pairs + k * pair_rows * width + lane;
      if (k < count) {
        const Pair& pair = pairs_of_[atom][k];
        for (int x = 0; x < 3; ++x) out[x * width] = pair.direction[x];
        out[3 * width] = pair.length;
        out[4 * width] = 1.0 / (pair.cutoff - plan_.shape.rmin0);
      } else {  // beyond its cutoff
        for (int x = 0; x < 3; ++x) out[x * width] = x == 2 ? 1.0 : 0.0;
        out[3 * width] = plan_.shape.rmin0 + 2.0;
        out[4 * width] = 1.0;
      }
    }
  }
}

void CpuSnap::descriptors(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double* features,
                          int n_threads) {
  ready_ = false;
  find_all_pairs(batch, cutoffs, rule, plan_.shape.rmin0, rows_, n_threads);
  const int threads = thread_count(n_threads), width = kernels_->width;
  const std::int64_t n_structures = batch.n_structures;
  first_atom_.assign(1, 0);
  if (n_structures > 0) first_atom_.assign(batch.first_atom, batch.first_atom + n_structures + 1);
  count_.clear();
  pairs_of_.clear();
  n_pairs_ = 0;
  for (const PairRows& rows : rows_) {
    for (std::size_t i = 0; i + 1 < rows.first.size(); ++i) {
      count_.push_back(rows.first[i + 1] - rows.first[i]);
      pairs_of_.push_back(rows.pairs.data() + rows.first[i]);
    }
    n_pairs_ += static_cast<std::int64_t>(rows.pairs.size());
  }
  make_tiles();
  const std::int64_t n_rows = tiles_.empty() ? 0 : tiles_.back().first_row + tiles_.back().n_neighbors;
  double* const pairs = pairs_.reserve(n_rows * pair_rows * width);
  double* const densities = densities_.reserve(static_cast<std::int64_t>(tiles_.size()) * 2 * plan_.n_half * width);
  parallel_for(static_cast<std::int64_t>(tiles_.size()), threads, 1, [&](std::int64_t begin, std::int64_t end) {
    ops::AlignedScratch<double> scratch(scratch_rows(plan_) * width);
    ops::AlignedScratch<double> values(std::int64_t{plan_.n_features} * width);
    for (std::int64_t t = begin; t < end; ++t) {
      const Tile& tile = tiles_[t];
      double* const own = pairs + tile.first_row * pair_rows * width;
      double* const density = densities + t * 2 * plan_.n_half * width;
      fill_pairs(tile, own);
      kernels_->density(plan_, tile.n_neighbors, own, density, scratch.data());
      kernels_->bispectrum(plan_, density, values.data(), scratch.data());
      for (int lane = 0; lane < tile.n_atoms; ++lane)
        for (int f = 0; f < plan_.n_features; ++f)
          features[order_[tile.first_atom + lane] * plan_.n_features + f] = values.data()[f * width + lane];
    }
  });
  ready_ = true;
}

void CpuSnap::gradients(const double* beta, double* positions, double* strain, int n_threads) {
  require(ready_, "gradients() needs a call of descriptors() before it, which keeps what both share");
  const int threads = thread_count(n_threads), width = kernels_->width;
  const std::int64_t n_rows = tiles_.empty() ? 0 : tiles_.back().first_row + tiles_.back().n_neighbors;
  double* const gradients = pair_gradients_.reserve(n_rows * 3 * width);
  parallel_for(static_cast<std::int64_t>(tiles_.size()), threads, 1, [&](std::int64_t begin, std::int64_t end) {
    ops::AlignedScratch<double> scratch(scratch_rows(plan_) * width);
    ops::AlignedScratch<double> weights(std::int64_t{plan_.n_features} * width);
    ops::AlignedScratch<double> coefficients(coefficient_rows(plan_) * width);
    for (std::int64_t t = begin; t < end; ++t) {
      const Tile& tile = tiles_[t];
      for (int lane = 0; lane < width; ++lane)
        for (int f = 0; f < plan_.n_features; ++f)
          weights.data()[f * width + lane] =
              lane < tile.n_atoms ? beta[order_[tile.first_atom + lane] * plan_.n_features + f] : 0.0;
      kernels_->adjoint(plan_, densities_.data() + t * 2 * plan_.n_half * width, weights.data(), coefficients.data(),
                        scratch.data());
      kernels_->pair_gradients(plan_, tile.n_neighbors, pairs_.data() + tile.first_row * pair_rows * width,
                               coefficients.data(), gradients + tile.first_row * 3 * width, scratch.data());
    }
  });
  std::fill_n(positions, 3 * n_atoms(), 0.0);
  std::fill_n(strain, 9 * std::int64_t{n_structures()}, 0.0);
  parallel_for(n_structures(), threads, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) add_gradients(s, positions, strain + 9 * s);
  });
}

// Pair by pair in the order of the atoms, so that sums do not depend on tiles or threads.
void CpuSnap::add_gradients(std::int64_t s, double* positions, double* strain) const {
  const int width = kernels_->width;
  for (std::int64_t i = first_atom_[s]; i < first_atom_[s + 1]; ++i) {
    const Tile& tile = tiles_[place_[i] / width];
    const double* row = pair_gradients_.data() + tile.first_row * 3 * width + place_[i] % width;
    for (std::int64_t k = 0; k < count_[i]; ++k, row += 3 * width) {
      const Pair& pair = pairs_of_[i][k];
      for (int x = 0; x < 3; ++x) {
        const double g = row[x * width];
        positions[3 * i + x] -= g;
        positions[3 * std::int64_t{pair.neighbor} + x] += g;
        for (int y = 0; y < 3; ++y) strain[3 * y + x] += pair.length * pair.direction[y] * g;
      }
    }
  }
}

}  // namespace grace::snap
