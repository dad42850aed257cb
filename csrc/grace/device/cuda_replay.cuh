// Recorded work (CUDA graphs) and the time of kernels. For the files of device/ only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "grace/device/cuda_context.cuh"
#include "grace/evaluator.hpp"

namespace grace::device {

// Records of work, by key. One that was seen once is remembered without a record.
class CudaRecords {
 public:
  explicit CudaRecords(CudaErrors& errors) : errors_(errors) {}
  CudaRecords(const CudaRecords&) = delete;
  CudaRecords& operator=(const CudaRecords&) = delete;
  ~CudaRecords() { clear(); }

  enum class Step { run, record, replayed };
  // What is to be done with work `key`: run it, run it into `recorder` (then end()), or nothing, because its record was
  // launched on `stream`.
  Step begin(std::uint64_t key, cudaStream_t recorder, cudaStream_t stream);
  // Launches what was recorded; false: it could not be, run the work.
  bool end(cudaStream_t recorder, cudaStream_t stream);
  void abandon(cudaStream_t recorder);
  void clear();

 private:
  static constexpr std::size_t most_records = 16;
  struct Record {
    std::uint64_t key = 0;
    cudaGraphExec_t graph = nullptr;
    bool refused = false;  // cannot be recorded
    std::uint64_t last_use = 0;
  };

  Record* find(std::uint64_t key);
  void remember(std::uint64_t key);

  CudaErrors& errors_;
  std::vector<Record> records_;
  std::uint64_t clock_ = 0;
  std::uint64_t recording_ = 0;
};

// Time between two events around every launch.
class CudaProfile {
 public:
  explicit CudaProfile(CudaErrors& errors) : errors_(errors) {}
  CudaProfile(const CudaProfile&) = delete;
  CudaProfile& operator=(const CudaProfile&) = delete;
  ~CudaProfile();

  bool active() const { return active_; }
  void start();
  void before(const char* kernel, cudaStream_t stream);
  void after(cudaStream_t stream);
  std::vector<KernelTime> times();

 private:
  static constexpr std::size_t most_pending = 1024;
  struct Launch {
    const char* kernel = nullptr;
    cudaEvent_t begin = nullptr, end = nullptr;
  };
  void collect();

  CudaErrors& errors_;
  bool active_ = false;
  std::vector<Launch> launches_;  // the first n_pending_ were launched; all own their events
  std::size_t n_pending_ = 0;
  std::map<std::string, KernelTime> sums_;
};

}  // namespace grace::device
