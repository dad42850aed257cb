#include "grace/device/emulated_device.hpp"

#include <new>

namespace grace::device {

EmulatedDevice::EmulatedDevice(std::uint64_t seed, std::size_t memory_bytes)
    : seed_(seed), random_(static_cast<std::mt19937::result_type>(seed)), memory_bytes_(memory_bytes) {}

EmulatedDevice::~EmulatedDevice() {
  for (const auto& [memory, bytes] : sizes_) ::operator delete(memory, std::align_val_t(256));
}

void* EmulatedDevice::allocate(std::size_t bytes, const char* what) {
  require(bytes <= free_bytes(), "out of device memory: ", what, " need ", bytes / 1.0e9,
          " GB, the emulated device has ", free_bytes() / 1.0e9, " GB free");
  void* memory = ::operator new(bytes > 0 ? bytes : 1, std::align_val_t(256));
  std::memset(memory, 0xff, bytes);
  sizes_[memory] = bytes;
  allocated_ += bytes;
  return memory;
}

void EmulatedDevice::release(void* memory) {
  const auto found = sizes_.find(memory);
  if (found == sizes_.end()) return;
  allocated_ -= found->second;
  sizes_.erase(found);
  ::operator delete(memory, std::align_val_t(256));
}

std::vector<KernelTime> EmulatedDevice::profile() const {
  std::vector<KernelTime> times;
  for (const auto& [name, launches] : launches_) times.push_back({name, launches, 0.0});
  return times;
}

}  // namespace grace::device
