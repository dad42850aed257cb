#include "grace/snap/pairs.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/parallel.hpp"

namespace grace::snap {
namespace {

constexpr double least_distance = 1e-6;  // A; closer atoms have no direction to each other
constexpr double max_cutoff = 1e3;       // A
constexpr double margin = 1e-9;          // of bounds in units of cells: images just outside are only looked at

std::string structure_name(const StructureBatch& batch, int s) {
  return batch.n_structures > 1 ? " of structure " + std::to_string(s) : std::string();
}

void check_cutoffs(const StructureBatch& batch, const double* cutoffs, double least) {
  for (int s = 0; s < batch.n_structures; ++s)
    for (std::int64_t i = batch.first_atom[s]; i < batch.first_atom[s + 1]; ++i) {
      if (cutoffs[i] > least && cutoffs[i] <= max_cutoff) continue;
      require(false, "`cutoffs` of atom ", i - batch.first_atom[s], structure_name(batch, s), " is ", cutoffs[i],
              " A, must be above ", least, " A and at most ", max_cutoff, " A");
    }
}

// A structure with its atoms wrapped into the cell.
struct Wrapped {
  double cell[9];
  double inverse_heights[3];  // 1/A
  const bool* periodic;
  std::vector<double> positions, fractional;  // [n_atoms, 3]
};

Wrapped wrap(const StructureBatch& batch, int s, double cutoff) {
  Wrapped out;
  double inverse[9], heights[3];
  complete_frame(batch, s, cutoff, inverse, heights);
  for (int k = 0; k < 3; ++k) out.inverse_heights[k] = 1.0 / heights[k];
  out.periodic = batch.periodic + 3 * std::int64_t{s};
  math::complete_cell(batch.cells + 9 * std::int64_t{s}, out.periodic, out.cell);
  const std::int64_t begin = batch.first_atom[s], n_atoms = batch.first_atom[s + 1] - begin;
  out.positions.resize(static_cast<std::size_t>(3 * n_atoms));
  out.fractional.resize(static_cast<std::size_t>(3 * n_atoms));
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    const double* r = batch.positions + 3 * (begin + i);
    check_atom(batch, s, i, r, 0, 1);
    int images[3];
    const int direction =
        math::wrap_into_cell(r, out.cell, inverse, out.periodic, images, &out.positions[3 * i], &out.fractional[3 * i]);
    if (direction >= 0) report_far_outside(batch, s, i, direction, out.fractional[3 * i + direction]);
  }
  return out;
}

// Range of images n of direction k in which |difference + n| heights[k] can be within the cutoff. Conversions instead
// of std::floor, which is a call of a function on processors without SSE 4.1.
void image_range(const Wrapped& w, int k, double difference, double cutoff, int& low, int& high) {
  low = high = 0;
  if (!w.periodic[k]) return;
  const double reach = cutoff * w.inverse_heights[k] + margin;
  const double first = -reach - difference, last = reach - difference;
  low = static_cast<int>(first);
  high = static_cast<int>(last);
  if (low < first) ++low;
  if (high > last) --high;
}

// The pairs of structure s.
void find_pairs(const StructureBatch& batch, int s, const double* cutoffs, CutoffRule rule, PairRows& out) {
  const std::int64_t begin = batch.first_atom[s], n_atoms = batch.first_atom[s + 1] - begin;
  out.first.assign(1, 0);
  out.pairs.clear();
  if (n_atoms == 0) return;
  const Wrapped w = wrap(batch, s, *std::max_element(cutoffs + begin, cutoffs + begin + n_atoms));
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    for (std::int64_t j = 0; j < n_atoms; ++j) {
      const double own = cutoffs[begin + i];
      const double cutoff = rule == CutoffRule::centre ? own : 0.5 * (own + cutoffs[begin + j]);
      const double limit = cutoff * cutoff;
      int low[3], high[3];
      bool none = false;
      for (int k = 0; k < 3 && !none; ++k) {
        image_range(w, k, w.fractional[3 * j + k] - w.fractional[3 * i + k], cutoff, low[k], high[k]);
        none = low[k] > high[k];
      }
      if (none) continue;
      for (int a = low[0]; a <= high[0]; ++a)
        for (int b = low[1]; b <= high[1]; ++b)
          for (int c = low[2]; c <= high[2]; ++c) {
            double offset[3], r[3];
            math::image_offset(a, b, c, w.cell, offset);
            math::pair_vector(&w.positions[3 * i], &w.positions[3 * j], offset, r);
            const double square = math::dot3(r, r);
            if (!(square < limit) || (i == j && a == 0 && b == 0 && c == 0)) continue;
            const double length = std::sqrt(square);
            if (length < least_distance)
              require(false, "`positions` of atoms ", i, " and ", j, structure_name(batch, s), " are in one place (",
                      length, " A apart, images included); move one of them");
            out.pairs.push_back(
                {{r[0] / length, r[1] / length, r[2] / length}, length, cutoff, static_cast<std::int32_t>(begin + j)});
          }
    }
    out.first.push_back(static_cast<std::int64_t>(out.pairs.size()));
  }
}

}  // namespace

void find_all_pairs(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double least,
                    std::vector<PairRows>& rows, int n_threads) {
  check_structures(batch);
  check_cutoffs(batch, cutoffs, least);
  rows.resize(static_cast<std::size_t>(batch.n_structures));
  parallel_for(batch.n_structures, thread_count(n_threads), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) find_pairs(batch, static_cast<int>(s), cutoffs, rule, rows[s]);
  });
}

}  // namespace grace::snap
