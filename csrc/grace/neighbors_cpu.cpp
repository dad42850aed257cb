// Neighbour lists on the CPU.
//
// One algorithm serves every cell. The wrapped atoms of a structure are sorted into bins (counting sort); the atoms of one
// bin are the *centres* of a tile. The *candidates* of a tile are the atoms and images of the surrounding bins that lie
// within the cutoff of the box around the centres; bins repeat through the periodic images, so that a cell much smaller
// than the cutoff is a single bin searched over all its images. Candidates are sorted once per tile by (index, image), and
// each centre then only filters them in order: rows come out sorted without sorting rows.
//
// The filter works on float coordinates relative to the tile, with a rigorous bound of their rounding error; the few
// candidates that are too close to the cutoff to tell are decided in double by the definition in the header. The result is
// therefore the one of a brute-force search in double, whatever the bins and threads.
#include "grace/neighbors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_grid.hpp"
#include "grace/parallel.hpp"

namespace grace {
namespace {

constexpr std::int64_t kAtomsPerTask = 512;  // atoms listed by one thread at a time
constexpr double kNever = 1e30;              // -kNever: squared cutoff of pairs that are never listed
constexpr double kFloatEps = 1.0 / (1 << 24);

struct Cutoffs {
  int n_species = 0;
  bool uniform = true;              // all pairs have the same cutoff
  double largest = 0.0;             // A, with skin
  std::vector<double> squared;      // [n_species][n_species]; pairs that are never listed: -kNever
  std::vector<float> squared_float;
};

struct Candidates {
  std::vector<float> x, y, z;  // relative to the tile
  std::vector<std::int32_t> atom;   // in the concatenated atoms
  std::vector<std::int32_t> shift;  // packed
  std::vector<std::int32_t> species;
  void reserve(std::size_t n) {
    if (atom.size() >= n) return;
    n += n / 2 + 64;
    for (auto* v : {&x, &y, &z}) v->resize(n);
    for (auto* v : {&atom, &shift, &species}) v->resize(n);
  }
};

// Memory of one thread.
struct Scratch {
  Candidates found, sorted;
  std::vector<std::uint32_t> key, key_other, order, order_other;
  std::vector<float> distance2;  // to the centre, minus its largest rounding error
  std::vector<std::int32_t> hits;
  std::vector<std::int32_t> neighbor, shift;
};

// Pairs found by one task, rows in the order of SortedAtoms.
struct TaskPairs {
  std::int64_t begin = 0, end = 0;  // bins
  std::vector<std::int32_t> neighbor, shift;
};

Cutoffs make_cutoffs(int n_species, const double* pair_cutoffs, double skin) {
  require(n_species >= 0, "`n_species` must be >= 0, got ", n_species);
  require(std::isfinite(skin) && skin >= 0.0, "`skin` must be finite and >= 0, got ", skin);
  Cutoffs cutoffs;
  cutoffs.n_species = n_species;
  for (int k = 0; k < n_species * n_species; ++k) {
    const double cutoff = pair_cutoffs[k];
    require(std::isfinite(cutoff), "`pair_cutoffs` must be finite, got ", cutoff, " for species ", k / n_species, " and ",
            k % n_species);
    const double radius = cutoff > 0.0 ? cutoff + skin : 0.0;
    cutoffs.largest = std::max(cutoffs.largest, radius);
    cutoffs.squared.push_back(cutoff > 0.0 ? radius * radius : -kNever);
    cutoffs.squared_float.push_back(static_cast<float>(cutoffs.squared[k]));
    cutoffs.uniform = cutoffs.uniform && cutoffs.squared[k] == cutoffs.squared[0];
  }
  return cutoffs;
}

// A tile: the atoms of one bin, in a box around them.
struct Tile {
  std::int64_t begin = 0, end = 0;  // in SortedAtoms
  double origin[3] = {0, 0, 0};     // middle of the box
  double half[3] = {0, 0, 0};       // half edges
  double error = 0.0;               // bound of the error of a float coordinate difference, A
};

Tile make_tile(const SortedAtoms& sorted, const Grid& grid, std::int64_t begin, std::int64_t end, double cutoff) {
  Tile tile;
  tile.begin = begin;
  tile.end = end;
  double widest = 0.0;
  const std::vector<double>* const coordinates[3] = {&sorted.x, &sorted.y, &sorted.z};
  for (int k = 0; k < 3; ++k) {
    const auto [low, high] = std::minmax_element(coordinates[k]->begin() + begin, coordinates[k]->begin() + end);
    tile.origin[k] = 0.5 * (*low + *high);
    tile.half[k] = 0.5 * (*high - *low) + grid.rounding;
    widest = std::max(widest, tile.half[k]);
  }
  tile.error = 8.0 * kFloatEps * (widest + cutoff) + grid.rounding;
  return tile;
}

int floor_divide(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Appends the atoms [begin, end) of SortedAtoms shifted by `image` that are near the box of the tile.
std::size_t append_near(const SortedAtoms& sorted, const Tile& tile, std::int64_t begin, std::int64_t end,
                        const double* offset, std::int32_t shift, float limit, Candidates& out, std::size_t n) {
  out.reserve(n + static_cast<std::size_t>(end - begin));
  const double ox = offset[0] - tile.origin[0], oy = offset[1] - tile.origin[1], oz = offset[2] - tile.origin[2];
  const float hx = static_cast<float>(tile.half[0]), hy = static_cast<float>(tile.half[1]),
              hz = static_cast<float>(tile.half[2]);
  float *const x = out.x.data(), *const y = out.y.data(), *const z = out.z.data();
  std::int32_t *const atom = out.atom.data(), *const image = out.shift.data(), *const species = out.species.data();
  for (std::int64_t p = begin; p < end; ++p) {
    const float rx = static_cast<float>(sorted.x[p] + ox), ry = static_cast<float>(sorted.y[p] + oy),
                rz = static_cast<float>(sorted.z[p] + oz);
    const float dx = std::max(std::fabs(rx) - hx, 0.0f), dy = std::max(std::fabs(ry) - hy, 0.0f),
                dz = std::max(std::fabs(rz) - hz, 0.0f);
    x[n] = rx;
    y[n] = ry;
    z[n] = rz;
    atom[n] = sorted.index[p];
    image[n] = shift;
    species[n] = sorted.species[p];
    n += (dx * dx + dy * dy + dz * dz < limit) ? 1 : 0;
  }
  return n;
}

// Candidates of a tile at bin (b0, b1, b2), for each atom in ascending order of its images.
std::size_t find_candidates(const SortedAtoms& sorted, const Grid& grid, const Tile& tile, const int* bin, double cutoff,
                            Candidates& out) {
  const double reach = cutoff + 4.0 * tile.error;
  const float limit = static_cast<float>(reach * reach * (1.0 + 1e-6));
  const std::int64_t* const start = sorted.bin_start.data() + grid.first_bin;
  const int* const n_bins = grid.n_bins;
  int lowest[3], highest[3];
  for (int k = 0; k < 3; ++k) {
    lowest[k] = bin[k] - grid.reach[k];
    highest[k] = bin[k] + grid.reach[k];
    if (!grid.periodic[k]) lowest[k] = std::max(lowest[k], 0), highest[k] = std::min(highest[k], n_bins[k] - 1);
  }
  std::size_t n = 0;
  for (int t0 = lowest[0]; t0 <= highest[0]; ++t0) {
    const int a = floor_divide(t0, n_bins[0]);
    for (int t1 = lowest[1]; t1 <= highest[1]; ++t1) {
      const int b = floor_divide(t1, n_bins[1]);
      const std::int64_t column = (std::int64_t{1} * (t0 - a * n_bins[0]) * n_bins[1] + (t1 - b * n_bins[1])) * n_bins[2];
      for (int t2 = lowest[2]; t2 <= highest[2];) {  // bins of one column and one image are contiguous
        const int c = floor_divide(t2, n_bins[2]);
        const int last = std::min(highest[2], (c + 1) * n_bins[2] - 1);
        double offset[3];
        math::image_offset(a, b, c, grid.cell, offset);
        n = append_near(sorted, tile, start[column + t2 - c * n_bins[2]], start[column + last - c * n_bins[2] + 1], offset,
                        pack_shift(a, b, c), limit, out, n);
        t2 = last + 1;
      }
    }
  }
  return n;
}

// Stable radix sort of the candidates by atom.
void sort_candidates(std::size_t n, Scratch& scratch) {
  const Candidates& found = scratch.found;
  Candidates& sorted = scratch.sorted;
  sorted.reserve(n);
  for (auto* v : {&scratch.key, &scratch.key_other, &scratch.order, &scratch.order_other})
    if (v->size() < n) v->resize(found.atom.size());
  const auto [low, high] = std::minmax_element(found.atom.begin(), found.atom.begin() + n);
  const std::uint32_t lowest = n > 0 ? *low : 0, range = n > 0 ? *high - *low : 0;
  for (std::size_t k = 0; k < n; ++k) {
    scratch.key[k] = found.atom[k] - lowest;
    scratch.order[k] = static_cast<std::uint32_t>(k);
  }
  constexpr int digit_bits = 8, n_digits = 1 << digit_bits;
  for (int bit = 0; bit < 32 && (range >> bit) > 0; bit += digit_bits) {
    std::uint32_t place[n_digits] = {};
    for (std::size_t k = 0; k < n; ++k) ++place[(scratch.key[k] >> bit) & (n_digits - 1)];
    std::uint32_t total = 0;
    for (std::uint32_t& p : place) {
      const std::uint32_t count = p;
      p = total;
      total += count;
    }
    for (std::size_t k = 0; k < n; ++k) {
      const std::uint32_t p = place[(scratch.key[k] >> bit) & (n_digits - 1)]++;
      scratch.key_other[p] = scratch.key[k];
      scratch.order_other[p] = scratch.order[k];
    }
    scratch.key.swap(scratch.key_other);
    scratch.order.swap(scratch.order_other);
  }
  for (std::size_t k = 0; k < n; ++k) {
    const std::uint32_t o = scratch.order[k];
    sorted.x[k] = found.x[o];
    sorted.y[k] = found.y[o];
    sorted.z[k] = found.z[o];
    sorted.atom[k] = found.atom[o];
    sorted.shift[k] = found.shift[o];
    sorted.species[k] = found.species[o];
  }
}

// Lists the atoms of one tile behind the first n_pairs of the scratch; returns the new number of pairs.
std::size_t list_tile(const SortedAtoms& sorted, const Grid& grid, const Tile& tile, const int* bin, const Cutoffs& cutoffs,
                      const double* wrapped, Scratch& scratch, std::size_t n_pairs, std::int64_t* counts) {
  const std::size_t n = find_candidates(sorted, grid, tile, bin, cutoffs.largest, scratch.found);
  sort_candidates(n, scratch);
  const Candidates& candidates = scratch.sorted;
  if (scratch.hits.size() < n) scratch.hits.resize(candidates.atom.size());
  if (scratch.distance2.size() < n) scratch.distance2.resize(candidates.atom.size());
  const double margin = 2.0 * cutoffs.largest * tile.error + tile.error * tile.error +
                        16.0 * kFloatEps * cutoffs.largest * cutoffs.largest;
  const float margin_float = static_cast<float>(margin);
  const std::int32_t home = pack_shift(0, 0, 0);
  const float *const x = candidates.x.data(), *const y = candidates.y.data(), *const z = candidates.z.data();
  float* const distance2 = scratch.distance2.data();
  std::int32_t* const hits = scratch.hits.data();
  for (std::int64_t p = tile.begin; p < tile.end; ++p) {
    const float px = static_cast<float>(sorted.x[p] - tile.origin[0]), py = static_cast<float>(sorted.y[p] - tile.origin[1]),
                pz = static_cast<float>(sorted.z[p] - tile.origin[2]);
    for (std::size_t k = 0; k < n; ++k) {
      const float dx = x[k] - px, dy = y[k] - py, dz = z[k] - pz;
      distance2[k] = dx * dx + dy * dy + dz * dz - margin_float;
    }
    const std::size_t row = static_cast<std::size_t>(sorted.species[p]) * cutoffs.n_species;
    const float* const limit = cutoffs.squared_float.data() + row;
    const std::int32_t* const species = candidates.species.data();
    std::size_t n_hits = 0;
    if (cutoffs.uniform) {
      const float same = limit[0];
      for (std::size_t k = 0; k < n; ++k) {
        hits[n_hits] = static_cast<std::int32_t>(k);
        n_hits += distance2[k] < same ? 1 : 0;
      }
    } else {
      for (std::size_t k = 0; k < n; ++k) {
        hits[n_hits] = static_cast<std::int32_t>(k);
        n_hits += distance2[k] < limit[species[k]] ? 1 : 0;
      }
    }
    if (scratch.neighbor.size() < n_pairs + n_hits) {
      scratch.neighbor.resize((n_pairs + n_hits) * 3 / 2);
      scratch.shift.resize((n_pairs + n_hits) * 3 / 2);
    }
    const std::int32_t i = sorted.index[p];
    const std::size_t row_begin = n_pairs;
    for (std::size_t h = 0; h < n_hits; ++h) {
      const std::int32_t k = hits[h];
      const std::int32_t j = candidates.atom[k], shift = candidates.shift[k];
      if (!(distance2[k] + 2.0f * margin_float < limit[species[k]])) {
        int a, b, c;
        double offset[3], vector[3];
        unpack_shift(shift, a, b, c);
        math::image_offset(a, b, c, grid.cell, offset);
        math::pair_vector(wrapped + 3 * std::int64_t{i}, wrapped + 3 * std::int64_t{j}, offset, vector);
        if (!(math::dot3(vector, vector) < cutoffs.squared[row + species[k]])) continue;
      }
      if (j == i && shift == home) continue;
      scratch.neighbor[n_pairs] = j;
      scratch.shift[n_pairs] = shift;
      ++n_pairs;
    }
    counts[i] = static_cast<std::int64_t>(n_pairs - row_begin);
  }
  return n_pairs;
}

// Consecutive bins with about kAtomsPerTask atoms.
std::vector<TaskPairs> make_tasks(const SortedAtoms& sorted) {
  std::vector<TaskPairs> tasks;
  const std::int64_t n_bins = static_cast<std::int64_t>(sorted.bin_start.size()) - 1;
  for (std::int64_t begin = 0, end = 1; end <= n_bins; ++end) {
    if (end < n_bins && sorted.bin_start[end] - sorted.bin_start[begin] < kAtomsPerTask) continue;
    tasks.emplace_back();
    tasks.back().begin = begin;
    tasks.back().end = end;
    begin = end;
  }
  return tasks;
}

void run_task(const SortedAtoms& sorted, const std::vector<Grid>& grids, const Cutoffs& cutoffs, const double* wrapped,
              Scratch& scratch, TaskPairs& task, std::int64_t* counts) {
  // The last structure whose first bin is not behind the task; structures without atoms have no bins.
  auto grid = std::upper_bound(grids.begin(), grids.end(), task.begin,
                               [](std::int64_t bin, const Grid& g) { return bin < g.first_bin; }) - 1;
  std::size_t n_pairs = 0;
  for (std::int64_t b = task.begin; b < task.end; ++b) {
    while (grid + 1 != grids.end() && (grid + 1)->first_bin <= b) ++grid;
    if (sorted.bin_start[b] == sorted.bin_start[b + 1]) continue;
    const std::int64_t local = b - grid->first_bin;
    const int bin[3] = {static_cast<int>(local / grid->n_bins[2] / grid->n_bins[1]),
                        static_cast<int>(local / grid->n_bins[2] % grid->n_bins[1]),
                        static_cast<int>(local % grid->n_bins[2])};
    const Tile tile = make_tile(sorted, *grid, sorted.bin_start[b], sorted.bin_start[b + 1], cutoffs.largest);
    n_pairs = list_tile(sorted, *grid, tile, bin, cutoffs, wrapped, scratch, n_pairs, counts);
  }
  task.neighbor.assign(scratch.neighbor.begin(), scratch.neighbor.begin() + n_pairs);
  task.shift.assign(scratch.shift.begin(), scratch.shift.begin() + n_pairs);
}

// Moves one array of all tasks to the rows of `out` and frees it.
void place_rows(const SortedAtoms& sorted, const std::vector<std::int64_t>& first, std::vector<TaskPairs>& tasks,
                std::vector<std::int32_t> TaskPairs::*array, int n_threads, std::vector<std::int32_t>& out) {
  out.resize(first.back());
  parallel_for(static_cast<std::int64_t>(tasks.size()), n_threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int32_t* from = (tasks[t].*array).data();
      for (std::int64_t p = sorted.bin_start[tasks[t].begin]; p < sorted.bin_start[tasks[t].end]; ++p) {
        const std::int32_t i = sorted.index[p];
        const std::int64_t count = first[i + 1] - first[i];
        std::copy_n(from, count, out.data() + first[i]);
        from += count;
      }
      std::vector<std::int32_t>().swap(tasks[t].*array);
    }
  });
}

}  // namespace

