#include "grace/device/emulated_device.hpp"
#include "grace/snap_cuda/search_kernels.hpp"

// Compiled with the neighbour lists.
namespace grace::gpu {
extern template void exclusive_scan(device::EmulatedDevice&, std::int64_t*, std::int64_t, std::int64_t*);
}

namespace grace::snap {

using device::EmulatedDevice;

template void count_pairs(EmulatedDevice&, const DeviceBatch&, std::int64_t, std::int64_t*, std::int64_t*);
template void store_pairs(EmulatedDevice&, const DeviceBatch&, const DevicePairs&, double, std::uint64_t*);

}  // namespace grace::snap
