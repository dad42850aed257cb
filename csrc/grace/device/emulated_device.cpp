#include "grace/device/emulated_device.hpp"

#include <cstdlib>
#include <new>

#include "grace/device/failure.hpp"

namespace grace::device {
namespace {

constexpr std::size_t plenty = std::size_t{1} << 40;
constexpr std::size_t shared_bytes_of_h100 = 227 * 1024;

std::string environment(const char* name) {
  const char* word = std::getenv(name);
  return word != nullptr ? word : "";
}

std::size_t bytes_in_environment(const char* name, std::size_t otherwise) {
  const std::string bytes = environment(name);
  return bytes.empty() ? otherwise : std::strtoull(bytes.c_str(), nullptr, 10);
}

}  // namespace

EmulatedDevice::EmulatedDevice(std::uint64_t seed, std::size_t memory_bytes)
    : seed_(seed),
      random_(static_cast<std::mt19937::result_type>(seed)),
      memory_bytes_(memory_bytes > 0 ? memory_bytes : bytes_in_environment("GRACE_MD_EMULATED_MEMORY", plenty)),
      most_shared_bytes_(bytes_in_environment("GRACE_MD_EMULATED_SHARED", shared_bytes_of_h100)),
      fails_in_(environment("GRACE_MD_EMULATED_FAILURE")) {}

EmulatedDevice::~EmulatedDevice() {
  for (const auto& [memory, bytes] : sizes_) ::operator delete(memory, std::align_val_t(256));
}

void* EmulatedDevice::allocate(std::size_t bytes, const char* what) {
  require_usable();
  if (bytes > free_bytes()) throw Error(out_of_memory(what, bytes, name(), free_bytes()));
  void* memory = ::operator new(bytes > 0 ? bytes : 1, std::align_val_t(256));
  poison(memory, bytes);
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

void EmulatedDevice::download(void* to, const void* from, std::size_t bytes) {
  require_usable();
  if (bytes == 0) return;
  const auto* const data = static_cast<const unsigned char*>(from);
  downloads_.push_back({to, {data, data + bytes}});
}

void EmulatedDevice::synchronize() {
  require_usable();
  if (failed_in_ != nullptr) {
    lost_ = device_lost(name(), failed_in_, "waiting for the GPU", "a failure made for a test");
    throw Error(lost_);
  }
  for (const Download& download : downloads_) std::memcpy(download.to, download.data.data(), download.data.size());
  downloads_.clear();
}

std::vector<KernelTime> EmulatedDevice::profile() const {
  std::vector<KernelTime> times;
  for (const auto& [name, launches] : launches_) times.push_back({name, launches, 0.0});
  return times;
}

}  // namespace grace::device
