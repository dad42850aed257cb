// What the device kernels of an evaluation read: the call's atoms and lists, and the chunk of atoms at hand. Plain
// data; every pointer is device memory.
#pragma once

#include <cstdint>

#include "grace/device/atomics.hpp"
#include "grace/macros.hpp"

namespace grace::gpu {

// Channels are padded to this many numbers; padded channels of every tensor are zero.
constexpr int channel_unit = 8;
constexpr int padded_channels(int n) { return (n + channel_unit - 1) / channel_unit * channel_unit; }

constexpr int gemm_atoms = 64;  // largest AtomTile: atoms of one element that share a weight matrix

// Atoms [begin, begin + count) of a chunk, all of one element.
struct AtomTile {
  int begin = 0;
  int count = 0;
  int element = 0;
};

// The call (evaluator.hpp, Geometry): atoms, and neighbour rows within pair cutoff + skin.
struct Frame {
  const double* positions = nullptr;        // [n_atoms][3], A, wrapped as the rows' images expect
  const std::int32_t* species = nullptr;    // [n_atoms], -1 = not an atom of this model
  const std::int64_t* first = nullptr;      // [n_centers + 1]
  const std::int32_t* neighbor = nullptr;   // [first[n_centers]]
  const std::int32_t* shift = nullptr;      // packed images (neighbors.hpp), or nullptr
  const double* cells = nullptr;            // [n_structures][3][3], with shifts
  const std::int32_t* structure = nullptr;  // [n_centers], or nullptr: one structure
  const double* pair_cutoffs = nullptr;     // [n_elements][n_elements], A, row = centre
  const std::int32_t* owner = nullptr;      // [n_atoms] centre that a ghost is an image of, or nullptr
  int n_elements = 0;
};

// A chunk: atoms sorted by element. Bond slots of atom a: [slot[a], slot[a + 1]) in the chunk's bond arrays, as many as
// its neighbour row has entries; the first count[a] of them are in use after collect_bonds.
struct Chunk {
  int n_atoms = 0;
  const std::int32_t* centers = nullptr;  // [n_atoms] index of the atom in the Frame
  const std::int32_t* species = nullptr;  // [n_atoms]
  const std::int32_t* slot = nullptr;     // [n_atoms + 1]
  int n_slots = 0;                        // slot[n_atoms]
  int n_tiles = 0;
  const AtomTile* tiles = nullptr;  // [n_tiles], in order, covering all atoms
};

// Conditions that kernels meet and the host reports after the step. Reset to the values below before each step.
struct StepFlags {
  std::uint64_t closest =
      ~std::uint64_t{0};  // bits of the smallest squared distance (float) << 32 | slot of the global list
  std::uint64_t not_finite = ~std::uint64_t{0};  // smallest index of an atom whose position is not finite
};

// Where results are added up over all chunks, in caller order.
struct ForceSums {
  device::AtomicSum<double> forces;           // [n_atoms][3], eV/A
  double* center_virial = nullptr;            // [n_centers][3][3] sum over the centre's bonds, added to; or nullptr
  device::AtomicSum<double> atom_virial;      // [n_atoms][3][3], half on i, half on j; data == nullptr: not wanted
  device::AtomicSum<double> centroid_virial;  // [n_atoms][3][3], on j; data == nullptr: not wanted
};

// A row of channels of all atoms of a chunk: number (atom, channel) is base[offset * n_atoms + atom * stride +
// channel]. arena: the stored tensors of a layer (values or gradients); block: the streamed product rows.
enum class Place : std::int32_t { arena = 0, block = 1 };
struct RowAddress {
  Place place = Place::arena;
  std::int32_t stride = 0;
  std::int64_t offset = 0;

  GRACE_HD std::int64_t start(int n_atoms) const { return offset * n_atoms; }
};

}  // namespace grace::gpu
