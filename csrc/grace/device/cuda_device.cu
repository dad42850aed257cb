#include "grace/device/cuda_device.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <set>

#include "grace/device/cuda_context.cuh"
#include "grace/device/cuda_probe.hpp"
#include "grace/device/cuda_replay.cuh"
#include "grace/device/cuda_staging.cuh"
#include "grace/device/failure.hpp"

namespace grace::device {
namespace {

constexpr std::size_t shared_bytes_without_asking = 48 * 1024;

}  // namespace

struct CudaDevice::State {
  explicit State(int device)
      : index(device), errors(device), uploads(errors), downloads(errors), records(errors), profile(errors) {}

  int index;
  std::string name;
  CudaErrors errors;
  CudaStaging uploads, downloads;
  CudaRecords records;
  CudaProfile profile;

  cudaStream_t own = nullptr;
  cudaStream_t stream = nullptr;    // of the caller, or own
  cudaEvent_t hand_over = nullptr;  // from one stream to the next
  bool is_busy = false;             // the stream may have work

  int depth = 0;  // of replay() calls
  bool is_recording = false;
  cudaStream_t stream_before = nullptr;  // recording
  std::vector<void*> release_later;      // while recording

  int most_shared_bytes = 0;
  std::set<const void*> asked;  // kernels that may use all of it
  std::map<void*, std::size_t> sizes;
  std::size_t allocated = 0;

  void stop_recording() {
    is_recording = false;
    stream = stream_before;
    for (void* memory : release_later) cudaFree(memory);
    if (!release_later.empty()) records.clear();
    release_later.clear();
  }
  void outside_recording(const char* what) const {
    require(!is_recording, "internal error: ", what, " in recorded work");
  }
};

CudaDevice::CudaDevice(int index) {
  const std::string obstacle = cuda_obstacle(cuda_probe().facts, index);
  if (!obstacle.empty()) throw Error(obstacle);
  const CurrentDevice current(index);
  state_ = std::make_unique<State>(index);
  State& s = *state_;
  s.name = "cuda:" + std::to_string(index) + " " + cuda_probe().names[index];
  s.errors.check(cudaStreamCreateWithFlags(&s.own, cudaStreamNonBlocking), "creating a stream");
  s.stream = s.own;
  s.errors.check(cudaEventCreateWithFlags(&s.hand_over, cudaEventDisableTiming), "creating an event");
  s.errors.check(cudaDeviceGetAttribute(&s.most_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
                 "asking for the size of shared memory");
}

// Errors are of no use here: of a failed GPU every call reports the failure, at the end of the process the driver may
// be gone already.
CudaDevice::~CudaDevice() {
  State& s = *state_;
  const CurrentDevice current(s.index);
  cudaStreamSynchronize(s.stream);
  for (const auto& [memory, bytes] : s.sizes) cudaFree(memory);
  cudaEventDestroy(s.hand_over);
  s.records.clear();
  cudaStreamDestroy(s.own);
  state_.reset();
  cudaGetLastError();
}

std::string CudaDevice::name() const { return state_->name; }

void* CudaDevice::allocate(std::size_t bytes, const char* what) {
  State& s = *state_;
  s.errors.require_usable();
  s.outside_recording("memory is allocated");
  const CurrentDevice current(s.index);
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, std::max<std::size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(out_of_memory(what, bytes, s.errors.device(), free_bytes()));
  }
  s.errors.check(error, "allocating memory");
  s.sizes[memory] = bytes;
  s.allocated += bytes;
  return memory;
}

void CudaDevice::release(void* memory) {
  State& s = *state_;
  const auto found = s.sizes.find(memory);
  if (found == s.sizes.end()) return;
  s.allocated -= found->second;
  s.sizes.erase(found);
  if (s.is_recording) {
    s.release_later.push_back(memory);
    return;
  }
  const CurrentDevice current(s.index);
  s.records.clear();
  cudaFree(memory);  // waits for the kernels that use it
  cudaGetLastError();
}

std::size_t CudaDevice::allocated_bytes() const { return state_->allocated; }

std::size_t CudaDevice::most_shared_bytes() const { return static_cast<std::size_t>(state_->most_shared_bytes); }

std::size_t CudaDevice::free_bytes() const {
  state_->errors.require_usable();
  const CurrentDevice current(state_->index);
  std::size_t free = 0, total = 0;
  state_->errors.check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

void CudaDevice::upload(void* to, const void* from, std::size_t bytes) {
  State& s = *state_;
  s.errors.require_usable();
  if (bytes == 0) return;
  s.outside_recording("an upload");
  const CurrentDevice current(s.index);
  s.is_busy = true;
  s.uploads.upload(to, from, bytes, s.stream);
}

void CudaDevice::download(void* to, const void* from, std::size_t bytes) {
  State& s = *state_;
  s.errors.require_usable();
  if (bytes == 0) return;
  s.outside_recording("a download");
  const CurrentDevice current(s.index);
  s.is_busy = true;
  s.downloads.download(to, from, bytes, s.stream);
}

void CudaDevice::copy(void* to, const void* from, std::size_t bytes) {
  State& s = *state_;
  s.errors.require_usable();
  if (bytes == 0) return;
  const CurrentDevice current(s.index);
  s.is_busy = true;
  s.errors.check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s.stream), "a copy on the GPU");
}

