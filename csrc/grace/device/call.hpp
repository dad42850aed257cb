// The stream of one call, and what becomes of a call that fails half-way.
#pragma once

#include <exception>

namespace grace::device {

// One call of an evaluator: its work goes to the caller's stream (a cudaStream_t; nullptr: the device's own), which is
// not touched again after it. Where the call ends by an exception, downloads that nobody waited for are given up: the
// host memory that they would fill is gone.
template <class Device>
class Call {
 public:
  Call(Device& device, void* stream) : device_(device), exceptions_(std::uncaught_exceptions()) {
    device_.use_stream(stream);
  }
  ~Call() { device_.end_call(std::uncaught_exceptions() > exceptions_); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  Device& device_;
  int exceptions_;
};

}  // namespace grace::device
