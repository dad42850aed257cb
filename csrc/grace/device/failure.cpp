#include "grace/device/failure.hpp"

#include <sstream>

namespace grace::device {

std::string gigabytes(std::size_t bytes) {
  std::ostringstream text;
  text.precision(3);
  text << static_cast<double>(bytes) / 1e9 << " GB";
  return text.str();
}

std::string out_of_memory(const std::string& what, std::size_t bytes, const std::string& device, std::size_t free) {
  return "out of GPU memory: " + what + " need " + gigabytes(bytes) + ", " + device + " has " + gigabytes(free) +
         " free; lower chunksize, or use more ranks or a GPU with more memory";
}

std::string device_lost(const std::string& device, const char* kernel, const char* doing, const std::string& cause) {
  return "GPU failure on " + device + " in " +
         (kernel != nullptr ? "or before kernel " + std::string(kernel) : std::string(doing)) + ": " + cause +
         "; this evaluator is lost, make it again in a new process and continue the run from its last restart file";
}

}  // namespace grace::device
