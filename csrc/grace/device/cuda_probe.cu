#include "grace/device/cuda_probe.hpp"

#include <cuda_runtime.h>

#include <cstdio>
#include <exception>
#include <sstream>

namespace grace::device {
namespace {

// Asks the runtime; a failure there is a fact like others.
CudaFacts ask(std::vector<std::string>& names, std::vector<std::string>& places) {
  CudaFacts facts;
  facts.built = true;
  std::istringstream list(GRACE_CUDA_ARCHITECTURES);
  for (int architecture = 0; list >> architecture;) facts.architectures.push_back(architecture);
  if (cudaDriverGetVersion(&facts.driver_version) != cudaSuccess) facts.driver_version = 0;
  if (cudaRuntimeGetVersion(&facts.runtime_version) != cudaSuccess) facts.runtime_version = CUDART_VERSION;
  const cudaError_t error = cudaGetDeviceCount(&facts.n_devices);
  facts.error = static_cast<int>(error);
  facts.error_text = cudaGetErrorString(error);
  if (error != cudaSuccess) facts.n_devices = 0;
  for (int device = 0; device < facts.n_devices; ++device) {
    int major = 0, minor = 0;
    cudaDeviceProp properties{};
    const bool answered = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
                          cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
                          cudaGetDeviceProperties(&properties, device) == cudaSuccess;
    facts.capabilities.push_back(answered ? 10 * major + minor : 0);
    names.push_back(answered ? properties.name : "does not answer");
    char place[32];
    std::snprintf(place, sizeof(place), "%04x:%02x:%02x", static_cast<unsigned>(properties.pciDomainID),
                  static_cast<unsigned>(properties.pciBusID), static_cast<unsigned>(properties.pciDeviceID));
    places.emplace_back(place);
  }
  cudaGetLastError();  // what failed here must not be found by a later call
  return facts;
}

CudaProbe probe() {
  CudaProbe result;
  result.built = true;
  result.architectures = GRACE_CUDA_ARCHITECTURES;
  try {
    result.facts = ask(result.names, result.places);
    for (int device = 0; device < result.facts.n_devices; ++device)
      result.n_devices += cuda_obstacle(result.facts, device).empty();
    if (result.n_devices == 0) result.reason = cuda_obstacle(result.facts, 0);
  } catch (const std::exception& failure) {
    result.n_devices = 0;
    result.reason = std::string("device cuda: the GPUs could not be listed: ") + failure.what();
  }
  return result;
}

}  // namespace

const CudaProbe& cuda_probe() {
  static const CudaProbe once = probe();
  return once;
}

}  // namespace grace::device
