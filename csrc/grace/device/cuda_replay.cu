#include "grace/device/cuda_replay.cuh"

#include <algorithm>

namespace grace::device {

CudaRecords::Record* CudaRecords::find(std::uint64_t key) {
  for (Record& record : records_)
    if (record.key == key) return &record;
  return nullptr;
}

void CudaRecords::remember(std::uint64_t key) {
  if (records_.size() == most_records) {
    const auto oldest = std::min_element(records_.begin(), records_.end(),
                                         [](const Record& a, const Record& b) { return a.last_use < b.last_use; });
    if (oldest->graph != nullptr) cudaGraphExecDestroy(oldest->graph);
    records_.erase(oldest);
  }
  Record record;
  record.key = key;
  record.last_use = ++clock_;
  records_.push_back(record);
}

CudaRecords::Step CudaRecords::begin(std::uint64_t key, cudaStream_t recorder, cudaStream_t stream) {
  Record* const record = find(key);
  if (record == nullptr) {
    remember(key);
    return Step::run;
  }
  record->last_use = ++clock_;
  if (record->refused) return Step::run;
  if (record->graph != nullptr) {
    errors_.check(cudaGraphLaunch(record->graph, stream), "replaying recorded work");
    return Step::replayed;
  }
  // Thread-local: other threads of the process may allocate meanwhile.
  if (cudaStreamBeginCapture(recorder, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();
    record->refused = true;
    return Step::run;
  }
  recording_ = key;
  return Step::record;
}

bool CudaRecords::end(cudaStream_t recorder, cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t launchable = nullptr;
  const bool recorded = cudaStreamEndCapture(recorder, &graph) == cudaSuccess && graph != nullptr &&
                        cudaGraphInstantiate(&launchable, graph, 0) == cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  Record* const record = find(recording_);
  if (!recorded || record == nullptr) {
    cudaGetLastError();
    if (record != nullptr) record->refused = true;
    return false;
  }
  record->graph = launchable;
  errors_.check(cudaGraphLaunch(launchable, stream), "launching recorded work");
  return true;
}

void CudaRecords::abandon(cudaStream_t recorder) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(recorder, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void CudaRecords::clear() {
  for (const Record& record : records_)
    if (record.graph != nullptr) cudaGraphExecDestroy(record.graph);
  records_.clear();
}

CudaProfile::~CudaProfile() {
  for (const Launch& launch : launches_) {
    if (launch.begin != nullptr) cudaEventDestroy(launch.begin);
    if (launch.end != nullptr) cudaEventDestroy(launch.end);
  }
}

void CudaProfile::start() {
  if (active_) collect();
  active_ = true;
  sums_.clear();
}

void CudaProfile::before(const char* kernel, cudaStream_t stream) {
  if (n_pending_ == most_pending) collect();
  if (n_pending_ == launches_.size()) launches_.emplace_back();
  Launch& launch = launches_[n_pending_];
  for (cudaEvent_t* event : {&launch.begin, &launch.end})
    if (*event == nullptr) errors_.check(cudaEventCreate(event), "creating an event");
  launch.kernel = kernel;
  errors_.check(cudaEventRecord(launch.begin, stream), "starting a timer");
}

void CudaProfile::after(cudaStream_t stream) {
  errors_.check(cudaEventRecord(launches_[n_pending_].end, stream), "stopping a timer");
  ++n_pending_;
}

void CudaProfile::collect() {
  for (; n_pending_ > 0; --n_pending_) {
    const Launch& launch = launches_[n_pending_ - 1];
    float milliseconds = 0.0f;
    errors_.check(cudaEventSynchronize(launch.end), "a timed kernel");
    errors_.check(cudaEventElapsedTime(&milliseconds, launch.begin, launch.end), "reading a timer");
    KernelTime& sum = sums_[launch.kernel];
    sum.name = launch.kernel;
    sum.launches += 1;
    sum.seconds += 1e-3 * static_cast<double>(milliseconds);
  }
}

std::vector<KernelTime> CudaProfile::times() {
  collect();
  std::vector<KernelTime> list;
  for (const auto& [name, time] : sums_) list.push_back(time);
  std::sort(list.begin(), list.end(), [](const KernelTime& a, const KernelTime& b) { return a.seconds > b.seconds; });
  return list;
}

}  // namespace grace::device
