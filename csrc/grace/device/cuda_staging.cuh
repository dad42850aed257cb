// Pinned memory that copies between host and GPU pass through, so that the GPU copies while the host goes on. For the
// files of device/ only.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <vector>

#include "grace/device/cuda_context.cuh"

namespace grace::device {

// A ring of slots. Copies fill one slot after the other; a slot is used again when the copies of its last use have
// passed. Any amount of data goes through the same few megabytes.
class CudaStaging {
 public:
  explicit CudaStaging(CudaErrors& errors) : errors_(errors) {}
  CudaStaging(const CudaStaging&) = delete;
  CudaStaging& operator=(const CudaStaging&) = delete;
  ~CudaStaging();

  void upload(void* to, const void* from, std::size_t bytes, cudaStream_t stream);
  void download(void* to, const void* from, std::size_t bytes, cudaStream_t stream);  // delivered by finish()

  // Ends the use of a stream: later copies go to another one.
  void leave(cudaStream_t stream) { seal(slots_[current_], stream); }
  // To be called when all copies have passed.
  void finish();
  // Downloads that were not delivered yet never will be.
  void forget() {
    for (Slot& slot : slots_) slot.deliveries.clear();
  }

 private:
  static constexpr std::size_t slot_bytes = std::size_t{4} << 20;
  struct Delivery {
    void* to;
    const void* from;
    std::size_t bytes;
  };
  struct Slot {
    unsigned char* memory = nullptr;
    std::size_t used = 0;
    cudaEvent_t passed = nullptr;
    bool sealed = false;  // `passed` was recorded after the last copy
    std::vector<Delivery> deliveries;
  };

  Slot& slot_with_room(cudaStream_t stream);
  void seal(Slot& slot, cudaStream_t stream);
  static void deliver(Slot& slot);

  CudaErrors& errors_;
  std::array<Slot, 4> slots_;
  std::size_t current_ = 0;
};

}  // namespace grace::device
