// The evaluator on a device: lists or takes neighbour rows, deals atoms into chunks, and runs the passes of one- and
// two-layer models. Device is device::CudaDevice or device::EmulatedDevice; this file is host code.
//
// One layer:  per chunk, forward and adjoint.
// Two layers: (1) layer-1 forward of all chunks -> message, densities; (2) message of ghosts; (3) layer-2 forward and
// adjoint -> dE/dI, dE/d(densities of layer 1); (4) dE/dI of ghosts back; (5) layer-1 adjoint, with the values of (1)
// where one chunk holds all atoms, recomputed otherwise.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/evaluator.hpp"
#include "grace/evaluator_cuda/bonds.hpp"
#include "grace/evaluator_cuda/plan.hpp"
#include "grace/evaluator_cuda/schedule.hpp"
#include "grace/evaluator_cuda/sums_kernels.hpp"
#include "grace/neighbors_cuda/device_neighbors.hpp"

namespace grace::gpu {

template <class Device, class Real>
class DeviceEvaluator final : public Evaluator {
 public:
  // index: of the GPU, or the shuffle seed of the emulated device.
  DeviceEvaluator(ModelSpec model, const EvaluatorOptions& options);

  const ModelSpec& model() const override { return spec_; }
  void compute(const Geometry& geometry, Results& results, MessageExchange* exchange) override;
  RadialTableReport radial_report() const override { return plan_.radial_report; }
  bool lists_neighbors() const override { return true; }
  DeviceKind device_kind() const override { return options_.device.kind; }
  int message_width() const override;
  std::size_t workspace_bytes() const override { return device_.allocated_bytes() - model_bytes_; }
  std::string description() const override;
  void start_profile() override { device_.start_profile(); }
  std::vector<KernelTime> profile() override { return device_.profile(); }

 private:
  template <class T>
  using Buffer = device::Buffer<Device, T>;

  // A schedule and its copy on the device.
  struct Chunks {
    explicit Chunks(Device& device)
        : centers(device, "the lists of atoms"),
          species(device, "the lists of atoms"),
          slot(device, "the lists of atoms"),
          tiles(device, "the lists of atoms") {}
    Schedule host;
    Buffer<std::int32_t> centers, species, slot;
    Buffer<AtomTile> tiles;
    Chunk chunk(int index) const;
  };

  // ---- input (device_evaluator_input.hpp)
  void check(const MessageExchange* exchange) const;
  void load_atoms();
  void take_rows();
  void list_neighbors();
  bool list_is_stale() const;
  void set_structures();
  std::vector<std::int32_t> wanted_centers() const;
  std::vector<std::int32_t> message_centers(const std::vector<std::int32_t>& wanted);
  void set_chunks(Chunks& chunks, const std::vector<std::int32_t>& centers);
  void schedule();

  // ---- memory (device_evaluator_memory.hpp)
  void reserve();
  void reserve_atoms();
  void reserve_chunk();
  void require_room(int atoms, std::size_t whole, std::size_t missing, std::size_t given_back) const;
  void clear_sums();
  std::uint64_t replay_key() const;

  // ---- passes (device_evaluator_passes.hpp)
  void run(MessageExchange* exchange);
  void one_layer();
  void two_layers(MessageExchange* exchange);
  void layer_forward(const LayerPlan<Real>& layer, const Chunk& chunk, Real* values);
  void layer_adjoint(const LayerPlan<Real>& layer, const Chunk& chunk, const Real* values);
  void collect(const LayerPlan<Real>& layer, const Chunk& chunk);
  void exchange_rows(MessageExchange& exchange, Real* rows, bool forward);
  bool adjoint() const { return results_->forces != nullptr; }

  // ---- results (device_evaluator_results.hpp)
  void finish();
  void finish_on_device();
  void finish_on_host();
  void sum_virial(double* out, bool replace);
  void prepare_stages();
  void copy_stages(int layer, const Chunk& chunk, const Real* values);

  ModelSpec spec_;
  EvaluatorOptions options_;
  Device device_;
  device::DeviceModelMemory<Device> memory_;
  int chunk_atoms_;
  ModelPlan<Real> plan_;
  std::size_t model_bytes_ = 0;
  bool uniform_cutoffs_ = true;

  // of the current call
  const Geometry* geometry_ = nullptr;
  Results* results_ = nullptr;
  Frame frame_;

  // atoms and rows, kept between calls
  DeviceNeighborList<Device> list_;
  bool own_list_ = false;   // the rows in use are those of list_
  NeighborRequest listed_;  // skin of the list
  std::int64_t listed_centers_ = -1, listed_atoms_ = -1;
  std::vector<std::int64_t> listed_first_atom_;
  std::vector<char> listed_periodic_;
  std::vector<std::int64_t> rows_;       // host copy of the row starts
  std::vector<std::int32_t> species_;    // host copy
  std::vector<std::int32_t> structure_;  // host, [n_centers]; empty: one structure
  std::vector<std::int32_t> selection_;  // host, of the schedule
  bool selected_ = false;
  bool rows_changed_ = true;
  std::uint64_t epoch_ = 0;  // counts changes of lists, chunks and memory
  Buffer<double> raw_positions_, positions_, cells_;
  Buffer<std::int32_t> device_species_, device_structure_, owner_, neighbor_, shift_;
  Buffer<std::int64_t> first_;
  Chunks chunks_, first_chunks_;  // of the last layer; of layer 1 where that differs
  bool chunks_differ_ = false;

  // workspace
  BondStorage<Device, Real> bonds_;
  Buffer<Real> values_, first_values_, gradients_, block_, message_, message_gradient_;
  Buffer<double> message_sums_, densities_, density_gradients_;
  Buffer<double> energies_, forces_, center_virial_, atom_virial_, centroid_virial_, finished_, partial_virial_;
  Buffer<VirialPiece> pieces_;
  Buffer<std::int64_t> first_piece_;
  std::vector<VirialPiece> host_pieces_;
  Buffer<StepFlags> flags_;
  Buffer<ClosestPair> closest_;
  std::vector<Real> host_message_;
  bool keep_first_ = false;
  ForceSums sums_;
  device::AtomicSum<Real> message_sum_;
};

}  // namespace grace::gpu
