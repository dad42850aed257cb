#include "grace/device/cuda_context.cuh"

#include "grace/device/failure.hpp"

namespace grace::device {
namespace {

// A function of the driver, which this library is not linked to; nullptr where there is none.
void* driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult answer{};
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &answer);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &answer);
#endif
  return error == cudaSuccess ? found : nullptr;
}

struct ContextFunctions {
  using Get = int (*)(void** context);
  using Set = int (*)(void* context);
  Get get = reinterpret_cast<Get>(driver_function("cuCtxGetCurrent"));
  Set set = reinterpret_cast<Set>(driver_function("cuCtxSetCurrent"));
};

const ContextFunctions& contexts() {
  static const ContextFunctions found;
  return found;
}

}  // namespace

CurrentDevice::CurrentDevice(int index) {
  const ContextFunctions& driver = contexts();
  const bool known = driver.get != nullptr && driver.set != nullptr && driver.get(&before_) == 0;
  // Also when it is the current one already: a new thread has none before this call, only the number 0.
  cudaSetDevice(index);
  void* now = nullptr;
  restore_ = known && driver.get(&now) == 0 && now != before_;
  if (before_ == nullptr && index == 0) restore_ = false;  // what would be chosen next anyway
}

CurrentDevice::~CurrentDevice() {
  if (restore_) contexts().set(before_);
}

void CudaErrors::fail(cudaError_t error, const char* doing) {
  cudaGetLastError();
  const std::string name = std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
  // After an illegal access or with a lost device every call fails, also this harmless one (which may be refused while
  // work is recorded).
  std::size_t free = 0, total = 0;
  const cudaError_t again = cudaMemGetInfo(&free, &total);
  cudaGetLastError();
  if (again == cudaSuccess || again == cudaErrorStreamCaptureUnsupported || again == cudaErrorStreamCaptureInvalidated)
    throw Error("internal error: " + std::string(doing) + " failed on " + device_ + ": " + name);
  lost_ = device_lost(device_, kernel_, doing, name);
  throw Error(lost_);
}

}  // namespace grace::device
