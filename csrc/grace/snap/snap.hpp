// SNAP bispectrum components of atoms with a cutoff radius each, of many structures at once, and the gradient of any
// linear function of them (docs of the formulas: math/snap.hpp, tables.hpp), on a CPU (cpu_snap.hpp) or a device
// (snap_cuda/).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grace/snap/pairs.hpp"
#include "grace/types.hpp"

namespace grace::snap {

struct SnapOptions {
  int twojmax = 8;
  double rfac0 = 0.99363;  // in (0, 1]
  double rmin0 = 0.0;      // A, >= 0
  Device device{DeviceKind::cpu, 0};
};

// Not safe for calls from two threads at once. Results do not depend on the number of threads nor on what else is in a
// batch, to the last bit; those of a CPU and of a device differ by rounding.
class Snap {
 public:
  virtual ~Snap() = default;

  virtual int twojmax() const = 0;
  virtual int n_features() const = 0;
  virtual std::string device_name() const = 0;  // "cpu", "cuda:0 NVIDIA H200", ...
  // of the last call of descriptors()
  virtual std::int64_t n_atoms() const = 0;
  virtual int n_structures() const = 0;
  virtual std::int64_t n_pairs() const = 0;

  // features [n_atoms, n_features], components (J1, J2, J) with J >= J1 >= J2 in lexicographic order. `species` of the
  // batch is not read; cutoffs [n_atoms], A. Threads are those of the CPU.
  virtual void descriptors(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double* features,
                           int n_threads = 0) = 0;

  // For the sum over atoms of beta_i . B_i, beta [n_atoms, n_features], at the last call of descriptors():
  // positions [n_atoms, 3] its gradient, 1/A; strain [n_structures, 3, 3] its derivative by the strain e of
  // x -> x (1 + e), cell included.
  virtual void gradients(const double* beta, double* positions, double* strain, int n_threads = 0) = 0;

  // Times of the kernels from now on, and their sums since then, the longest first; a CPU has none.
  virtual void start_profile() {}
  virtual std::vector<KernelTime> profile() { return {}; }
};

// Throws Error for options out of range and, with the reason, for a GPU that cannot be used.
std::unique_ptr<Snap> make_snap(const SnapOptions& options);

}  // namespace grace::snap
