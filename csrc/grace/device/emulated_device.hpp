// The emulated device: runs kernels on the CPU, one thread at a time, blocks and threads of every phase in an order
// shuffled by a seed. It is the test of the device kernels on machines without a GPU: a missing barrier changes
// results, memory that nobody wrote is NaN or a huge integer, copies to the host arrive when they are waited for, and
// the address sanitizer sees every access. It does not see the order of real atomics, bank conflicts, alignment faults
// or launch limits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "grace/device/kernel.hpp"
#include "grace/device/mma.hpp"
#include "grace/error.hpp"
#include "grace/types.hpp"

namespace grace::device {

// Numbers that nobody wrote: NaN in fp32 and fp64, as integers neither -1 nor small.
inline void poison(void* memory, std::size_t bytes) {
  static const std::vector<std::uint32_t> words(1024, 0x7ffff2f1u);
  constexpr std::size_t piece = 1024 * sizeof(std::uint32_t);
  unsigned char* const to = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i < bytes; i += piece) std::memcpy(to + i, words.data(), std::min(piece, bytes - i));
}

class EmulatedDevice {
 public:
  static constexpr std::size_t spare_bytes = 0;

  // The environment variable GRACE_MD_EMULATED_MEMORY (bytes) bounds the memory of devices without `memory_bytes`,
  // GRACE_MD_EMULATED_SHARED (bytes) the shared memory of a block, 227 kB as on an H100 without it, and
  // GRACE_MD_EMULATED_FAILURE names a kernel that destroys the device: for tests of what is said then.
  explicit EmulatedDevice(std::uint64_t seed, std::size_t memory_bytes = 0);
  ~EmulatedDevice();
  EmulatedDevice(const EmulatedDevice&) = delete;
  EmulatedDevice& operator=(const EmulatedDevice&) = delete;

  std::string name() const { return "emulated (order " + std::to_string(seed_) + ")"; }

  // Memory. `what` is named in the error when it does not fit.
  void* allocate(std::size_t bytes, const char* what);
  void release(void* memory);
  std::size_t allocated_bytes() const { return allocated_; }
  std::size_t free_bytes() const { return memory_bytes_ - allocated_; }
  std::size_t most_shared_bytes() const { return most_shared_bytes_; }

  // Copies in stream order. Host memory of `upload` may be reused at once; that of `download` is filled after
  // synchronize().
  void upload(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes);
  void copy(void* to, const void* from, std::size_t bytes) {
    require_usable();
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* to, std::size_t bytes) {
    require_usable();
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  void synchronize();  // as on a GPU, failures of kernels come to light here

  // Stream of the following work (a cudaStream_t on a GPU); nullptr: the device's own. end_call(): as on a GPU.
  void use_stream(void*) { require_usable(); }
  void end_call(bool failed) noexcept {
    if (failed) downloads_.clear();
  }

  // Runs `work` (launches, copies and fills on the device only). A GPU may record it under `key` and replay the record
  // when the same key comes again, so that everything `work` does must be determined by the key.
  template <class Work>
  void replay(std::uint64_t /*key*/, Work work) {
    work();
  }

  template <class Kernel>
  void launch(const Kernel& kernel, Grid grid, std::size_t shared_bytes = 0);

  // Launches of every kernel since start_profile; the times are zero.
  void start_profile() { launches_.clear(); }
  std::vector<KernelTime> profile() const;

 private:
  template <class Private>
  class Block;

  std::vector<int> order(int n) {
    std::vector<int> list(n);
    std::iota(list.begin(), list.end(), 0);
    if (seed_ != 0)
      for (int i = n - 1; i > 0; --i) std::swap(list[i], list[random_() % static_cast<unsigned>(i + 1)]);
    return list;
  }

  struct Download {
    void* to;
    std::vector<unsigned char> data;
  };

  void require_usable() const {
    if (!lost_.empty()) throw Error(lost_);
  }

  std::uint64_t seed_;
  std::mt19937 random_;
  std::size_t memory_bytes_, most_shared_bytes_;
  std::string fails_in_;             // kernel
  const char* failed_in_ = nullptr;  // the same once it was launched
  std::string lost_;
  std::size_t allocated_ = 0;
  std::map<void*, std::size_t> sizes_;
  std::map<std::string, std::int64_t> launches_;
  std::vector<Download> downloads_;  // that synchronize() delivers
};

template <class Private>
class EmulatedDevice::Block {
 public:
  Block(EmulatedDevice& device, unsigned x, unsigned y, int threads, std::size_t shared_bytes)
      : device_(device),
        x_(x),
        y_(y),
        private_(threads),
        shared_bytes_(shared_bytes),
        shared_(new unsigned char[shared_bytes + 16]) {
    if constexpr (!std::is_empty_v<Private>) poison(private_.data(), threads * sizeof(Private));
    const auto address = reinterpret_cast<std::uintptr_t>(shared_.get());
    start_ = shared_.get() + (16 - address % 16) % 16;
    poison(start_, shared_bytes);
  }

