// DeviceNeighborList. Two waits for the device: ranges and validity of the positions, and the lengths of the rows.
#pragma once

#include <algorithm>
#include <limits>
#include <string>

#include "grace/device/buffer.hpp"
#include "grace/error.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/neighbors_cuda/device_neighbors.hpp"
#include "grace/neighbors_cuda/motion_kernels.hpp"
#include "grace/neighbors_cuda/scan_kernels.hpp"
#include "grace/neighbors_cuda/search_kernels.hpp"

namespace grace::gpu {

template <class Device>
struct DeviceNeighborList<Device>::State {
  template <class T>
  using Buffer = device::Buffer<Device, T>;

  explicit State(Device& target) : device(target) {}

  Device& device;

  // What the list was built for.
  bool is_built = false;
  bool has_images = false;
  std::int64_t n_centers = 0, n_atoms = 0;
  std::vector<std::int64_t> first_atom;
  std::vector<double> cells;
  std::unique_ptr<bool[]> periodic;
  StructureBatch batch;  // of the three above; positions and species stay on the device
  double skin = 0.0, smallest_cutoff = 0.0, largest_cutoff = 0.0;  // without skin; 0: nothing is listed
  std::vector<std::int64_t> host_first;

  Buffer<double> built{device, "the neighbour list (positions)"};
  Buffer<double> fractional{device, "the neighbour list (fractional coordinates)"};
  Buffer<std::int32_t> wrap{device, "the neighbour list (wraps)"};
  Buffer<std::int32_t> structure{device, "the neighbour list (structures)"};
  Buffer<ListFrame> frames{device, "the neighbour list (cells)"};
  Buffer<ListPiece> pieces{device, "the neighbour list (pieces)"};
  Buffer<std::int64_t> first_piece{device, "the neighbour list (pieces)"};
  Buffer<double> piece_ranges{device, "the neighbour list (ranges)"};
  Buffer<double> ranges{device, "the neighbour list (ranges)"};
  Buffer<double> maps{device, "the neighbour list (deformations)"};
  Buffer<double> allowed{device, "the neighbour list (margins)"};
  Buffer<std::uint64_t> flag{device, "the neighbour list (flags)"};
  Buffer<ListBins> bins{device, "the neighbour list (bins)"};
  Buffer<std::int64_t> bin{device, "the neighbour list (bins of atoms)"};
  Buffer<std::int64_t> start{device, "the neighbour list (bins)"};
  Buffer<int> filled{device, "the neighbour list (bins)"};
  Buffer<std::int32_t> members{device, "the neighbour list (bins)"};
  Buffer<BinnedAtom> binned{device, "the neighbour list (atoms in bins)"};
  Buffer<double> squared_cutoffs{device, "the neighbour list (cutoffs)"};
  Buffer<std::int64_t> totals{device, "the neighbour list (prefix sums)"};
  Buffer<std::int64_t> first{device, "the neighbour list (rows)"};
  Buffer<std::int32_t> neighbor{device, "the neighbour list (neighbours)"};
  Buffer<std::int32_t> shift{device, "the neighbour list (images)"};

  std::size_t bytes() const {
    const auto size = [](const auto&... buffers) { return (... + (buffers.size() * sizeof(*buffers.data()))); };
    return size(built, fractional, wrap, structure, frames, pieces, first_piece, piece_ranges, ranges, maps, allowed,
                flag, bins, bin, start, filled, members, binned, squared_cutoffs, totals, first, neighbor, shift);
  }

  std::int64_t n_structures() const { return batch.n_structures; }
  device::Grid one_block_each(std::int64_t n) const { return {static_cast<unsigned>(n)}; }

