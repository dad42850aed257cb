#include "grace/neighbors_cuda/list_plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "grace/math/geometry.hpp"
#include "grace/neighbors_checks.hpp"

namespace grace::gpu {
namespace {

constexpr double kBinEdge = 0.5001;   // bin / cutoff: just enough that two bins on either side suffice
constexpr double kBinsPerAtom = 4.0;  // at most
constexpr double kDoubleEps = std::numeric_limits<double>::epsilon();

// Bins of one structure with atoms in [low, high].
ListBins choose_bins(const ListFrame& frame, std::int64_t n_atoms, double cutoff, const double* low,
                     const double* high) {
  ListBins bins;
  double full[9], largest = 0.0;
  math::complete_cell(frame.cell, frame.periodic, full);
  for (int k = 0; k < 3; ++k) {
    const double farthest = frame.periodic[k] ? math::image_bound(frame.heights[k], cutoff) + 1.0
                                              : std::max(std::fabs(low[k]), std::fabs(high[k]));
    largest += farthest * math::length3(full + 3 * k);
  }
  // Rounding of the coordinates; the last term covers the fractional coordinates of nearly flat cells.
  const double padded = cutoff * (1.0 + 1e-6) + 16.0 * kDoubleEps * largest / math::cell_orthogonality(full);
  for (int k = 0; k < 3; ++k) {
    const double length = frame.periodic[k] ? frame.heights[k] : high[k] - low[k];
    double n = std::max(1.0, std::floor(length / (kBinEdge * padded)));
    if (frame.periodic[k]) {
      n = std::min(n, 1e6);
      bins.low[k] = 0.0;
      bins.bins_per_unit[k] = n;
      const double reach = math::image_bound(length / n, padded);
      bins.reach[k] = static_cast<int>(std::min(reach, kMaxShift * n));
    } else {
      bins.low[k] = low[k];
      bins.bins_per_unit[k] = n > 1.0 ? n / length : 0.0;
      bins.reach[k] = static_cast<int>(std::min(n - 1.0, std::floor(padded * bins.bins_per_unit[k]) + 1.0));
    }
    bins.extent[k] = static_cast<std::int64_t>(n);
  }
  // Folding: the direction with the most bins is halved until there are few more bins than atoms. Every place is
  // visited at most once by a search as long as there are as many places as bins searched.
  const double most = kBinsPerAtom * static_cast<double>(n_atoms) + 64.0;
  double places[3];
  for (int k = 0; k < 3; ++k) places[k] = static_cast<double>(bins.extent[k]);
  while (places[0] * places[1] * places[2] > most) {
    int widest = -1;
    for (int k = 0; k < 3; ++k)
      if (!frame.periodic[k] && places[k] > 2.0 * bins.reach[k] + 1.0 && (widest < 0 || places[k] > places[widest]))
        widest = k;
    if (widest < 0) break;
    places[widest] = std::max(std::floor(0.5 * places[widest]), 2.0 * bins.reach[widest] + 1.0);
  }
  // Periodic directions repeat by themselves: their bins grow.
  while (places[0] * places[1] * places[2] > most) {
    int widest = -1;
    for (int k = 0; k < 3; ++k)
      if (frame.periodic[k] && places[k] > 1.0 && (widest < 0 || places[k] > places[widest])) widest = k;
    if (widest < 0) break;
    const double n = std::floor(0.5 * places[widest]);
    places[widest] = n;
    bins.bins_per_unit[widest] = n;
    bins.extent[widest] = static_cast<std::int64_t>(n);
    bins.reach[widest] = static_cast<int>(
        std::min(math::image_bound(frame.heights[widest] / n, padded), static_cast<double>(kMaxShift) * n));
  }
  for (int k = 0; k < 3; ++k) bins.n_bins[k] = static_cast<int>(places[k]);
  return bins;
}

}  // namespace

std::vector<ListFrame> make_frames(const StructureBatch& batch, double cutoff) {
  std::vector<ListFrame> frames(batch.n_structures);
  for (int s = 0; s < batch.n_structures; ++s) {
    ListFrame& frame = frames[s];
    std::copy_n(batch.cells + 9 * std::int64_t{s}, 9, frame.cell);
    std::copy_n(batch.periodic + 3 * std::int64_t{s}, 3, frame.periodic);
    complete_frame(batch, s, cutoff, frame.inverse, frame.heights);
  }
  return frames;
}

std::vector<ListPiece> make_pieces(const StructureBatch& batch, std::vector<std::int64_t>& first_piece) {
  std::vector<ListPiece> pieces;
  first_piece.assign(1, 0);
  for (int s = 0; s < batch.n_structures; ++s) {
    const std::int64_t end = batch.first_atom[s + 1];
    for (std::int64_t begin = batch.first_atom[s]; begin < end; begin += kPieceAtoms)
      pieces.push_back({begin, std::min(end, begin + kPieceAtoms), s});
    first_piece.push_back(static_cast<std::int64_t>(pieces.size()));
  }
  return pieces;
}

std::vector<ListBins> make_bins(const StructureBatch& batch, const std::vector<ListFrame>& frames, double cutoff,
                                const std::vector<double>& low, const std::vector<double>& high, std::int64_t& n_bins) {
  std::vector<ListBins> bins(batch.n_structures);
  n_bins = 0;
  for (int s = 0; s < batch.n_structures; ++s) {
    const std::int64_t n_atoms = batch.first_atom[s + 1] - batch.first_atom[s];
    if (n_atoms > 0) bins[s] = choose_bins(frames[s], n_atoms, cutoff, &low[3 * s], &high[3 * s]);
    bins[s].first_bin = n_bins;
    if (n_atoms > 0) n_bins += std::int64_t{1} * bins[s].n_bins[0] * bins[s].n_bins[1] * bins[s].n_bins[2];
  }
  return bins;
}

}  // namespace grace::gpu
