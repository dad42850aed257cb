// Energies, forces and virials of atoms with neighbour rows. One evaluator may be used by one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grace/model/spec.hpp"
#include "grace/types.hpp"

namespace grace {

struct EvaluatorOptions {
  Precision precision = Precision::automatic;
  RadialMode radial = RadialMode::table;
  Device device{};
  int n_threads = 0;  // 0: OMP_NUM_THREADS or all cores of the process
  int chunk = 0;      // atoms that are species-sorted together and, on a GPU, share the workspace; 0: automatic
  bool deterministic = false;  // GPU: sums over atoms in fixed point, bitwise the same in every run and for every
                               // chunk; the CPU evaluator always is for a given number of threads
};

// How an evaluator with lists_neighbors() finds the neighbours itself, when Geometry::first is null. The list is kept
// between calls. All pointers are host memory.
struct NeighborRequest {
  // check: list again when an atom moved too far for the skin, or when atoms, species (if cutoffs differ), cells or
  // skin changed. rebuild: list now. keep: the caller knows that the list is still good (LAMMPS between two builds).
  enum class Reuse { check, rebuild, keep };
  Reuse reuse = Reuse::check;
  double skin = 0.0;               // A
  const bool* periodic = nullptr;  // [n_structures][3]; nullptr: no images, ghost atoms stand for them (LAMMPS)
  const std::int64_t* first_atom = nullptr;  // [n_structures + 1]; nullptr: one structure
};

// The atoms to evaluate. All pointers belong to the caller and are only read. positions and species lie in `space`;
// everything else is host memory.
struct Geometry {
  std::int64_t n_centers = 0;         // atoms 0 .. n_centers-1 have neighbour rows and energies
  std::int64_t n_atoms = 0;           // centres, then ghosts (LAMMPS); equal to n_centers with image shifts
  const double* positions = nullptr;  // [n_atoms][3], A
  const std::int32_t* species =
      nullptr;  // [n_atoms], index into ModelSpec::elements; -1 = not an atom of this model (its bonds are skipped)
  const std::int64_t* first = nullptr;     // [n_centers + 1]; nullptr: see `neighbors`
  const std::int32_t* neighbor = nullptr;  // [first[n_centers]]; pairs beyond the pair cutoff are skipped
  const std::int32_t* shift = nullptr;     // packed images (neighbors.hpp), or nullptr
  std::int64_t n_structures = 1;
  const double* cells = nullptr;            // [n_structures][3][3], needed with shifts
  const std::int32_t* structure = nullptr;  // [n_centers] index into cells; nullptr: one structure
  const std::int32_t* owner =
      nullptr;  // [n_atoms] centre that a ghost is an image of (identity for centres); nullptr: no such map
  const std::int32_t* selection = nullptr;  // [n_selected] centres whose energies are wanted; nullptr: all
  std::int64_t n_selected = 0;
  NeighborRequest neighbors;              // used when first == nullptr
  MemorySpace space = MemorySpace::host;  // of positions and species here, and of the arrays of Results
  void* stream = nullptr;                 // CUDA stream that the work is ordered on; nullptr: the evaluator's own
};

// A tensor that the evaluator stores (A, A1, rho, ...; not the streamed products), for tests of single stages.
struct StageTensor {
  std::string name;
  int n_channels = 0;
  std::vector<int> rows;          // rows of the model's tensor that are stored; the others are read by nobody
  std::vector<double> values;     // [n_centers][rows][n_channels]
  std::vector<double> gradients;  // same shape, dE/d(value) in eV
};

// Where results go. Energies are written; forces and virials are added to. Force f_b = -dE/dr_ij of a directed bond
// acts +f on neighbour j and -f on centre i; virial[a][b] = sum r_a f_b (LAMMPS sign; ASE stress = -virial / volume).
// The arrays lie in Geometry::space; `stages` and the closest pair are host memory.
struct Results {
  double* energies = nullptr;         // [n_centers], eV, with output scale and shifts; only selected rows are written
  double* forces = nullptr;           // [n_atoms][3], eV/A, -d(sum of selected energies)/dx; nullptr: energies only
  double* virial = nullptr;           // [n_structures][3][3], eV; nullptr: not wanted (as the two below)
  double* atom_virial = nullptr;      // [n_atoms][3][3], half of each bond on i and half on j
  double* centroid_virial = nullptr;  // [n_atoms][3][3], each bond on its neighbour j: heat flux J = sum_j W_j v_j
  std::vector<StageTensor>* stages = nullptr;  // for tests: filled when forces are computed
  double closest_distance = 0.0;               // out: smallest distance met within a pair cutoff (infinity if none), A
  std::array<std::int64_t, 2> closest_pair{-1, -1};  // out
};

// Two-layer models with ghosts that have no owner map (several MPI ranks): fills and folds ghost rows between the
// layers. Rows are [n_atoms][width]; forward copies owner rows to ghosts, reverse adds ghost rows to owners. All ranks
// must agree on whether they want forces: reverse is called only then.
class MessageExchange {
 public:
  virtual ~MessageExchange() = default;
  virtual void forward(double* rows, int width) = 0;
  virtual void forward(float* rows, int width) = 0;
  virtual void reverse(double* rows, int width) = 0;
  virtual void reverse(float* rows, int width) = 0;
};

// Error of the radial tables against the exact networks, measured at load on points between the knots, relative to the
// largest value (or derivative) of each function. Zero when radial = exact.
struct RadialTableReport {
  int n_intervals = 0;
  int degree = 0;
  double value_error = 0.0;
  double derivative_error = 0.0;
};

class Evaluator {
 public:
  virtual ~Evaluator() = default;
  virtual const ModelSpec& model() const = 0;
  virtual void compute(const Geometry& geometry, Results& results, MessageExchange* exchange = nullptr) = 0;
  virtual RadialTableReport radial_report() const = 0;
  virtual bool lists_neighbors() const { return false; }  // accepts a Geometry without rows
  virtual DeviceKind device_kind() const { return DeviceKind::cpu; }
  virtual int message_width() const = 0;            // numbers per atom exchanged between layers; 0 for one layer
  virtual std::size_t workspace_bytes() const = 0;  // memory held beyond the model, all threads
  virtual std::string description() const = 0;      // "cpu x86-64-v4, fp64, radial table (...), 2 threads"

  // Times every kernel from now on (GPU only; slows small systems down), and what was measured since.
  virtual void start_profile() {}
  virtual std::vector<KernelTime> profile() { return {}; }
};

// The device that `automatic` stands for here; others are returned as they are.
Device resolve_device(Device wanted);

// Throws Error when the device is not available.
std::unique_ptr<Evaluator> make_evaluator(ModelSpec model, const EvaluatorOptions& options);

}  // namespace grace
