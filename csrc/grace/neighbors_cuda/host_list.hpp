// A neighbour list built on a device and copied to the host: what comparisons with the list of the CPU need.
#pragma once

#include <algorithm>
#include <cstdint>

#include "grace/device/buffer.hpp"
#include "grace/neighbors.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/neighbors_cuda/device_neighbors.hpp"

namespace grace::gpu {

// As build_neighbors of neighbors.hpp, but atoms of species -1 are allowed and never listed. Throws Error with the
// reason when GPU `index` cannot be used.
NeighborList build_neighbors_cuda(int index, const StructureBatch& batch, int n_species, const double* pair_cutoffs,
                                  double skin);
NeighborList build_neighbors_emulated(std::uint64_t seed, const StructureBatch& batch, int n_species,
                                      const double* pair_cutoffs, double skin);

template <class Device>
NeighborList build_neighbors_on(Device& device, const StructureBatch& batch, int n_species, const double* pair_cutoffs,
                                double skin) {
  check_structures(batch);
  const std::int64_t n = batch.n_structures > 0 ? batch.first_atom[batch.n_structures] : 0;
  device::Buffer<Device, double> positions(device, "positions");
  device::Buffer<Device, std::int32_t> species(device, "species");
  positions.upload(batch.positions, 3 * n);
  species.upload(batch.species, n);
  ListAtoms atoms;
  atoms.n_centers = atoms.n_atoms = n;
  atoms.positions = positions.data();
  atoms.species = species.data();
  atoms.n_structures = batch.n_structures;
  atoms.first_atom = batch.first_atom;
  atoms.cells = batch.cells;
  atoms.periodic = batch.periodic;
  atoms.n_species = n_species;
  atoms.pair_cutoffs = pair_cutoffs;
  atoms.skin = skin;
  DeviceNeighborList<Device> built(device);
  built.build(atoms);

  NeighborList list;
  list.n_atoms = n;
  list.first = built.host_first();
  list.neighbor.resize(list.first.back());
  list.shift.resize(list.first.back());
  list.wrap.resize(3 * n);
  list.structure.resize(n);
  device.download(list.neighbor.data(), built.neighbor(), list.neighbor.size() * sizeof(std::int32_t));
  device.download(list.shift.data(), built.shift(), list.shift.size() * sizeof(std::int32_t));
  device.download(list.wrap.data(), built.wrap(), list.wrap.size() * sizeof(std::int32_t));
  device.synchronize();
  for (int s = 0; s < batch.n_structures; ++s)
    std::fill(list.structure.begin() + batch.first_atom[s], list.structure.begin() + batch.first_atom[s + 1], s);
  return list;
}

}  // namespace grace::gpu