  unsigned x() const { return x_; }
  unsigned y() const { return y_; }

  template <class T>
  T* shared(std::size_t count) {
    T* array = reinterpret_cast<T*>(start_ + used_);
    used_ += shared_size<T>(count);
    require(used_ <= shared_bytes_, "internal error: a kernel uses ", used_,
            " bytes of shared memory, its launch gave ", shared_bytes_);
    return array;
  }

  template <class Phase>
  void each_thread(Phase phase) {
    for (int thread : device_.order(static_cast<int>(private_.size()))) run(thread, phase);
  }

  template <class Phase>
  void each_warp(Phase phase) {
    require(private_.size() % 32 == 0, "internal error: a block of ", private_.size(), " threads has no whole warps");
    for (int index : device_.order(static_cast<int>(private_.size() / 32))) {
      Warp warp(*this, index);
      phase(warp);
    }
  }

  // Copies arrive when they are waited for, and not at all when they are not.
  template <bool keep = false>
  void copy_async(void* to, const void* from) {
    require((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16 == 0,
            "internal error: a copy is not aligned to 16 bytes");
    copies_.resize(private_.size());
    copies_[thread_].started.push_back({to, from, copies_[thread_].n_groups});
  }
  void commit_copies() {
    copies_.resize(private_.size());
    ++copies_[thread_].n_groups;
  }
  template <int n>
  void wait_copies() {
    Copies& own = copies_.at(thread_);
    while (own.n_arrived < own.started.size() && own.started[own.n_arrived].group < own.n_groups - n) {
      const Copy& copy = own.started[own.n_arrived++];
      std::memcpy(copy.to, copy.from, 16);
    }
  }

 private:
  class Warp {
   public:
    Warp(Block& block, int index) : block_(block), index_(index) {}
    int index() const { return index_; }

    template <class Lane>
    void each_lane(Lane lane) {
      for (int l : block_.device_.order(32)) block_.run(32 * index_ + l, lane);
    }
    template <class Operands>
    void multiply_add(Operands operands) {
      MmaOperands lanes[32];
      for (int l = 0; l < 32; ++l) lanes[l] = operands(block_.private_[32 * index_ + l]);
      emulate_mma(lanes);
    }

   private:
    Block& block_;
    int index_;
  };
  struct Copy {
    void* to;
    const void* from;
    int group;
  };
  struct Copies {
    std::vector<Copy> started;
    std::size_t n_arrived = 0;
    int n_groups = 0;  // closed
  };

  template <class Phase>
  void run(int thread, Phase& phase) {
    thread_ = thread;
    phase(thread, private_[thread]);
  }

  EmulatedDevice& device_;
  unsigned x_, y_;
  std::vector<Private> private_;
  std::vector<Copies> copies_;  // of every thread
  int thread_ = 0;              // that runs
  std::size_t shared_bytes_, used_ = 0;
  std::unique_ptr<unsigned char[]> shared_;
  unsigned char* start_ = nullptr;
};

template <class Kernel>
void EmulatedDevice::launch(const Kernel& kernel, Grid grid, std::size_t shared_bytes) {
  require(grid.y <= 65535 && shared_bytes <= most_shared_bytes_ && Kernel::threads <= 1024,
          "internal error: launch limits exceeded by kernel ", Kernel::name);
  require_usable();
  if (grid.x == 0 || grid.y == 0) return;
  ++launches_[Kernel::name];
  if (!fails_in_.empty() && fails_in_ == Kernel::name) failed_in_ = Kernel::name;
  for (int b : order(static_cast<int>(grid.x * grid.y))) {
    Block<typename Kernel::Private> block(*this, b % grid.x, b / grid.x, Kernel::threads, shared_bytes);
    kernel(block);
  }
}

}  // namespace grace::device
