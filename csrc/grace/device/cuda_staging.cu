#include "grace/device/cuda_staging.cuh"

#include <algorithm>
#include <cstring>

namespace grace::device {

CudaStaging::~CudaStaging() {
  for (Slot& slot : slots_) {
    if (slot.passed != nullptr) cudaEventDestroy(slot.passed);
    if (slot.memory != nullptr) cudaFreeHost(slot.memory);
  }
}

void CudaStaging::seal(Slot& slot, cudaStream_t stream) {
  if (slot.sealed || slot.used == 0) return;
  errors_.check(cudaEventRecord(slot.passed, stream), "marking a copy");
  slot.sealed = true;
}

void CudaStaging::deliver(Slot& slot) {
  for (const Delivery& d : slot.deliveries) std::memcpy(d.to, d.from, d.bytes);
  slot.deliveries.clear();
  slot.used = 0;
  slot.sealed = false;
}

CudaStaging::Slot& CudaStaging::slot_with_room(cudaStream_t stream) {
  if (slots_[current_].used >= slot_bytes) seal(slots_[current_], stream);
  if (slots_[current_].sealed) {
    current_ = (current_ + 1) % slots_.size();
    Slot& next = slots_[current_];
    if (next.sealed) {
      errors_.check(cudaEventSynchronize(next.passed), "a copy");
      deliver(next);
    }
  }
  Slot& slot = slots_[current_];
  if (slot.passed == nullptr)
    errors_.check(cudaEventCreateWithFlags(&slot.passed, cudaEventDisableTiming), "creating an event");
  if (slot.memory == nullptr)
    errors_.check(cudaMallocHost(reinterpret_cast<void**>(&slot.memory), slot_bytes),
                  "allocating 4 MB of pinned host memory");
  return slot;
}

void CudaStaging::upload(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t done = 0; done < bytes;) {
    Slot& slot = slot_with_room(stream);
    const std::size_t n = std::min(bytes - done, slot_bytes - slot.used);
    unsigned char* const staged = slot.memory + slot.used;
    std::memcpy(staged, static_cast<const unsigned char*>(from) + done, n);
    slot.used += (n + 255) / 256 * 256;
    errors_.check(cudaMemcpyAsync(static_cast<unsigned char*>(to) + done, staged, n, cudaMemcpyHostToDevice, stream),
                  "a copy to the GPU");
    done += n;
  }
}

void CudaStaging::download(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t done = 0; done < bytes;) {
    Slot& slot = slot_with_room(stream);
    const std::size_t n = std::min(bytes - done, slot_bytes - slot.used);
    unsigned char* const staged = slot.memory + slot.used;
    slot.used += (n + 255) / 256 * 256;
    errors_.check(
        cudaMemcpyAsync(staged, static_cast<const unsigned char*>(from) + done, n, cudaMemcpyDeviceToHost, stream),
        "a copy from the GPU");
    slot.deliveries.push_back({static_cast<unsigned char*>(to) + done, staged, n});
    done += n;
  }
}

void CudaStaging::finish() {
  // The oldest first: of two copies to one place the later one stays.
  for (std::size_t k = 1; k <= slots_.size(); ++k) deliver(slots_[(current_ + k) % slots_.size()]);
}

}  // namespace grace::device
