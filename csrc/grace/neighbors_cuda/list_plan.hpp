// What the host decides for a list on a device: the frame of every structure, and its bins.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/neighbors.hpp"

namespace grace::gpu {

// Cell geometry of one structure.
struct ListFrame {
  double cell[9];     // rows of non-periodic directions: as given, never used
  double inverse[9];  // of the completed cell
  double heights[3];
  bool periodic[3];
};

// Bins of one structure. Bin t along a direction repeats in the periodic images. Along a non-periodic direction it is
// kept in the place t mod n_bins: a large and sparse box needs no more memory than its atoms deserve, and atoms far
// away from all others do no harm. Atoms that share a place without being near each other only cost tests of distance.
struct ListBins {
  double low[3];            // fractional coordinate of bin 0
  double bins_per_unit[3];  // bins per unit of the fractional coordinate
  std::int64_t extent[3];   // bins before folding; n_bins in periodic directions
  int n_bins[3];
  int reach[3];  // bins to search on either side
  std::int64_t first_bin;
};

constexpr std::int64_t kPieceAtoms = 1024;

// Atoms [begin, end) of one structure, at most kPieceAtoms, read by one block.
struct ListPiece {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t structure = 0;
};

// Throws Error naming the structure.
std::vector<ListFrame> make_frames(const StructureBatch& batch, double cutoff);

// Pieces in the order of the structures; first_piece[n_structures + 1].
std::vector<ListPiece> make_pieces(const StructureBatch& batch, std::vector<std::int64_t>& first_piece);

// low, high: [n_structures][3], range of the fractional coordinates of the wrapped atoms. n_bins: of all structures.
std::vector<ListBins> make_bins(const StructureBatch& batch, const std::vector<ListFrame>& frames, double cutoff,
                                const std::vector<double>& low, const std::vector<double>& high, std::int64_t& n_bins);

}  // namespace grace::gpu
