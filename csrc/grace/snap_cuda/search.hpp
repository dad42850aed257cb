// Neighbours of the atoms of small cells on a device, by enumeration of periodic images.
#pragma once

#include <cstdint>

#include "grace/neighbors_cuda/scan_kernels.hpp"
#include "grace/snap_cuda/layout.hpp"

namespace grace::snap {

// first [n_entries + 1]: pairs before each entry, and all of them. totals [gpu::scan_memory(n_entries + 1)].
template <class Device>
void count_pairs(Device& device, const DeviceBatch& batch, std::int64_t n_entries, std::int64_t* first,
                 std::int64_t* totals);

// pairs.numbers of the pairs that fit; *coincident: the least structure with atoms in one place, where there is one.
template <class Device>
void store_pairs(Device& device, const DeviceBatch& batch, const DevicePairs& pairs, double rmin0,
                 std::uint64_t* coincident);

}  // namespace grace::snap
