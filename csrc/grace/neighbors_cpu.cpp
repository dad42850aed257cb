// Neighbour lists on the CPU.
//
// One algorithm serves every cell. The wrapped atoms of a structure are sorted into bins (counting sort); the atoms of
// one bin are the *centres* of a tile. The *candidates* of a tile are the atoms and images of the surrounding bins that
// lie within the cutoff of the box around the centres; bins repeat through the periodic images, so that a cell much
// smaller than the cutoff is a single bin searched over all its images. Candidates are sorted once per tile by (index,
// image), and each centre then only filters them in order: rows come out sorted without sorting rows.
//
// The filter works on float coordinates relative to the tile, with a rigorous bound of their rounding error; the few
// candidates that are too close to the cutoff to tell are decided in double by the definition in the header. The result
// is therefore the one of a brute-force search in double, whatever the bins and threads.
#include "grace/neighbors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/neighbors_grid.hpp"
#include "grace/parallel.hpp"

namespace grace {
namespace {

constexpr std::int64_t kAtomsPerTask = 512;  // atoms listed by one thread at a time
constexpr double kFloatEps = 1.0 / (1 << 24);

struct Candidates {
  std::vector<float> x, y, z;       // relative to the tile
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
std::size_t find_candidates(const SortedAtoms& sorted, const Grid& grid, const Tile& tile, const int* bin,
                            double cutoff, Candidates& out) {
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
      const std::int64_t column =
          (std::int64_t{1} * (t0 - a * n_bins[0]) * n_bins[1] + (t1 - b * n_bins[1])) * n_bins[2];
      for (int t2 = lowest[2]; t2 <= highest[2];) {  // bins of one column and one image are contiguous
        const int c = floor_divide(t2, n_bins[2]);
        const int last = std::min(highest[2], (c + 1) * n_bins[2] - 1);
        double offset[3];
        math::image_offset(a, b, c, grid.cell, offset);
        n = append_near(sorted, tile, start[column + t2 - c * n_bins[2]], start[column + last - c * n_bins[2] + 1],
                        offset, pack_shift(a, b, c), limit, out, n);
        t2 = last + 1;
      }
    }
  }
  return n;
}

// The search around one bin at a time, with the memory of one thread.
class TileSearch {
 public:
  TileSearch(const SortedAtoms& sorted, const Cutoffs& cutoffs, const double* wrapped)
      : sorted_(sorted), cutoffs_(cutoffs), wrapped_(wrapped) {}

  // counts[i] for the atoms i of the bin.
  void count(const Grid& grid, const int* bin, std::int64_t begin, std::int64_t end, std::int64_t* counts) {
    find(grid, bin, begin, end);
    int species = -1;
    for (std::int64_t p = begin; p < end; ++p) {
      if (sorted_.species[p] != species) set_limits(found_, species = sorted_.species[p]);
      measure(found_, p);
      const float *const distance2 = distance2_.data(), *const limit = limit_.data();
      const float both_margins = 2.0f * margin_;
      std::int32_t inside = 0, not_outside = 0;
      for (std::size_t k = 0; k < n_; ++k) {
        not_outside += distance2[k] < limit[k] ? 1 : 0;
        inside += distance2[k] + both_margins < limit[k] ? 1 : 0;
      }
      if (inside != not_outside) {
        for (std::size_t k = 0; k < n_; ++k)
          if (distance2[k] < limit[k] && !(distance2[k] + both_margins < limit[k]) && within(found_, p, k)) ++inside;
      }
      const bool itself = squared(species, species) > 0.0;
      counts[sorted_.index[p]] = inside - (itself ? 1 : 0);
    }
  }

  // Rows first[i] .. of neighbor and shift for the atoms i of the bin.
  void fill(const Grid& grid, const int* bin, std::int64_t begin, std::int64_t end, const std::int64_t* first,
            std::int32_t* neighbor, std::int32_t* shift) {
    find(grid, bin, begin, end);
    order();
    const std::int32_t home = pack_shift(0, 0, 0);
    const std::int32_t *const atom = ordered_.atom.data(), *const image = ordered_.shift.data();
    int species = -1;
    for (std::int64_t p = begin; p < end; ++p) {
      if (sorted_.species[p] != species) set_limits(ordered_, species = sorted_.species[p]);
      measure(ordered_, p);
      const std::size_t n_hits = select();
      const std::int32_t i = sorted_.index[p];
      std::int64_t place = first[i];
      for (std::size_t h = 0; h < n_hits; ++h) {
        const std::int32_t k = hits_[h];
        if (!(distance2_[k] + 2.0f * margin_ < limit_[k]) && !within(ordered_, p, k)) continue;
        if (atom[k] == i && image[k] == home) continue;
        neighbor[place] = atom[k];
        shift[place] = image[k];
        ++place;
      }
    }
  }

