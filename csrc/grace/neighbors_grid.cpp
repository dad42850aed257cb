#include "grace/neighbors_grid.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "grace/math/geometry.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/parallel.hpp"

namespace grace {
namespace {

constexpr double kAtomsPerBin = 24.0;  // smaller bins test fewer candidates, larger ones share their sorting
constexpr double kSmallestBin = 0.3;   // edge of a bin / cutoff
constexpr double kLargestBin = 1.3;
constexpr double kBinsPerAtom = 8.0;  // at most, in structures with much vacuum
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kDoubleEps = std::numeric_limits<double>::epsilon();

// Cell geometry of one structure; heights[3] of the completed cell.
void set_cell(const StructureBatch& batch, int s, double cutoff, Grid& grid, double* heights) {
  grid.first_atom = batch.first_atom[s];
  grid.n_atoms = batch.first_atom[s + 1] - grid.first_atom;
  grid.cell = batch.cells + 9 * s;
  std::copy_n(batch.periodic + 3 * s, 3, grid.periodic);
  complete_frame(batch, s, cutoff, grid.inverse, heights);
}

// Wrapped position and wrap of every atom; fractional[n_atoms][3] of the wrapped position.
void wrap_atoms(const StructureBatch& batch, int s, Grid& grid, std::int32_t* wrap, double* wrapped, double* fractional,
                int n_threads) {
  parallel_for(grid.n_atoms, n_threads, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t local = begin; local < end; ++local) {
      const std::int64_t i = grid.first_atom + local;
      const double* r = batch.positions + 3 * i;
      const int outside = math::wrap_into_cell(r, grid.cell, grid.inverse, grid.periodic, wrap + 3 * i, wrapped + 3 * i,
                                               fractional + 3 * i);
      if (outside >= 0) report_far_outside(batch, s, local, outside, fractional[3 * i + outside]);
    }
  });
}

// Narrows [low, high] of a non-periodic direction to where most atoms are. Atoms outside go to the outermost bins,
// which only brings them nearer to the others: no pair is lost, and a few evaporated atoms do not make all bins huge.
void drop_outliers(const Grid& grid, const double* fractional, int k, double cutoff, double& low, double& high) {
  std::vector<double> values(grid.n_atoms);
  for (std::int64_t local = 0; local < grid.n_atoms; ++local)
    values[local] = fractional[3 * (grid.first_atom + local) + k];
  const auto quantile = [&values](double q) {
    const auto place = values.begin() + static_cast<std::int64_t>(q * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), place, values.end());
    return *place;
  };
  const double lower = quantile(0.02), upper = quantile(0.98);
  const double margin = 0.1 * (upper - lower) + cutoff;
  low = std::max(low, lower - margin);
  high = std::min(high, upper + margin);
}

// Bins of one structure from its wrapped atoms.
void choose_bins(const double* wrapped, const double* fractional, const double* heights, double cutoff, Grid& grid) {
  double low[3], high[3], largest = 0.0;
  for (int k = 0; k < 3; ++k) low[k] = kInfinity, high[k] = -kInfinity;
  for (std::int64_t i = grid.first_atom; i < grid.first_atom + grid.n_atoms; ++i) {
    for (int k = 0; k < 3; ++k) {
      low[k] = std::min(low[k], fractional[3 * i + k]);
      high[k] = std::max(high[k], fractional[3 * i + k]);
      largest = std::max(largest, std::fabs(wrapped[3 * i + k]));
    }
  }
  const double most_bins = std::min(kBinsPerAtom * static_cast<double>(grid.n_atoms) + 64.0, 1e9);  // int32 bins
  double full_bins = 1.0;
  for (int k = 0; k < 3; ++k)
    full_bins *= std::max(1.0, (grid.periodic[k] ? heights[k] : high[k] - low[k]) / (kLargestBin * cutoff));
  for (int k = 0; k < 3; ++k)
    if (!grid.periodic[k] && full_bins > most_bins) drop_outliers(grid, fractional, k, cutoff, low[k], high[k]);
  double full[9], extent[3], volume = 1.0, height_product = 1.0;
  math::complete_cell(grid.cell, grid.periodic, full);
  for (int k = 0; k < 3; ++k) {
    grid.low[k] = grid.periodic[k] ? 0.0 : low[k];
    extent[k] = grid.periodic[k] ? heights[k] : high[k] - low[k];
    volume *= std::max(extent[k], cutoff);
    height_product *= heights[k];
    if (grid.periodic[k]) largest += math::image_bound(heights[k], cutoff) * math::length3(grid.cell + 3 * k);
  }
  volume *= std::fabs(math::cell_volume(full)) / height_product;
  grid.rounding = 8.0 * kDoubleEps * largest;
  // The last term covers fractional coordinates of nearly flat cells.
  const double padded = cutoff * (1.0 + 1e-6) + 16.0 * kDoubleEps * largest / math::cell_orthogonality(full);
  double edge = std::cbrt(kAtomsPerBin * volume / static_cast<double>(grid.n_atoms));
  edge = std::min(std::max(edge, kSmallestBin * padded), kLargestBin * padded);
  // Vacuum: bins grow until there are few more of them than atoms.
  double n_bins[3];
  for (;; edge *= 1.1) {
    for (int k = 0; k < 3; ++k) n_bins[k] = std::max(1.0, std::floor(extent[k] / edge));
    if (!(n_bins[0] * n_bins[1] * n_bins[2] > most_bins)) break;
  }
  for (int k = 0; k < 3; ++k) {
    grid.n_bins[k] = static_cast<int>(n_bins[k]);
    grid.bins_per_unit[k] = grid.periodic[k] ? n_bins[k] : (n_bins[k] > 1.0 ? n_bins[k] / extent[k] : 0.0);
    if (grid.periodic[k]) {
      grid.reach[k] = static_cast<int>(math::image_bound(extent[k] / n_bins[k], padded));
    } else {
      grid.reach[k] = static_cast<int>(std::min(n_bins[k] - 1.0, std::floor(padded * grid.bins_per_unit[k]) + 1.0));
    }
  }
}

