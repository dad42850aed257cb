// DeviceEvaluator: what comes in, atoms, rows and chunks.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "grace/error.hpp"
#include "grace/evaluator_cuda/device_evaluator.hpp"

namespace grace::gpu {

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::check(const MessageExchange* exchange) const {
  const Geometry& g = *geometry_;
  require(g.n_centers >= 0 && g.n_atoms >= g.n_centers, "geometry: n_atoms = ", g.n_atoms,
          " must be at least n_centers = ", g.n_centers);
  require(g.n_atoms <= std::numeric_limits<std::int32_t>::max(), "geometry: n_atoms = ", g.n_atoms,
          " exceeds 2^31 - 1; use more ranks");
  require(g.n_atoms == 0 || (g.positions != nullptr && g.species != nullptr),
          "geometry: positions and species are missing");
  require(g.n_centers == 0 || results_->energies != nullptr, "geometry: results.energies is missing");
  require(g.first == nullptr || g.shift == nullptr || g.cells != nullptr, "geometry: neighbour shifts need cells");
  require(g.first != nullptr || g.neighbors.skin >= 0.0, "`skin` must be >= 0, got ", g.neighbors.skin);
  require(plan_.layers.size() == 1 || g.n_atoms == g.n_centers || g.owner != nullptr || exchange != nullptr,
          "a two-layer model with ghost atoms needs an owner map or a message exchange");
  require(results_->stages == nullptr || g.space == MemorySpace::host, "stages are copied to host memory only");
}

// Positions and species to the device, species also to the host.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::load_atoms() {
  const Geometry& g = *geometry_;
  const std::size_t n = g.n_atoms;
  std::vector<std::int32_t> species(n);
  if (g.space == MemorySpace::device) {
    device_.download(species.data(), g.species, n * sizeof(std::int32_t));
    device_.synchronize();
  } else if (n > 0) {
    std::copy_n(g.species, n, species.begin());
  }
  for (std::size_t i = 0; i < n; ++i)
    require(species[i] < plan_.n_elements, "species of atom ", i, " is ", species[i], ", the model in use has ",
            plan_.n_elements, " elements");
  if (species != species_) {
    rows_changed_ = true;  // chunks are sorted by element
    if (!uniform_cutoffs_) listed_centers_ = -1;
    species_.clear();  // should the memory not suffice
    if (device_species_.reserve_roomy(n)) ++epoch_;
    device_.upload(device_species_.data(), species.data(), n * sizeof(std::int32_t));
    species_ = std::move(species);
  }
  frame_.species = device_species_.data();
  if (g.space == MemorySpace::device) {
    frame_.positions = g.positions;
    return;
  }
  if (raw_positions_.reserve_roomy(3 * n)) ++epoch_;
  device_.upload(raw_positions_.data(), g.positions, 3 * n * sizeof(double));
  frame_.positions = raw_positions_.data();
}

// The caller's rows.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::take_rows() {
  const Geometry& g = *geometry_;
  own_list_ = false;
  listed_centers_ = -1;
  rows_changed_ = true;
  rows_.assign(g.first, g.first + g.n_centers + 1);
  const std::size_t n_pairs = g.n_centers == 0 ? 0 : rows_.back();
  first_.upload(rows_);
  neighbor_.upload(g.neighbor, n_pairs);
  if (g.shift != nullptr) shift_.upload(g.shift, n_pairs);
  frame_.first = first_.data();
  frame_.neighbor = neighbor_.data();
  frame_.shift = g.shift == nullptr ? nullptr : shift_.data();
  structure_.clear();
  if (g.structure != nullptr && g.n_structures > 1) {
    structure_.assign(g.structure, g.structure + g.n_centers);
    require(std::is_sorted(structure_.begin(), structure_.end()), "geometry: centres must be sorted by structure");
  }
}

