#include "grace/device/cuda_context.cuh"

#include "grace/device/failure.hpp"

namespace grace::device {
namespace {

// Whether somebody uses this GPU in this process. cudaSetDevice() would make it so, at half a gigabyte of GPU memory.
bool is_in_use(int index) {
  using PrimaryContextState = int (*)(int device, unsigned* flags, int* active);
  static const PrimaryContextState state = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult answer{};
#if CUDART_VERSION >= 12050
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &found, 12000, cudaEnableDefault, &answer);
#else
    const cudaError_t error = cudaGetDriverEntryPoint("cuDevicePrimaryCtxGetState", &found, cudaEnableDefault, &answer);
#endif
    return reinterpret_cast<PrimaryContextState>(error == cudaSuccess ? found : nullptr);
  }();
  unsigned flags = 0;
  int active = 0;
  return state != nullptr && state(index, &flags, &active) == 0 && active != 0;
}

}  // namespace

CurrentDevice::CurrentDevice(int index) : index_(index), before_(index) {
  if (cudaGetDevice(&before_) != cudaSuccess) before_ = index;
  // Also when it is the current one already: a new thread has none before this call, only the number 0.
  cudaSetDevice(index);
}

CurrentDevice::~CurrentDevice() {
  if (before_ != index_ && is_in_use(before_)) cudaSetDevice(before_);
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
