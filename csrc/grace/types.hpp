// Words shared by every part of the core.
#pragma once

#include <cstdint>
#include <string>

namespace grace {

// fp64: everything in double. mixed: network in float; positions, bond lengths, readout, energies, forces and virial
// sums in double. fp32: the word for devices where double sums are slow; on the CPU, where they are not, it is the same
// as mixed.
enum class Precision { fp64, mixed, fp32 };

// table: piecewise polynomials of x = r / rc(pair), built and checked at load. exact: the radial network itself.
enum class RadialMode { table, exact };

// Where an evaluator runs. The CUDA evaluator is not part of this build yet; asking for it is an error, never a silent
// fallback.
enum class DeviceKind { cpu, cuda };
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
};

Precision parse_precision(const std::string& word);     // "fp64" | "mixed" | "fp32"
RadialMode parse_radial_mode(const std::string& word);  // "table" | "exact"
Device parse_device(const std::string& word);           // "auto" | "cpu" | "cuda" | "cuda:N" | "N"

}  // namespace grace
