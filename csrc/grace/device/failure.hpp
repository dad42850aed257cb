// Sentences about failures of a device, the same for a GPU and for the emulated device.
#pragma once

#include <cstddef>
#include <string>

namespace grace::device {

// "3.21 GB", with three digits.
std::string gigabytes(std::size_t bytes);

// `what` is a plural noun: "the positions".
std::string out_of_memory(const std::string& what, std::size_t bytes, const std::string& device, std::size_t free);

// A failure after which nothing works: `kernel` was launched last (nullptr: none yet), found out while `doing`.
std::string device_lost(const std::string& device, const char* kernel, const char* doing, const std::string& cause);

}  // namespace grace::device
