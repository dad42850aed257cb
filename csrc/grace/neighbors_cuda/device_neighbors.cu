#include "grace/device/cuda_launch.cuh"
#include "grace/neighbors_cuda/device_neighbors_kernels.hpp"
#include "grace/neighbors_cuda/host_list.hpp"

namespace grace::gpu {

template class DeviceNeighborList<device::CudaDevice>;
template void exclusive_scan(device::CudaDevice&, std::int64_t*, std::int64_t, std::int64_t*);

NeighborList build_neighbors_cuda(int index, const StructureBatch& batch, int n_species, const double* pair_cutoffs,
                                  double skin) {
  device::CudaDevice device(index);
  return build_neighbors_on(device, batch, n_species, pair_cutoffs, skin);
}

}  // namespace grace::gpu
