// Memory of one piece of work.
#pragma once

#include <cstdint>
#include <vector>

namespace grace::ops {

// `size` numbers that start at a multiple of 64 bytes, as the widest vectors want.
template <class Real>
class AlignedScratch {
 public:
  explicit AlignedScratch(std::int64_t size) : memory_(static_cast<std::size_t>(size) + 64 / sizeof(Real)) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    first_ = memory_.data() + (64 - address % 64) % 64 / sizeof(Real);
  }
  AlignedScratch(const AlignedScratch&) = delete;
  AlignedScratch& operator=(const AlignedScratch&) = delete;
  Real* data() { return first_; }

 private:
  std::vector<Real> memory_;
  Real* first_;
};

}  // namespace grace::ops
