// Memory on a device: grow-only buffers of the evaluators, and the constant data of a model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace grace::device {

// Bytes that can be reserved where `given_back` are released for them; a GPU keeps some to itself.
template <class Device>
std::size_t room(const Device& device, std::size_t given_back) {
  const std::size_t all = device.free_bytes() + given_back;
  return all - std::min(all, Device::spare_bytes);
}

// Grows only; growing loses the contents. Freed with the buffer.
template <class Device, class T>
class Buffer {
 public:
  Buffer(Device& device, const char* what) : device_(&device), what_(what) {}
  Buffer(Buffer&& other) noexcept
      : device_(other.device_),
        what_(other.what_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { device_->release(data_); }

  // At least n elements. Returns true when the memory moved.
  bool reserve(std::size_t n) {
    if (n <= size_) return false;
    device_->release(std::exchange(data_, nullptr));
    size_ = 0;
    data_ = static_cast<T*>(device_->allocate(n * sizeof(T), what_));
    size_ = n;
    return true;
  }
  // A fifth more than asked for, for sizes that change from step to step.
  bool reserve_roomy(std::size_t n) { return n <= size_ ? false : reserve(n + n / 5); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

  void upload(const T* from, std::size_t n) {
    reserve(n);
    device_->upload(data_, from, n * sizeof(T));
  }
  void upload(const std::vector<T>& from) { upload(from.data(), from.size()); }
  void download(T* to, std::size_t n) const { device_->download(to, data_, n * sizeof(T)); }

 private:
  Device* device_;
  const char* what_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// Keeps constant data (weights, tables) on a device; the plan of a model is written against this interface, so that it
// does not depend on the kind of device.
class ModelMemory {
 public:
  virtual ~ModelMemory() = default;

  // Device copy of the elements, valid as long as this object; nullptr for none.
  template <class T>
  const T* keep(const std::vector<T>& values) {
    return values.empty() ? nullptr : static_cast<const T*>(keep_bytes(values.data(), values.size() * sizeof(T)));
  }

 protected:
  virtual const void* keep_bytes(const void* data, std::size_t bytes) = 0;
};

template <class Device>
class DeviceModelMemory final : public ModelMemory {
 public:
  explicit DeviceModelMemory(Device& device, const char* what = "the weights of the model")
      : device_(device), what_(what) {}
  DeviceModelMemory(const DeviceModelMemory&) = delete;
  DeviceModelMemory& operator=(const DeviceModelMemory&) = delete;
  ~DeviceModelMemory() override {
    for (void* memory : blocks_) device_.release(memory);
  }

 protected:
  const void* keep_bytes(const void* data, std::size_t bytes) override {
    void* memory = device_.allocate(bytes, what_);
    blocks_.push_back(memory);
    device_.upload(memory, data, bytes);
    return memory;
  }

 private:
  Device& device_;
  const char* what_;
  std::vector<void*> blocks_;
};

}  // namespace grace::device
