// Words shared by every part of the core.
#pragma once

#include <cstdint>
#include <string>

namespace grace {

// fp64: everything in double. mixed: network in float; positions, bond lengths, readout, energies, forces and virial
// sums in double. fp32: the word for devices where double sums are slow; they are not on the CPU nor, being a few
// hundred operations per atom, on any GPU, so that it is the same as mixed. automatic: mixed on a GPU, fp64 elsewhere.
enum class Precision { automatic, fp64, mixed, fp32 };

// table: piecewise polynomials of x = r / rc(pair), built and checked at load. exact: the radial network itself.
enum class RadialMode { table, exact };

// Where an evaluator runs. automatic: the environment variable GRACE_MD_DEVICE (a word as below), else the first GPU
// that this build can use, else the CPU. cuda never falls back: it is an error where no such GPU is usable. emulated:
// the device kernels on the CPU, visiting threads in an order shuffled by `index` (0: natural order): slow, for tests.
enum class DeviceKind { automatic, cpu, cuda, emulated };
struct Device {
  DeviceKind kind = DeviceKind::automatic;
  int index = 0;
};

// Where arrays of a call lie. device: memory of the evaluator's GPU.
enum class MemorySpace { host, device };

// Time on a GPU of all launches of one kernel.
struct KernelTime {
  std::string name;
  std::int64_t launches = 0;
  double seconds = 0.0;
};

Precision parse_precision(const std::string& word);     // "auto" | "fp64" | "mixed" | "fp32"
RadialMode parse_radial_mode(const std::string& word);  // "table" | "exact"
Device parse_device(const std::string& word);  // "auto" | "cpu" | "cuda" | "cuda:N" | "N" | "emulated" | "emulated:N"

}  // namespace grace