 private:
  double squared(int centre, int neighbor) const {
    return cutoffs_.squared[static_cast<std::size_t>(centre) * cutoffs_.n_species + neighbor];
  }

  void find(const Grid& grid, const int* bin, std::int64_t begin, std::int64_t end) {
    grid_ = &grid;
    tile_ = make_tile(sorted_, grid, begin, end, cutoffs_.largest);
    n_ = find_candidates(sorted_, grid, tile_, bin, cutoffs_.largest, found_);
    const double rc = cutoffs_.largest, error = tile_.error;
    margin_ = static_cast<float>(2.0 * rc * error + error * error + 16.0 * kFloatEps * rc * rc);
    if (limit_.size() < n_) {
      for (auto* v : {&limit_, &distance2_}) v->resize(found_.atom.size());
      for (auto* v : {&key_, &other_key_, &source_, &other_source_}) v->resize(found_.atom.size());
      hits_.resize(found_.atom.size());
      ordered_.reserve(found_.atom.size());
    }
  }

  // Stable radix sort of the candidates by atom.
  void order() {
    const auto [low, high] = std::minmax_element(found_.atom.begin(), found_.atom.begin() + n_);
    const std::uint32_t lowest = n_ > 0 ? *low : 0, range = n_ > 0 ? *high - *low : 0;
    for (std::size_t k = 0; k < n_; ++k) {
      key_[k] = found_.atom[k] - lowest;
      source_[k] = static_cast<std::uint32_t>(k);
    }
    constexpr int digit_bits = 8, n_digits = 1 << digit_bits;
    for (int bit = 0; bit < 32 && (range >> bit) > 0; bit += digit_bits) {
      std::uint32_t place[n_digits] = {};
      for (std::size_t k = 0; k < n_; ++k) ++place[(key_[k] >> bit) & (n_digits - 1)];
      std::uint32_t total = 0;
      for (std::uint32_t& p : place) {
        const std::uint32_t count = p;
        p = total;
        total += count;
      }
      for (std::size_t k = 0; k < n_; ++k) {
        const std::uint32_t p = place[(key_[k] >> bit) & (n_digits - 1)]++;
        other_key_[p] = key_[k];
        other_source_[p] = source_[k];
      }
      key_.swap(other_key_);
      source_.swap(other_source_);
    }
    for (std::size_t k = 0; k < n_; ++k) {
      const std::uint32_t from = source_[k];
      ordered_.x[k] = found_.x[from];
      ordered_.y[k] = found_.y[from];
      ordered_.z[k] = found_.z[from];
      ordered_.atom[k] = found_.atom[from];
      ordered_.shift[k] = found_.shift[from];
      ordered_.species[k] = found_.species[from];
    }
  }

  // Squared cutoff between a centre of this species and each candidate.
  void set_limits(const Candidates& candidates, int species) {
    for (std::size_t k = 0; k < n_; ++k) limit_[k] = static_cast<float>(squared(species, candidates.species[k]));
  }

  // distance2_ from atom p of SortedAtoms, less the largest rounding error: distance2 >= limit is surely outside.
  void measure(const Candidates& candidates, std::int64_t p) {
    const float px = static_cast<float>(sorted_.x[p] - tile_.origin[0]),
                py = static_cast<float>(sorted_.y[p] - tile_.origin[1]),
                pz = static_cast<float>(sorted_.z[p] - tile_.origin[2]), margin = margin_;
    const float *const x = candidates.x.data(), *const y = candidates.y.data(), *const z = candidates.z.data();
    float* const distance2 = distance2_.data();
    for (std::size_t k = 0; k < n_; ++k) {
      const float dx = x[k] - px, dy = y[k] - py, dz = z[k] - pz;
      distance2[k] = dx * dx + dy * dy + dz * dz - margin;
    }
  }

  // hits_: the candidates that are not surely outside, in their order.
  std::size_t select() {
    const float *const distance2 = distance2_.data(), *const limit = limit_.data();
    std::int32_t* const hits = hits_.data();
    std::size_t n_hits = 0;
    for (std::size_t k = 0; k < n_; ++k) {
      hits[n_hits] = static_cast<std::int32_t>(k);
      n_hits += distance2[k] < limit[k] ? 1 : 0;
    }
    return n_hits;
  }

