// Neighbour lists built on a device: the pairs of neighbors.hpp, as compressed rows in device memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace grace::gpu {

// Atoms to list. Centres come first; ghosts (n_atoms > n_centers) only where there are no periodic images.
struct ListAtoms {
  std::int64_t n_centers = 0;
  std::int64_t n_atoms = 0;
  const double* positions = nullptr;      // device, [n_atoms][3], A; may lie outside the cell
  const std::int32_t* species = nullptr;  // device, [n_atoms]; -1: never listed, neither as centre nor as neighbour
  std::int64_t n_structures = 1;
  const std::int64_t* first_atom = nullptr;  // host, [n_structures + 1]; nullptr: one structure
  const double* cells = nullptr;             // host, [n_structures][3][3]; needed with periodic
  const bool* periodic = nullptr;            // host, [n_structures][3]; nullptr: no images at all
  int n_species = 0;
  const double* pair_cutoffs = nullptr;  // host, [n_species][n_species], A, row = centre
  double skin = 0.0;
};

template <class Device>
class DeviceNeighborList {
 public:
  explicit DeviceNeighborList(Device& device);
  ~DeviceNeighborList();

  // Throws Error for non-finite positions or cells, a periodic cell of zero volume, images beyond 511 and negative
  // skin, naming the atom or structure. Rows are in a deterministic order.
  void build(const ListAtoms& atoms);

  // Rows of the centres; pointers stay valid until the next build.
  const std::int64_t* first() const;     // device, [n_centers + 1]
  const std::int32_t* neighbor() const;  // device, [n_pairs]
  const std::int32_t* shift() const;     // device, [n_pairs] packed images relative to wrapped positions; nullptr: none
  const std::vector<std::int64_t>& host_first() const;
  const std::int32_t* wrap() const;  // device, [n_atoms][3]: wrapped position = position - wrap . cell

  // out[n_atoms][3] (device) = positions - wrap . cell with the wraps found by build: what shift() counts from. A plain
  // copy without images. cells: device.
  void wrapped_positions(const double* positions, const double* cells, double* out) const;

  // Could a pair within its cutoff be missing at these positions (device) and cells (host)? As
  // max_displacement_exceeds of neighbors.hpp. Waits for the device.
  bool moved_too_far(const double* positions, const double* cells) const;

  std::size_t bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace grace::gpu