// Counting sort of the atoms of one structure into its bins, by species within a bin (the search then changes its
// cutoffs rarely).
void sort_into_bins(const StructureBatch& batch, const Grid& grid, int n_species, const double* wrapped,
                    const double* fractional, SortedAtoms& sorted) {
  std::vector<std::int32_t> bin(grid.n_atoms);
  std::vector<std::int64_t> species_start(n_species + 1);
  std::int64_t* start = sorted.bin_start.data() + grid.first_bin;  // start[b + 1] is still 0 for all bins
  for (std::int64_t local = 0; local < grid.n_atoms; ++local) {
    std::int32_t index = 0;
    for (int k = 0; k < 3; ++k) {
      const double position = (fractional[3 * (grid.first_atom + local) + k] - grid.low[k]) * grid.bins_per_unit[k];
      index = index * grid.n_bins[k] + static_cast<int>(std::min(std::max(position, 0.0), grid.n_bins[k] - 1.0));
    }
    bin[local] = index;
    ++start[index + 1];
    ++species_start[batch.species[grid.first_atom + local] + 1];
  }
  for (int s = 0; s < n_species; ++s) species_start[s + 1] += species_start[s];
  std::vector<std::int32_t> by_species(grid.n_atoms);
  for (std::int64_t local = 0; local < grid.n_atoms; ++local)
    by_species[species_start[batch.species[grid.first_atom + local]]++] = static_cast<std::int32_t>(local);
  const std::int64_t n_bins = std::int64_t{1} * grid.n_bins[0] * grid.n_bins[1] * grid.n_bins[2];
  std::vector<std::int64_t> next(n_bins);
  std::int64_t total = grid.first_atom;
  for (std::int64_t b = 0; b < n_bins; ++b) {
    next[b] = total;
    total += start[b + 1];
    start[b + 1] = total;
  }
  for (const std::int32_t local : by_species) {
    const std::int64_t i = grid.first_atom + local;
    const std::int64_t p = next[bin[local]]++;
    sorted.x[p] = wrapped[3 * i];
    sorted.y[p] = wrapped[3 * i + 1];
    sorted.z[p] = wrapped[3 * i + 2];
    sorted.species[p] = batch.species[i];
    sorted.index[p] = static_cast<std::int32_t>(i);
  }
}

}  // namespace

void check_batch(const StructureBatch& batch, int n_species) {
  check_structures(batch);
  for (int s = 0; s < batch.n_structures; ++s)
    for (std::int64_t i = batch.first_atom[s]; i < batch.first_atom[s + 1]; ++i)
      check_atom(batch, s, i - batch.first_atom[s], batch.positions + 3 * i, batch.species[i], n_species);
}

std::vector<Grid> make_grids(const StructureBatch& batch, int n_species, double cutoff, int n_threads,
                             NeighborList& list, std::vector<double>& wrapped, SortedAtoms& sorted) {
  const std::int64_t n_atoms = list.n_atoms;
  std::vector<double> fractional(3 * n_atoms);
  std::vector<Grid> grids(batch.n_structures);
  const bool many = batch.n_structures > 1;  // threads share the structures of a batch, or the atoms of one structure
  const int outer = many ? n_threads : 1, inner = many ? 1 : n_threads;
  parallel_for(batch.n_structures, outer, 8, [&](std::int64_t begin, std::int64_t end) {
    for (int s = static_cast<int>(begin); s < end; ++s) {
      Grid& grid = grids[s];
      double heights[3];
      set_cell(batch, s, cutoff, grid, heights);
      if (grid.n_atoms == 0) continue;
      wrap_atoms(batch, s, grid, list.wrap.data(), wrapped.data(), fractional.data(), inner);
      choose_bins(wrapped.data(), fractional.data(), heights, cutoff, grid);
      std::fill_n(list.structure.begin() + grid.first_atom, grid.n_atoms, s);
    }
  });
  std::int64_t n_bins = 0;
  for (Grid& grid : grids) {
    grid.first_bin = n_bins;
    if (grid.n_atoms > 0) n_bins += std::int64_t{1} * grid.n_bins[0] * grid.n_bins[1] * grid.n_bins[2];
  }
  for (auto* v : {&sorted.x, &sorted.y, &sorted.z}) v->resize(n_atoms);
  sorted.species.resize(n_atoms);
  sorted.index.resize(n_atoms);
  sorted.bin_start.assign(n_bins + 1, 0);
  parallel_for(batch.n_structures, outer, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s)
      if (grids[s].n_atoms > 0) sort_into_bins(batch, grids[s], n_species, wrapped.data(), fractional.data(), sorted);
  });
  return grids;
}

}  // namespace grace