std::int32_t pack_shift(int a, int b, int c) {
  require(std::abs(a) <= kMaxShift && std::abs(b) <= kMaxShift && std::abs(c) <= kMaxShift, "image (", a, ", ", b, ", ", c,
          ") is beyond ", kMaxShift, " cells; use a larger cell");
  return (a + 512) | ((b + 512) << 10) | ((c + 512) << 20);
}

NeighborList build_neighbors(const StructureBatch& batch, int n_species, const double* pair_cutoffs, double skin,
                             int n_threads) {
  const Cutoffs cutoffs = make_cutoffs(n_species, pair_cutoffs, skin);
  check_batch(batch, n_species);
  NeighborList list;
  list.n_atoms = batch.n_structures > 0 ? batch.first_atom[batch.n_structures] : 0;
  list.first.assign(list.n_atoms + 1, 0);
  list.wrap.resize(3 * list.n_atoms);
  list.structure.resize(list.n_atoms);
  // A thread is worth starting for a few hundred atoms.
  const int threads = static_cast<int>(std::min<std::int64_t>(thread_count(n_threads), 1 + list.n_atoms / 256));
  const double search_radius = cutoffs.largest > 0.0 ? cutoffs.largest : 1.0;  // wraps are wanted even if no pair is
  std::vector<double> wrapped(3 * list.n_atoms);
  SortedAtoms sorted;
  const std::vector<Grid> grids = make_grids(batch, search_radius, threads, list, wrapped, sorted);
  if (!(cutoffs.largest > 0.0)) return list;

  std::vector<TaskPairs> tasks = make_tasks(sorted);
  std::vector<Scratch> scratch(threads);
  std::int64_t* const counts = list.first.data() + 1;
  parallel_for(static_cast<std::int64_t>(tasks.size()), threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      run_task(sorted, grids, cutoffs, wrapped.data(), scratch[thread_index()], tasks[t], counts);
  });
  for (std::int64_t i = 0; i < list.n_atoms; ++i) list.first[i + 1] += list.first[i];
  place_rows(sorted, list.first, tasks, &TaskPairs::neighbor, threads, list.neighbor);
  place_rows(sorted, list.first, tasks, &TaskPairs::shift, threads, list.shift);
  return list;
}

}  // namespace grace
