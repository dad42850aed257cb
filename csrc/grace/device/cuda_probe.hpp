// Which GPUs this build can use, asked once per process; never throws, also without a driver.
#pragma once

#include <string>
#include <vector>

namespace grace::device {

// What the CUDA runtime reports, as numbers, and the sentence that it means (docs/gpu.md); apart from the probe so that
// every case can be tested without a GPU.
struct CudaFacts {
  bool built = false;
  int error = 0;           // of cudaGetDeviceCount: 0 success, 35 insufficient driver, 100 no device, others
  int driver_version = 0;  // 1000 * major + 10 * minor, 0: none
  int runtime_version = 0;
  int n_devices = 0;
  std::vector<int> capabilities;   // of the devices, 10 * major + minor
  std::vector<int> architectures;  // compiled for, as capabilities; others run the PTX of the first
  std::string error_text;          // what the runtime calls the error
};
// Empty when device `index` can be used.
std::string cuda_obstacle(const CudaFacts& facts, int index);

struct CudaProbe {
  bool built = false;               // compiled with CUDA
  int n_devices = 0;                // visible and supported by this build
  std::string reason;               // why n_devices == 0: one sentence
  std::string architectures;        // compiled for, "80 90 100 120"
  std::vector<std::string> names;   // of the visible devices
  std::vector<std::string> places;  // on the PCI bus, "0000:3b:00": the same for all processes of a machine
  CudaFacts facts;
};

const CudaProbe& cuda_probe();

}  // namespace grace::device
