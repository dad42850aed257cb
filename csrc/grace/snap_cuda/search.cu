#include "grace/device/cuda_launch.cuh"
#include "grace/snap_cuda/search_kernels.hpp"

// Compiled with the neighbour lists.
namespace grace::gpu {
extern template void exclusive_scan(device::CudaDevice&, std::int64_t*, std::int64_t, std::int64_t*);
}

namespace grace::snap {

using device::CudaDevice;

template void count_pairs(CudaDevice&, const DeviceBatch&, std::int64_t, std::int64_t*, std::int64_t*);
template void store_pairs(CudaDevice&, const DeviceBatch&, const DevicePairs&, double, std::uint64_t*);

}  // namespace grace::snap