template <class Device, class Real>
bool DeviceEvaluator<Device, Real>::list_is_stale() const {
  const Geometry& g = *geometry_;
  const NeighborRequest& r = g.neighbors;
  if (listed_centers_ != g.n_centers || listed_atoms_ != g.n_atoms || listed_.skin != r.skin) return true;
  if (r.reuse == NeighborRequest::Reuse::keep) return false;
  if (r.reuse == NeighborRequest::Reuse::rebuild) return true;
  std::vector<char> periodic;
  if (r.periodic != nullptr) periodic.assign(r.periodic, r.periodic + 3 * g.n_structures);
  std::vector<std::int64_t> first_atom{0, g.n_centers};
  if (r.first_atom != nullptr) first_atom.assign(r.first_atom, r.first_atom + g.n_structures + 1);
  if (periodic != listed_periodic_ || first_atom != listed_first_atom_) return true;
  return list_.moved_too_far(frame_.positions, g.cells);
}

// Rows of this evaluator's own list.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::list_neighbors() {
  const Geometry& g = *geometry_;
  const NeighborRequest& r = g.neighbors;
  if (!own_list_ || list_is_stale()) {
    ListAtoms atoms;
    atoms.n_centers = g.n_centers;
    atoms.n_atoms = g.n_atoms;
    atoms.positions = frame_.positions;
    atoms.species = frame_.species;
    atoms.n_structures = g.n_structures;
    atoms.first_atom = r.first_atom;
    atoms.cells = g.cells;
    atoms.periodic = r.periodic;
    atoms.n_species = plan_.n_elements;
    atoms.pair_cutoffs = spec_.pair_cutoffs.data();
    // `keep` vouches for positions near those of the caller's last list. Where species changed since, this list begins
    // at positions up to half a skin from those, and both atoms of a pair may still move by a whole one.
    atoms.skin = r.reuse == NeighborRequest::Reuse::keep ? 2.0 * r.skin : r.skin;
    listed_centers_ = -1;
    list_.build(atoms);
    own_list_ = true;
    rows_changed_ = true;
    rows_ = list_.host_first();
    listed_ = r;
    listed_centers_ = g.n_centers;
    listed_atoms_ = g.n_atoms;
    listed_periodic_.clear();
    if (r.periodic != nullptr) listed_periodic_.assign(r.periodic, r.periodic + 3 * g.n_structures);
    listed_first_atom_ = {0, g.n_centers};
    if (r.first_atom != nullptr) listed_first_atom_.assign(r.first_atom, r.first_atom + g.n_structures + 1);
    structure_.clear();
    if (g.n_structures > 1) {
      structure_.resize(g.n_centers);
      for (std::int64_t s = 0; s < g.n_structures; ++s)
        std::fill(structure_.begin() + listed_first_atom_[s], structure_.begin() + listed_first_atom_[s + 1],
                  static_cast<std::int32_t>(s));
    }
  }
  frame_.first = list_.first();
  frame_.neighbor = list_.neighbor();
  frame_.shift = list_.shift();
  if (frame_.shift == nullptr) return;
  if (positions_.reserve_roomy(3 * g.n_atoms)) ++epoch_;
  list_.wrapped_positions(frame_.positions, cells_.data(), positions_.data());
  frame_.positions = positions_.data();
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::set_structures() {
  const Geometry& g = *geometry_;
  frame_.structure = nullptr;
  if (!structure_.empty()) {
    device_structure_.upload(structure_);
    frame_.structure = device_structure_.data();
  }
  frame_.owner = nullptr;
  if (g.owner != nullptr) {
    owner_.upload(g.owner, g.n_atoms);
    frame_.owner = owner_.data();
  }
  // Pieces of the virial sum: one structure each, in order.
  host_pieces_.clear();
  std::vector<std::int64_t> first_piece{0};
  std::int64_t begin = 0;
  for (std::int64_t s = 0; s < g.n_structures; ++s) {
    std::int64_t end = g.n_centers;
    if (!structure_.empty())
      end = std::upper_bound(structure_.begin() + begin, structure_.end(), static_cast<std::int32_t>(s)) -
            structure_.begin();
    for (; begin < end; begin += virial_piece_atoms)
      host_pieces_.push_back({begin, std::min(end, begin + virial_piece_atoms)});
    begin = end;
    first_piece.push_back(static_cast<std::int64_t>(host_pieces_.size()));
  }
  pieces_.upload(host_pieces_);
  first_piece_.upload(first_piece);
}

