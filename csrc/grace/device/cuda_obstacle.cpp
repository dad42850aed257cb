#include "grace/device/cuda_probe.hpp"

namespace grace::device {

std::string cuda_obstacle(const CudaFacts& facts, int) {
  if (!facts.built) return "device cuda: this grace_md was built without CUDA; reinstall with GRACE_CUDA=ON";
  return "";
}

}  // namespace grace::device
