#include "grace/snap/pairs.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "grace/error.hpp"
#include "grace/math/geometry.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/parallel.hpp"
#include "grace/snap/image_walk.hpp"

namespace grace::snap {
namespace {

constexpr double max_cutoff = 1e3;  // A

std::string structure_name(const StructureBatch& batch, int s) {
  return batch.n_structures > 1 ? " of structure " + std::to_string(s) : std::string();
}

// The pairs of structure s.
void find_pairs(const StructureBatch& batch, int s, const double* cutoffs, CutoffRule rule, PairRows& out) {
  const std::int64_t begin = batch.first_atom[s], n_atoms = batch.first_atom[s + 1] - begin;
  out.first.assign(1, 0);
  out.pairs.clear();
  if (n_atoms == 0) return;
  const WrappedStructure w = wrap_structure(batch, s, *std::max_element(cutoffs + begin, cutoffs + begin + n_atoms));
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    for (std::int64_t j = 0; j < n_atoms; ++j) {
      const double cutoff = pair_cutoff(rule, cutoffs[begin + i], cutoffs[begin + j]);
      ImageWalk walk(w.frame, &w.positions[3 * i], &w.fractional[3 * i], &w.positions[3 * j], &w.fractional[3 * j],
                     cutoff, i == j);
      double r[3], square;
      while (walk.next(r, square)) {
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

void check_cutoffs(const StructureBatch& batch, const double* cutoffs, double least) {
  for (int s = 0; s < batch.n_structures; ++s)
    for (std::int64_t i = batch.first_atom[s]; i < batch.first_atom[s + 1]; ++i) {
      if (cutoffs[i] > least && cutoffs[i] <= max_cutoff) continue;
      require(false, "`cutoffs` of atom ", i - batch.first_atom[s], structure_name(batch, s), " is ", cutoffs[i],
              " A, must be above ", least, " A and at most ", max_cutoff, " A");
    }
}

WrappedStructure wrap_structure(const StructureBatch& batch, int s, double cutoff) {
  WrappedStructure out;
  double inverse[9], heights[3];
  complete_frame(batch, s, cutoff, inverse, heights);
  for (int k = 0; k < 3; ++k) out.frame.inverse_heights[k] = 1.0 / heights[k];
  const bool* periodic = batch.periodic + 3 * std::int64_t{s};
  std::copy_n(periodic, 3, out.frame.periodic);
  math::complete_cell(batch.cells + 9 * std::int64_t{s}, periodic, out.frame.cell);
  const std::int64_t begin = batch.first_atom[s], n_atoms = batch.first_atom[s + 1] - begin;
  out.positions.resize(static_cast<std::size_t>(3 * n_atoms));
  out.fractional.resize(static_cast<std::size_t>(3 * n_atoms));
  for (std::int64_t i = 0; i < n_atoms; ++i) {
    const double* r = batch.positions + 3 * (begin + i);
    check_atom(batch, s, i, r, 0, 1);
    int images[3];
    const int direction = math::wrap_into_cell(r, out.frame.cell, inverse, periodic, images, &out.positions[3 * i],
                                               &out.fractional[3 * i]);
    if (direction >= 0) report_far_outside(batch, s, i, direction, out.fractional[3 * i + direction]);
  }
  return out;
}

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
