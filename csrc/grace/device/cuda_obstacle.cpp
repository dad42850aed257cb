#include <sstream>

#include "grace/device/cuda_probe.hpp"

namespace grace::device {
namespace {

constexpr int no_device_error = 100;           // cudaErrorNoDevice
constexpr int insufficient_driver_error = 35;  // cudaErrorInsufficientDriver
constexpr int oldest_capability = 80;          // cp.async, mma in TF32 (tools/cmake/GraceCuda.cmake)

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }
std::string capability(int number) { return std::to_string(number / 10) + "." + std::to_string(number % 10); }

// Oldest driver branch for all toolkits of a major version.
std::string driver_branch(int runtime_version) {
  switch (runtime_version / 1000) {
    case 12:
      return " (driver r525 or newer)";
    case 13:
      return " (driver r580 or newer)";
    default:
      return "";
  }
}

// Machine code runs on devices of the same major capability that are not older, the PTX of the oldest architecture on
// everything from there on.
bool has_code_for(const CudaFacts& facts, int device) {
  return !facts.architectures.empty() && device >= facts.architectures.front();
}

}  // namespace

std::string cuda_obstacle(const CudaFacts& facts, int index) {
  std::ostringstream text;
  if (!facts.built) {
    text << "device cuda: this grace_md was built without CUDA; reinstall with GRACE_CUDA=ON";
  } else if (facts.driver_version == 0) {
    text << "device cuda: no NVIDIA driver found; install the driver of the GPU, or use device cpu";
  } else if (facts.error == insufficient_driver_error) {
    text << "device cuda: the NVIDIA driver supports CUDA " << version(facts.driver_version) << " but this build needs "
         << version(facts.runtime_version) << driver_branch(facts.runtime_version)
         << "; update the driver, or rebuild with an older CUDA toolkit";
  } else if (facts.error == no_device_error || (facts.error == 0 && facts.n_devices == 0)) {
    text << "device cuda: no GPU visible; check CUDA_VISIBLE_DEVICES and whether the job was given a GPU";
  } else if (facts.error != 0) {
    text << "device cuda: CUDA could not be started: " << facts.error_text << " (error " << facts.error
         << "); check that nvidia-smi lists the GPU";
  } else if (index < 0 || index >= facts.n_devices) {
    text << "device cuda:" << index << " requested, " << facts.n_devices << " visible; check CUDA_VISIBLE_DEVICES";
  } else if (const int found = facts.capabilities[index]; !has_code_for(facts, found)) {
    text << "device cuda:" << index << " has compute capability " << capability(found) << ", this build has code for";
    const char* separator = " ";
    for (int built : facts.architectures) {
      text << separator << capability(built);
      separator = ", ";
    }
    if (found >= oldest_capability)
      text << "; reinstall with GRACE_CUDA_ARCHITECTURES=" << found;
    else
      text << "; GPUs from " << capability(oldest_capability) << " on can be used, or device cpu";
  }
  return text.str();
}

}  // namespace grace::device