  // Copies what the caller may change before the next call.
  void take(const ListAtoms& atoms) {
    require(atoms.n_centers >= 0 && atoms.n_atoms >= atoms.n_centers, "`n_atoms` = ", atoms.n_atoms,
            " must be at least `n_centers` = ", atoms.n_centers);
    require(atoms.n_atoms <= kMaxAtoms, "a list holds at most ", kMaxAtoms, " atoms, got ", atoms.n_atoms);
    require(atoms.n_structures >= 0 && atoms.n_structures <= kMaxAtoms, "`n_structures` must be in [0, ", kMaxAtoms,
            "], got ", atoms.n_structures);
    require(atoms.n_atoms == atoms.n_centers || (atoms.n_structures == 1 && atoms.periodic == nullptr),
            "a list of atoms with ghosts holds one structure without periodic images, got ", atoms.n_structures,
            " structures; leave the ghosts out or give no `periodic`");
    require(atoms.periodic == nullptr || atoms.cells != nullptr || atoms.n_structures == 0,
            "periodic structures need `cells`");
    const bool single = atoms.first_atom == nullptr || atoms.n_atoms > atoms.n_centers;
    require(!single || atoms.n_structures <= 1, "a list of ", atoms.n_structures, " structures needs `first_atom`");
    n_centers = atoms.n_centers;
    n_atoms = atoms.n_atoms;
    has_images = atoms.periodic != nullptr;
    const std::size_t n = atoms.n_structures;
    if (single)
      first_atom = {0, n_atoms};
    else
      first_atom.assign(atoms.first_atom, atoms.first_atom + n + 1);
    cells.assign(9 * n, 0.0);
    periodic = std::make_unique<bool[]>(3 * n);
    if (has_images) {
      std::copy_n(atoms.cells, 9 * n, cells.begin());
      std::copy_n(atoms.periodic, 3 * n, periodic.get());
    }
    batch.n_structures = static_cast<int>(n);
    batch.first_atom = first_atom.data();
    batch.cells = cells.data();
    batch.periodic = periodic.get();
    check_structures(batch);
    require(n > 0 ? first_atom[n] == n_atoms : n_atoms == 0, "`first_atom` must end with the number of atoms, ",
            n_atoms, ", got ", n > 0 ? first_atom[n] : 0);
  }

  void set_cutoffs(const ListAtoms& atoms) {
    skin = atoms.skin;
    smallest_cutoff = std::numeric_limits<double>::infinity();
    largest_cutoff = 0.0;
    for (int k = 0; k < atoms.n_species * atoms.n_species; ++k)
      if (atoms.pair_cutoffs[k] > 0.0) {
        smallest_cutoff = std::min(smallest_cutoff, atoms.pair_cutoffs[k]);
        largest_cutoff = std::max(largest_cutoff, atoms.pair_cutoffs[k]);
      }
  }

  // Wraps the atoms; throws for the first one that cannot be listed.
  void wrap_atoms(const ListAtoms& atoms, const std::vector<ListFrame>& host_frames, std::int64_t n_pieces,
                  bool want_ranges, std::vector<double>& host_ranges) {
    const std::uint64_t none = ~std::uint64_t{0};
    std::uint64_t bad = none;
    flag.upload(&none, 1);
    device.launch(
        WrapAtoms{atoms.positions, atoms.species, frames.data(), pieces.data(), atoms.n_species, kMaxCoordinate,
                  built.data(), fractional.data(), wrap.data(), structure.data(), flag.data()},
        one_block_each(n_pieces));
    if (want_ranges) find_ranges(StoredVector{fractional.data()}, n_pieces);
    flag.download(&bad, 1);
    if (want_ranges) ranges.download(host_ranges.data(), host_ranges.size());
    device.synchronize();
    if (bad != none) report(atoms, host_frames, static_cast<std::int64_t>(bad));
  }

  [[noreturn]] void report(const ListAtoms& atoms, const std::vector<ListFrame>& host_frames, std::int64_t i) {
    double r[3], wrapped[3], f[3];
    std::int32_t species = 0;
    int n[3];
    device.download(r, built.data() + 3 * i, sizeof(r));
    device.download(&species, atoms.species + i, sizeof(species));
    device.synchronize();
    const int s = static_cast<int>(std::upper_bound(first_atom.begin(), first_atom.end(), i) - first_atom.begin()) - 1;
    const std::int64_t local = i - first_atom[s];
    if (species < 0)
      check_atom(batch, s, local, r, 0, 1);
    else
      check_atom(batch, s, local, r, species, atoms.n_species);
    const ListFrame& frame = host_frames[s];
    const int direction = math::wrap_into_cell(r, frame.cell, frame.inverse, frame.periodic, n, wrapped, f);
    report_far_outside(batch, s, local, std::max(direction, 0), f[std::max(direction, 0)]);
  }