  // The definition: |(r_j - r_i) + S . H|^2 < cutoff^2 in double.
  bool within(const Candidates& candidates, std::int64_t p, std::size_t k) const {
    const std::int64_t i = sorted_.index[p], j = candidates.atom[k];
    int a, b, c;
    double offset[3], vector[3];
    unpack_shift(candidates.shift[k], a, b, c);
    math::image_offset(a, b, c, grid_->cell, offset);
    math::pair_vector(wrapped_ + 3 * i, wrapped_ + 3 * j, offset, vector);
    return math::dot3(vector, vector) < squared(sorted_.species[p], candidates.species[k]);
  }

  const SortedAtoms& sorted_;
  const Cutoffs& cutoffs_;
  const double* const wrapped_;
  const Grid* grid_ = nullptr;
  Tile tile_;
  float margin_ = 0.0f;  // bound of the error of a squared distance near the cutoff
  std::size_t n_ = 0;    // candidates
  Candidates found_, ordered_;
  std::vector<std::uint32_t> key_, other_key_, source_, other_source_;
  std::vector<float> limit_, distance2_;
  std::vector<std::int32_t> hits_;
};

// First bins of tasks of about kAtomsPerTask atoms; the number of bins at the end.
std::vector<std::int64_t> make_tasks(const SortedAtoms& sorted) {
  std::vector<std::int64_t> tasks{0};
  const std::int64_t n_bins = static_cast<std::int64_t>(sorted.bin_start.size()) - 1;
  for (std::int64_t end = 1; end <= n_bins; ++end)
    if (end == n_bins || sorted.bin_start[end] - sorted.bin_start[tasks.back()] >= kAtomsPerTask) tasks.push_back(end);
  return tasks;
}

// Calls visit(search, grid, bin, begin, end) for every bin with atoms [begin, end) of SortedAtoms.
template <class Visit>
void for_each_tile(const SortedAtoms& sorted, const std::vector<Grid>& grids, const std::vector<std::int64_t>& tasks,
                   std::vector<TileSearch>& searches, const Visit& visit) {
  const int n_threads = static_cast<int>(searches.size());
  parallel_for(static_cast<std::int64_t>(tasks.size()) - 1, n_threads, 1,
               [&](std::int64_t first_task, std::int64_t last_task) {
                 // The last structure whose first bin is not behind the task; structures without atoms have no bins.
                 auto grid = std::upper_bound(grids.begin(), grids.end(), tasks[first_task],
                                              [](std::int64_t b, const Grid& g) { return b < g.first_bin; }) -
                             1;
                 for (std::int64_t b = tasks[first_task]; b < tasks[last_task]; ++b) {
                   while (grid + 1 != grids.end() && (grid + 1)->first_bin <= b) ++grid;
                   if (sorted.bin_start[b] == sorted.bin_start[b + 1]) continue;
                   const std::int64_t local = b - grid->first_bin;
                   const int bin[3] = {static_cast<int>(local / grid->n_bins[2] / grid->n_bins[1]),
                                       static_cast<int>(local / grid->n_bins[2] % grid->n_bins[1]),
                                       static_cast<int>(local % grid->n_bins[2])};
                   visit(searches[thread_index()], *grid, bin, sorted.bin_start[b], sorted.bin_start[b + 1]);
                 }
               });
}

}  // namespace

std::int32_t pack_shift(int a, int b, int c) {
  require(std::abs(a) <= kMaxShift && std::abs(b) <= kMaxShift && std::abs(c) <= kMaxShift, "image (", a, ", ", b, ", ",
          c, ") is beyond ", kMaxShift, " cells; use a larger cell");
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
  const std::vector<Grid> grids = make_grids(batch, n_species, search_radius, threads, list, wrapped, sorted);
  if (!(cutoffs.largest > 0.0)) return list;

  // Count, scan, fill: the arrays are allocated once, at their size.
  const std::vector<std::int64_t> tasks = make_tasks(sorted);
  std::vector<TileSearch> searches(threads, TileSearch(sorted, cutoffs, wrapped.data()));
  std::int64_t* const counts = list.first.data() + 1;
  for_each_tile(sorted, grids, tasks, searches,
                [&](TileSearch& search, const Grid& grid, const int* bin, std::int64_t begin, std::int64_t end) {
                  search.count(grid, bin, begin, end, counts);
                });
  for (std::int64_t i = 0; i < list.n_atoms; ++i) list.first[i + 1] += list.first[i];
  list.neighbor.resize(list.first.back());
  list.shift.resize(list.first.back());
  for_each_tile(sorted, grids, tasks, searches,
                [&](TileSearch& search, const Grid& grid, const int* bin, std::int64_t begin, std::int64_t end) {
                  search.fill(grid, bin, begin, end, list.first.data(), list.neighbor.data(), list.shift.data());
                });
  return list;
}

}  // namespace grace