template <class Device, class Real>
std::vector<std::int32_t> DeviceEvaluator<Device, Real>::wanted_centers() const {
  const Geometry& g = *geometry_;
  std::vector<std::int32_t> wanted;
  if (g.selection == nullptr) {
    wanted.resize(g.n_centers);
    std::iota(wanted.begin(), wanted.end(), 0);
  } else {
    wanted.assign(g.selection, g.selection + g.n_selected);
    for (std::int32_t i : wanted)
      require(i >= 0 && i < g.n_centers, "selection: atom ", i, " is outside [0, ", g.n_centers, ")");
    std::sort(wanted.begin(), wanted.end());
    require(std::adjacent_find(wanted.begin(), wanted.end()) == wanted.end(), "selection: an atom is listed twice");
  }
  wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](std::int32_t i) { return species_[i] < 0; }),
               wanted.end());
  return wanted;
}

// Layer 1 is needed for the wanted centres and for the centres their neighbours are (images of).
template <class Device, class Real>
std::vector<std::int32_t> DeviceEvaluator<Device, Real>::message_centers(const std::vector<std::int32_t>& wanted) {
  const Geometry& g = *geometry_;
  const std::size_t n_pairs = rows_.empty() ? 0 : rows_.back();
  std::vector<std::int32_t> neighbor(n_pairs);
  device_.download(neighbor.data(), frame_.neighbor, n_pairs * sizeof(std::int32_t));
  device_.synchronize();
  std::vector<char> needed(g.n_centers, 0);
  for (std::int32_t i : wanted) {
    needed[i] = 1;
    for (std::int64_t p = rows_[i]; p < rows_[i + 1]; ++p) {
      const std::int64_t j = g.owner == nullptr ? neighbor[p] : g.owner[neighbor[p]];
      if (j < g.n_centers && species_[j] >= 0) needed[j] = 1;
    }
  }
  std::vector<std::int32_t> centers;
  for (std::int64_t i = 0; i < g.n_centers; ++i)
    if (needed[i] != 0) centers.push_back(static_cast<std::int32_t>(i));
  return centers;
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::set_chunks(Chunks& chunks, const std::vector<std::int32_t>& centers) {
  chunks.host = make_schedule(centers, species_, rows_, plan_.n_elements, chunk_atoms_);
  chunks.centers.upload(chunks.host.centers);
  chunks.species.upload(chunks.host.species);
  chunks.slot.upload(chunks.host.slot);
  chunks.tiles.upload(chunks.host.tiles);
}

template <class Device, class Real>
Chunk DeviceEvaluator<Device, Real>::Chunks::chunk(int index) const {
  Chunk c;
  const std::int64_t begin = host.first[index];
  c.n_atoms = static_cast<int>(host.first[index + 1] - begin);
  c.centers = centers.data() + begin;
  c.species = species.data() + begin;
  c.slot = slot.data() + begin + index;
  c.n_slots = host.slot[host.first[index + 1] + index];
  c.n_tiles = static_cast<int>(host.first_tile[index + 1] - host.first_tile[index]);
  c.tiles = tiles.data() + host.first_tile[index];
  return c;
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::schedule() {
  const Geometry& g = *geometry_;
  std::vector<std::int32_t> selection;
  if (g.selection != nullptr) selection.assign(g.selection, g.selection + g.n_selected);
  if (!rows_changed_ && selected_ == (g.selection != nullptr) && selection == selection_) return;
  ++epoch_;
  const std::vector<std::int32_t> wanted = wanted_centers();
  chunks_differ_ = plan_.layers.size() > 1 && g.selection != nullptr;
  set_chunks(chunks_, wanted);
  if (chunks_differ_) set_chunks(first_chunks_, message_centers(wanted));
  set_structures();
  selection_ = std::move(selection);
  selected_ = g.selection != nullptr;
  rows_changed_ = false;
}

}  // namespace grace::gpu
