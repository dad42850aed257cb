// Structures for neighbour lists on a device, and the list with all its input there.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "grace/neighbors.hpp"
#include "grace/neighbors_cuda/device_neighbors.hpp"
#include "test_target.hpp"

namespace neighbor_test {

using test_target::TestDevice;
using List = grace::gpu::DeviceNeighborList<TestDevice>;
template <class T>
using Buffer = grace::device::Buffer<TestDevice, T>;

struct Batch {
  std::vector<std::int64_t> first_atom{0};
  std::vector<double> positions, cells;
  std::vector<std::int32_t> species;
  std::vector<char> periodic;

  std::int64_t n_atoms() const { return first_atom.back(); }
  std::int64_t n_structures() const { return static_cast<std::int64_t>(first_atom.size()) - 1; }
  const bool* pbc() const { return reinterpret_cast<const bool*>(periodic.data()); }

  void add(const std::vector<double>& fractional, const std::array<double, 9>& cell, const std::array<bool, 3>& pbc,
           std::mt19937& random, int n_species) {
    for (std::size_t i = 0; i < fractional.size() / 3; ++i) {
      for (int x = 0; x < 3; ++x)
        positions.push_back(fractional[3 * i] * cell[x] + fractional[3 * i + 1] * cell[3 + x] +
                            fractional[3 * i + 2] * cell[6 + x]);
      species.push_back(static_cast<std::int32_t>(random() % n_species));
    }
    for (int k = 0; k < 9; ++k) cells.push_back(pbc[k / 3] || random() % 2 == 0 ? cell[k] : 0.0);
    for (bool p : pbc) periodic.push_back(p ? 1 : 0);
    first_atom.push_back(static_cast<std::int64_t>(species.size()));
  }

  grace::StructureBatch view() const {
    grace::StructureBatch batch;
    batch.n_structures = static_cast<int>(n_structures());
    batch.first_atom = first_atom.data();
    batch.positions = positions.data();
    batch.species = species.data();
    batch.cells = cells.data();
    batch.periodic = pbc();
    return batch;
  }
};

inline double uniform(std::mt19937& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

// Cells of 2 to 14 A, left- and right-handed, skewed, with atoms up to two cells outside.
inline void add_random(Batch& batch, std::mt19937& random, int n_atoms, int n_species, double smallest = 2.0,
                       double largest = 14.0) {
  std::array<double, 9> cell{};
  for (int k = 0; k < 9; ++k) {
    const bool diagonal = k % 4 == 0, lower = k == 3 || k == 6 || k == 7;
    cell[k] = diagonal ? uniform(random, smallest, largest) : (lower ? uniform(random, -4.0, 4.0) : 0.0);
  }
  if (random() % 2 == 0) std::swap_ranges(cell.begin(), cell.begin() + 3, cell.begin() + 3);
  std::array<bool, 3> pbc;
  for (bool& p : pbc) p = random() % 4 != 0;
  std::vector<double> fractional;
  for (int k = 0; k < 3 * n_atoms; ++k) fractional.push_back(uniform(random, -2.0, 3.0));
  batch.add(fractional, cell, pbc, random, n_species);
}

inline std::vector<double> random_cutoffs(std::mt19937& random, int n_species) {
  std::vector<double> cutoffs(n_species * n_species);
  for (int a = 0; a < n_species; ++a)
    for (int b = 0; b <= a; ++b) {
      const double cutoff = random() % 8 == 0 ? 0.0 : uniform(random, 2.5, 7.5);
      cutoffs[a * n_species + b] = cutoffs[b * n_species + a] = cutoff;
    }
  if (n_species > 1) cutoffs[1] = 0.5 * cutoffs[1];  // rows are centres: no symmetry is assumed
  return cutoffs;
}

// A list on the device with all its input there.
struct Listed {
  TestDevice device;
  Buffer<double> positions{device, "positions"};
  Buffer<std::int32_t> species{device, "species"};
  List list{device};
  std::vector<std::int32_t> neighbor, shift;

  explicit Listed(std::uint64_t seed) : device(test_target::order(seed)) {}

  void build(const Batch& batch, const std::vector<double>& cutoffs, int n_species, double skin) {
    grace::gpu::ListAtoms atoms;
    atoms.n_centers = atoms.n_atoms = batch.n_atoms();
    atoms.n_structures = batch.n_structures();
    atoms.first_atom = batch.first_atom.data();
    atoms.cells = batch.cells.data();
    atoms.periodic = batch.pbc();
    build(atoms, batch.positions, batch.species, cutoffs, n_species, skin);
  }

  void build(grace::gpu::ListAtoms atoms, const std::vector<double>& r, const std::vector<std::int32_t>& elements,
             const std::vector<double>& cutoffs, int n_species, double skin) {
    positions.upload(r);
    species.upload(elements);
    atoms.positions = positions.data();
    atoms.species = species.data();
    atoms.n_species = n_species;
    atoms.pair_cutoffs = cutoffs.data();
    atoms.skin = skin;
    list.build(atoms);
    const std::vector<std::int64_t>& first = list.host_first();
    CHECK(static_cast<std::int64_t>(first.size()) == atoms.n_centers + 1);
    CHECK(first == test_target::read(device, list.first(), first.size()));
    neighbor = test_target::read(device, list.neighbor(), first.back());
    shift.clear();
    if (list.shift() != nullptr) shift = test_target::read(device, list.shift(), first.back());
  }

  bool moved(const std::vector<double>& r, const std::vector<double>& cells) {
    Buffer<double> now(device, "positions");
    now.upload(r);
    return list.moved_too_far(now.data(), cells.data());
  }

  std::vector<double> wrapped(const std::vector<double>& r, const std::vector<double>& cells) {
    Buffer<double> now(device, "positions"), device_cells(device, "cells"), out(device, "positions");
    now.upload(r);
    device_cells.upload(cells);
    out.reserve(r.size());
    list.wrapped_positions(now.data(), device_cells.data(), out.data());
    return test_target::read<double>(device, out.data(), r.size());
  }
};

}  // namespace neighbor_test