  template <class Vector>
  void find_ranges(const Vector& vector, std::int64_t n_pieces) {
    constexpr int threads = PieceRanges<Vector>::threads;
    piece_ranges.reserve_roomy(6 * n_pieces);
    ranges.reserve(6 * n_structures());
    const std::size_t shared = 2 * device::shared_size<double>(3 * threads);
    device.launch(PieceRanges<Vector>{vector, pieces.data(), piece_ranges.data()}, one_block_each(n_pieces), shared);
    device.launch(StructureRanges{first_piece.data(), piece_ranges.data(), ranges.data()},
                  one_block_each(n_structures()), shared);
  }

  void scan(std::int64_t* values, std::int64_t n) {
    totals.reserve_roomy(scan_memory(n));
    exclusive_scan(device, values, n, totals.data());
  }

  void sort_into_bins(const ListAtoms& atoms, std::int64_t n_bins) {
    const device::Grid grid{device::blocks_for(n_atoms, CountBins::threads)};
    bin.reserve_roomy(n_atoms);
    members.reserve_roomy(n_atoms);
    binned.reserve_roomy(n_atoms);
    start.reserve_roomy(n_bins + 1);
    filled.reserve_roomy(n_bins);
    device.fill_zero(start.data(), (n_bins + 1) * sizeof(std::int64_t));
    device.fill_zero(filled.data(), n_bins * sizeof(int));
    device.launch(CountBins{built.data(), atoms.species, wrap.data(), structure.data(), frames.data(), bins.data(),
                            n_atoms, bin.data(), start.data()},
                  grid);
    scan(start.data(), n_bins + 1);
    device.launch(FillBins{bin.data(), start.data(), filled.data(), n_atoms, members.data()}, grid);
    device.launch(OrderBins{built.data(), atoms.species, wrap.data(), structure.data(), frames.data(), bin.data(),
                            start.data(), members.data(), n_atoms, n_bins, binned.data()},
                  grid);
  }