void CudaDevice::fill_zero(void* to, std::size_t bytes) {
  State& s = *state_;
  s.errors.require_usable();
  if (bytes == 0) return;
  const CurrentDevice current(s.index);
  s.is_busy = true;
  s.errors.check(cudaMemsetAsync(to, 0, bytes, s.stream), "clearing memory");
}

void CudaDevice::synchronize() {
  State& s = *state_;
  s.errors.require_usable();
  s.outside_recording("a wait");
  const CurrentDevice current(s.index);
  s.errors.check(cudaStreamSynchronize(s.stream), "waiting for the GPU");
  s.is_busy = false;
  s.uploads.finish();
  s.downloads.finish();
}

void CudaDevice::use_stream(void* stream) {
  State& s = *state_;
  s.errors.require_usable();
  s.outside_recording("a change of stream");
  const cudaStream_t next = stream != nullptr ? static_cast<cudaStream_t>(stream) : s.own;
  if (next == s.stream) return;
  const CurrentDevice current(s.index);
  if (s.is_busy) {
    s.uploads.leave(s.stream);
    s.downloads.leave(s.stream);
    s.errors.check(cudaEventRecord(s.hand_over, s.stream), "handing work to another stream");
    s.errors.check(cudaStreamWaitEvent(next, s.hand_over, 0), "handing work to another stream");
  }
  s.stream = next;
}

void CudaDevice::end_call(bool failed) noexcept {
  if (failed) state_->downloads.forget();
  try {
    use_stream(nullptr);
  } catch (const std::exception&) {  // of a failed GPU, which the next call reports
    state_->stream = state_->own;
  }
}

bool CudaDevice::begin_replay(std::uint64_t key) {
  State& s = *state_;
  s.errors.require_usable();
  if (++s.depth > 1 || s.profile.active()) return true;
  const CurrentDevice current(s.index);
  s.is_busy = true;
  CudaRecords::Step step;
  try {
    // Recorded on the own stream: the caller's may be the legacy default stream, which cannot be.
    step = s.records.begin(key, s.own, s.stream);
  } catch (...) {
    --s.depth;
    throw;
  }
  if (step == CudaRecords::Step::replayed) {
    --s.depth;
    return false;
  }
  if (step == CudaRecords::Step::record) {
    s.is_recording = true;
    s.stream_before = s.stream;
    s.stream = s.own;
  }
  return true;
}

bool CudaDevice::end_replay() {
  State& s = *state_;
  if (--s.depth > 0 || !s.is_recording) return true;
  const CurrentDevice current(s.index);
  const cudaStream_t recorder = s.own;
  const cudaStream_t stream = s.stream_before;
  bool launched = false;
  try {
    launched = s.records.end(recorder, stream);
  } catch (...) {
    s.stop_recording();
    throw;
  }
  s.stop_recording();
  return launched;
}

void CudaDevice::abandon_replay() {
  State& s = *state_;
  if (--s.depth > 0 || !s.is_recording) return;
  const CurrentDevice current(s.index);
  s.records.abandon(s.own);
  s.stop_recording();
}

void CudaDevice::launch_kernel(const void* function, const char* name, Grid grid, int threads, std::size_t shared_bytes,
                               const void* parameters) {
  State& s = *state_;
  s.errors.require_usable();
  if (grid.x == 0 || grid.y == 0) return;
  require(grid.x <= 0x7fffffffu && grid.y <= 65535, "internal error: kernel ", name, " with ", grid.x, " x ", grid.y,
          " blocks");
  require(shared_bytes <= most_shared_bytes(), "kernel ", name, " needs ", shared_bytes / 1024,
          " kB of shared memory, a block of ", s.name, " has ", s.most_shared_bytes / 1024, " kB; use a GPU with more");
  const CurrentDevice current(s.index);
  if (shared_bytes > shared_bytes_without_asking) {
    // The limit belongs to the kernel and the GPU, not to this object, and the last call counts: always the same
    // number.
    if (s.asked.count(function) == 0) {
      cudaFuncAttributes kernel{};
      s.errors.check(cudaFuncGetAttributes(&kernel, function), name);
      s.errors.check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          s.most_shared_bytes - static_cast<int>(kernel.sharedSizeBytes)),
                     name);
      s.asked.insert(function);
    }
  }
  const bool timed = s.profile.active() && !s.is_recording;
  if (timed) s.profile.before(name, s.stream);
  s.is_busy = true;
  void* arguments[] = {const_cast<void*>(parameters)};
  const cudaError_t error = cudaLaunchKernel(function, dim3(grid.x, grid.y, 1), dim3(static_cast<unsigned>(threads)),
                                             arguments, shared_bytes, s.stream);
  if (error != cudaSuccess) s.errors.check(error, name);
  s.errors.now_running(name);
  if (timed) s.profile.after(s.stream);
}

void CudaDevice::start_profile() {
  state_->errors.require_usable();
  const CurrentDevice current(state_->index);
  state_->profile.start();
}

std::vector<KernelTime> CudaDevice::profile() {
  state_->errors.require_usable();
  const CurrentDevice current(state_->index);
  return state_->profile.times();
}

}  // namespace grace::device
