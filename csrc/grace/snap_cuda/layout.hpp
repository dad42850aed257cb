// Arrays in device memory that the SNAP kernels share.
#pragma once

#include <cstdint>

#include "grace/snap/image_walk.hpp"
#include "grace/snap/pairs.hpp"

namespace grace::snap {

// A structure of a batch. Entry (i, j) is an ordered pair of its atoms: number first_entry + i n_atoms + j.
struct DeviceStructure {
  SearchFrame frame;
  std::int64_t first_atom, n_atoms, first_entry;
};

struct DeviceAtom {
  double position[3], fractional[3];  // wrapped
  double cutoff;
  std::int64_t structure;
};

struct DeviceBatch {
  const DeviceStructure* structures;
  const DeviceAtom* atoms;
  std::int64_t n_atoms;
  CutoffRule rule;

  // First entry of the pairs of atom i.
  GRACE_DEVICE std::int64_t row(std::int64_t i) const {
    const DeviceStructure& s = structures[atoms[i].structure];
    return s.first_entry + (i - s.first_atom) * s.n_atoms;
  }
  GRACE_DEVICE std::int64_t row_end(std::int64_t i) const { return row(i) + structures[atoms[i].structure].n_atoms; }
};

// Neighbour after neighbour, entry after entry; first: [n_entries + 1]. Pairs from `capacity` on do not fit: they are
// counted and not stored, and what is computed without them is thrown away.
struct DevicePairs {
  const std::int64_t* first;
  double* numbers;  // [5][capacity]: n_x, n_y, n_z, r, 1/(rc - rmin0)
  std::int64_t capacity;

  GRACE_DEVICE std::int64_t begin(std::int64_t entry) const {
    return first[entry] < capacity ? first[entry] : capacity;
  }
};

struct alignas(16) Complex {
  double r, i;
};

}  // namespace grace::snap