  void list_pairs(int n_species, std::int64_t n_bins) {
    SearchPairs search{};
    search.frames = frames.data();
    search.bins = bins.data();
    search.structure = structure.data();
    search.start = start.data();
    search.binned = binned.data();
    search.squared_cutoffs = squared_cutoffs.data();
    search.n_species = n_species;
    search.n_centers = n_centers;
    search.n_bins = n_bins;
    search.counts = first.data();
    const device::Grid grid{device::blocks_for(n_atoms, SearchPairs::threads)};
    device.launch(search, grid);
    scan(first.data(), n_centers + 1);
    first.download(host_first.data(), host_first.size());
    device.synchronize();
    const std::int64_t n_pairs = host_first.back();
    if (n_pairs == 0) return;
    neighbor.reserve_roomy(n_pairs);
    if (has_images) shift.reserve_roomy(n_pairs);
    search.rows = first.data();
    search.neighbor = neighbor.data();
    search.shift = has_images ? shift.data() : nullptr;
    device.launch(search, grid);
    device.launch(SortRows{search.rows, search.neighbor, search.shift}, one_block_each(n_centers),
                  SortRows::shared_bytes());
  }
};

template <class Device>
DeviceNeighborList<Device>::DeviceNeighborList(Device& device) : state_(std::make_unique<State>(device)) {}

template <class Device>
DeviceNeighborList<Device>::~DeviceNeighborList() = default;

template <class Device>
void DeviceNeighborList<Device>::build(const ListAtoms& atoms) {
  State& s = *state_;
  s.is_built = false;
  const Cutoffs cutoffs = make_cutoffs(atoms.n_species, atoms.pair_cutoffs, atoms.skin);
  s.take(atoms);
  s.set_cutoffs(atoms);
  const double search_radius = cutoffs.largest > 0.0 ? cutoffs.largest : 1.0;  // wraps are wanted even if no pair is
  const std::vector<ListFrame> frames = make_frames(s.batch, search_radius);
  s.host_first.assign(s.n_centers + 1, 0);
  s.first.reserve_roomy(s.n_centers + 1);
  s.device.fill_zero(s.first.data(), (s.n_centers + 1) * sizeof(std::int64_t));
  // There is always memory to point at, so that shift() says whether there are images.
  s.neighbor.reserve(1);
  s.shift.reserve(1);
  if (s.n_atoms == 0) {
    s.is_built = true;
    return;
  }
  std::vector<std::int64_t> first_piece;
  const std::vector<ListPiece> pieces = make_pieces(s.batch, first_piece);
  s.frames.upload(frames);
  s.pieces.upload(pieces);
  s.first_piece.upload(first_piece);
  s.built.reserve_roomy(3 * s.n_atoms);
  s.fractional.reserve_roomy(3 * s.n_atoms);
  s.wrap.reserve_roomy(3 * s.n_atoms);
  s.structure.reserve_roomy(s.n_atoms);

  const std::size_t n = s.n_structures();
  const bool open = !std::all_of(s.periodic.get(), s.periodic.get() + 3 * n, [](bool p) { return p; });
  std::vector<double> ranges(6 * n, 0.0), low(3 * n), high(3 * n);
  s.wrap_atoms(atoms, frames, static_cast<std::int64_t>(pieces.size()), open && cutoffs.largest > 0.0, ranges);
  s.is_built = true;
  if (!(cutoffs.largest > 0.0)) return;

  for (std::size_t k = 0; k < 3 * n; ++k) {
    low[k] = ranges[k / 3 * 6 + k % 3];
    high[k] = ranges[k / 3 * 6 + 3 + k % 3];
  }
  std::int64_t n_bins = 0;
  s.bins.upload(make_bins(s.batch, frames, search_radius, low, high, n_bins));
  s.squared_cutoffs.upload(cutoffs.squared);
  s.is_built = false;
  s.sort_into_bins(atoms, n_bins);
  s.list_pairs(atoms.n_species, n_bins);
  s.is_built = true;
}

template <class Device>
const std::int64_t* DeviceNeighborList<Device>::first() const {
  return state_->first.data();
}

template <class Device>
const std::int32_t* DeviceNeighborList<Device>::neighbor() const {
  return state_->neighbor.data();
}

template <class Device>
const std::int32_t* DeviceNeighborList<Device>::shift() const {
  return state_->has_images ? state_->shift.data() : nullptr;
}

template <class Device>
const std::vector<std::int64_t>& DeviceNeighborList<Device>::host_first() const {
  return state_->host_first;
}

template <class Device>
const std::int32_t* DeviceNeighborList<Device>::wrap() const {
  return state_->wrap.data();
}

template <class Device>
void DeviceNeighborList<Device>::wrapped_positions(const double* positions, const double* cells, double* out) const {
  State& s = *state_;
  require(s.is_built, "wrapped positions need a neighbour list; build it first");
  if (!s.has_images) {
    s.device.copy(out, positions, 3 * s.n_atoms * sizeof(double));
    return;
  }
  s.device.launch(WrappedPositions{positions, cells, s.wrap.data(), s.structure.data(), out, s.n_atoms},
                  device::Grid{device::blocks_for(s.n_atoms, WrappedPositions::threads)});
}

template <class Device>
bool DeviceNeighborList<Device>::moved_too_far(const double* positions, const double* cells) const {
  State& s = *state_;
  if (!s.is_built) return true;
  if (!(s.largest_cutoff > 0.0)) return false;
  const std::size_t n = s.n_structures();
  std::vector<double> maps(9 * n), allowed(n);
  for (std::size_t k = 0; k < n; ++k) {
    const double* built_cell = s.cells.data() + 9 * k;
    allowed[k] = allowed_motion(built_cell, s.has_images ? cells + 9 * k : built_cell, s.periodic.get() + 3 * k,
                                s.smallest_cutoff, s.largest_cutoff, s.skin, maps.data() + 9 * k);
    if (!(allowed[k] > 0.0)) return true;
  }
  if (s.n_atoms == 0) return false;
  const std::uint64_t none = ~std::uint64_t{0};
  std::uint64_t moved = none;
  s.maps.upload(maps);
  s.allowed.upload(allowed);
  s.flag.upload(&none, 1);
  std::int64_t n_pieces = 0;
  for (std::size_t k = 0; k < n; ++k)
    n_pieces += (s.first_atom[k + 1] - s.first_atom[k] + kPieceAtoms - 1) / kPieceAtoms;
  const Displacement displacement{s.built.data(), positions, s.maps.data()};
  s.find_ranges(displacement, n_pieces);
  s.device.launch(FindMoved{displacement, s.pieces.data(), s.ranges.data(), s.allowed.data(), s.flag.data()},
                  s.one_block_each(n_pieces));
  s.flag.download(&moved, 1);
  s.device.synchronize();
  return moved != none;
}

template <class Device>
std::size_t DeviceNeighborList<Device>::bytes() const {
  return state_->bytes();
}

}  // namespace grace::gpu
