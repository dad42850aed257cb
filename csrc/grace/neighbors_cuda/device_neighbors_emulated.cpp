#include "grace/device/emulated_device.hpp"
#include "grace/neighbors_cuda/device_neighbors_kernels.hpp"
#include "grace/neighbors_cuda/host_list.hpp"

namespace grace::gpu {

template class DeviceNeighborList<device::EmulatedDevice>;
template void exclusive_scan(device::EmulatedDevice&, std::int64_t*, std::int64_t, std::int64_t*);

NeighborList build_neighbors_emulated(std::uint64_t seed, const StructureBatch& batch, int n_species,
                                      const double* pair_cutoffs, double skin) {
  device::EmulatedDevice device(seed);
  return build_neighbors_on(device, batch, n_species, pair_cutoffs, skin);
}

}  // namespace grace::gpu
