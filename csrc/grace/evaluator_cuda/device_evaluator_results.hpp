// DeviceEvaluator: construction, the call, and what goes out.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <utility>

#include "grace/device/call.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/device_evaluator.hpp"
#include "grace/evaluator_cuda/device_evaluator_input.hpp"
#include "grace/evaluator_cuda/device_evaluator_memory.hpp"
#include "grace/evaluator_cuda/device_evaluator_passes.hpp"

namespace grace::gpu {

constexpr int default_chunk = 4096;
constexpr int largest_chunk = 1 << 20;  // larger ones gain nothing, and some counts of a chunk are 32-bit integers
// Product rows of a chunk: few launches, and mostly in the L2 cache when they are read.
constexpr std::size_t block_bytes = 48u << 20;

template <class Device, class Real>
DeviceEvaluator<Device, Real>::DeviceEvaluator(ModelSpec model, const EvaluatorOptions& options)
    : spec_(std::move(model)),
      options_(options),
      device_(options.device.index),
      memory_(device_),
      chunk_atoms_(options.chunk > 0 ? std::min(options.chunk, largest_chunk) : default_chunk),
      plan_(make_plan<Real>(spec_, options.radial, block_bytes / std::max(chunk_atoms_, 512), memory_)),
      list_(device_),
      raw_positions_(device_, "the positions"),
      positions_(device_, "the positions"),
      cells_(device_, "the cells"),
      device_species_(device_, "the species"),
      device_structure_(device_, "the structures"),
      owner_(device_, "the owners"),
      neighbor_(device_, "the neighbour rows"),
      shift_(device_, "the neighbour rows"),
      first_(device_, "the neighbour rows"),
      chunks_(device_),
      first_chunks_(device_),
      bonds_(device_),
      values_(device_, "the tensors of a chunk of atoms"),
      first_values_(device_, "the tensors of a chunk of atoms"),
      gradients_(device_, "the gradients of a chunk of atoms"),
      block_(device_, "the products of a chunk of atoms"),
      message_(device_, "the messages"),
      message_gradient_(device_, "the messages"),
      message_sums_(device_, "the messages"),
      densities_(device_, "the densities"),
      density_gradients_(device_, "the densities"),
      energies_(device_, "the energies"),
      forces_(device_, "the forces"),
      center_virial_(device_, "the virials"),
      atom_virial_(device_, "the virials"),
      centroid_virial_(device_, "the virials"),
      finished_(device_, "the forces"),
      partial_virial_(device_, "the virials"),
      pieces_(device_, "the virials"),
      first_piece_(device_, "the virials"),
      flags_(device_, "the flags"),
      closest_(device_, "the flags") {
  const std::vector<double>& cutoffs = spec_.pair_cutoffs;
  uniform_cutoffs_ = std::adjacent_find(cutoffs.begin(), cutoffs.end(), std::not_equal_to<>()) == cutoffs.end();
  model_bytes_ = device_.allocated_bytes();
  device_.synchronize();
}

template <class Device, class Real>
int DeviceEvaluator<Device, Real>::message_width() const {
  if (plan_.layers.size() < 2) return 0;
  return plan_.layers[1].message_plan.n_rows * plan_.layers[1].radial.stride;
}

template <class Device, class Real>
std::string DeviceEvaluator<Device, Real>::description() const {
  std::string text = device_.name() + (sizeof(Real) == 8                       ? ", fp64"
                                       : options_.precision == Precision::fp32 ? ", fp32"
                                                                               : ", mixed");
  if (options_.radial == RadialMode::table) {
    char table[160];
    std::snprintf(table, sizeof(table), ", radial table (%d intervals of degree %d, relative error %.1e, slope %.1e)",
                  plan_.radial_report.n_intervals, plan_.radial_report.degree, plan_.radial_report.value_error,
                  plan_.radial_report.derivative_error);
    text += table;
  } else {
    text += ", exact radial network";
  }
  text += ", chunks of " + std::to_string(chunk_atoms_) + " atoms";
  return options_.deterministic ? text + ", deterministic" : text;
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::compute(const Geometry& geometry, Results& results, MessageExchange* exchange) {
  geometry_ = &geometry;
  results_ = &results;
  check(exchange);
  results.closest_distance = std::numeric_limits<double>::infinity();
  results.closest_pair = {-1, -1};
  const device::Call<Device> call(device_, geometry.stream);
  frame_ = Frame();
  frame_.pair_cutoffs = plan_.pair_cutoffs;
  frame_.n_elements = plan_.n_elements;
  load_atoms();
  if (geometry.cells != nullptr) {
    if (cells_.reserve_roomy(9 * geometry.n_structures)) ++epoch_;
    device_.upload(cells_.data(), geometry.cells, 9 * geometry.n_structures * sizeof(double));
    frame_.cells = cells_.data();
  }
  if (geometry.first != nullptr)
    take_rows();
  else
    list_neighbors();
  schedule();
  frame_.structure = structure_.empty() ? nullptr : device_structure_.data();
  frame_.owner = geometry.owner == nullptr ? nullptr : owner_.data();
  reserve();
  clear_sums();
  prepare_stages();
  run(exchange);
  finish();
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::finish() {
  StepFlags flags;
  ClosestPair closest{-1.0, -1, -1};
  flags_.download(&flags, 1);
  closest_.download(&closest, 1);
  device_.synchronize();
  if (flags.not_finite != ~std::uint64_t{0}) {
    double x[3];
    const double* positions = geometry_->space == MemorySpace::device ? geometry_->positions : raw_positions_.data();
    device_.download(x, positions + 3 * flags.not_finite, sizeof(x));
    device_.synchronize();
    for (double value : x)
      require(std::isfinite(value), "position of atom ", flags.not_finite, " is not finite (", value,
              "); check the time step and the starting structure");
    require(false, "position of atom ", flags.not_finite, " is out of range (", x[0], ", ", x[1], ", ", x[2],
            "); check the time step and the starting structure");
  }
  if (closest.center >= 0) {
    results_->closest_distance = closest.distance;
    results_->closest_pair = {closest.center, closest.neighbor};
  }
  if (geometry_->space == MemorySpace::device)
    finish_on_device();
  else
    finish_on_host();
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::sum_virial(double* out, bool replace) {
  const unsigned n_pieces = static_cast<unsigned>(host_pieces_.size());
  device_.launch(SumPieces{pieces_.data(), center_virial_.data(), partial_virial_.data()}, {n_pieces, 1},
                 device::shared_size<double>(SumPieces::threads));
  device_.launch(SumStructures{first_piece_.data(), partial_virial_.data(), out, replace},
                 {static_cast<unsigned>(geometry_->n_structures), 1});
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::finish_on_device() {
  if (!adjoint()) return;
  auto add = [&](const device::AtomicSum<double>& sum, std::int64_t n, double* out) {
    if (out == nullptr) return;
    device_.launch(FinishSums{sum, n, out, false}, {device::blocks_for(n, FinishSums::threads), 1});
  };
  const std::int64_t n = geometry_->n_atoms;
  add(sums_.forces, 3 * n, results_->forces);
  add(sums_.atom_virial, 9 * n, results_->atom_virial);
  add(sums_.centroid_virial, 9 * n, results_->centroid_virial);
  if (results_->virial != nullptr) sum_virial(results_->virial, false);
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::finish_on_host() {
  const std::int64_t n = geometry_->n_atoms, n_centers = geometry_->n_centers;
  std::vector<double> energies(n_centers), forces, atom_virial, centroid, virial;
  energies_.download(energies.data(), n_centers);
  auto fetch = [&](device::AtomicSum<double> sum, std::int64_t size, std::vector<double>& host) {
    host.resize(size);
    const double* from = static_cast<const double*>(sum.data);
    if (sum.fixed_point) {
      device_.launch(FinishSums{sum, size, finished_.data(), true}, {device::blocks_for(size, FinishSums::threads), 1});
      from = finished_.data();
    }
    device_.download(host.data(), from, size * sizeof(double));
  };
  if (adjoint()) {
    fetch(sums_.forces, 3 * n, forces);
    if (results_->atom_virial != nullptr) fetch(sums_.atom_virial, 9 * n, atom_virial);
    if (results_->centroid_virial != nullptr) fetch(sums_.centroid_virial, 9 * n, centroid);
    if (results_->virial != nullptr) {
      virial.resize(9 * geometry_->n_structures);
      double* out = partial_virial_.data() + 9 * host_pieces_.size();
      sum_virial(out, true);
      device_.download(virial.data(), out, virial.size() * sizeof(double));
    }
  }
  device_.synchronize();
  for (std::int32_t i : chunks_.host.centers) results_->energies[i] = energies[i];
  auto add = [](double* to, const std::vector<double>& from) {
    for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
  };
  add(results_->forces, forces);
  add(results_->atom_virial, atom_virial);
  add(results_->centroid_virial, centroid);
  add(results_->virial, virial);
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::prepare_stages() {
  if (results_->stages == nullptr) return;
  results_->stages->clear();
  for (const LayerPlan<Real>& layer : plan_.layers)
    for (std::size_t k = 0; k < layer.slots.size(); ++k) {
      StageTensor tensor;
      tensor.name = layer.slot_names[k];
      tensor.n_channels = layer.slots[k].n_channels;
      tensor.rows = layer.slot_rows[k];
      tensor.values.assign(static_cast<std::size_t>(geometry_->n_centers) * tensor.rows.size() * tensor.n_channels,
                           0.0);
      tensor.gradients = tensor.values;
      results_->stages->push_back(std::move(tensor));
    }
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::copy_stages(int layer_index, const Chunk& chunk, const Real* values) {
  if (results_->stages == nullptr) return;
  const LayerPlan<Real>& layer = plan_.layers[layer_index];
  const std::size_t first_tensor = layer_index == 0 ? 0 : plan_.layers[0].slots.size();
  const std::size_t n = chunk.n_atoms, numbers = layer.arena_per_atom * n;
  std::vector<Real> value(numbers), gradient(numbers);
  std::vector<std::int32_t> centers(n);
  device_.download(value.data(), values, numbers * sizeof(Real));
  device_.download(gradient.data(), gradients_.data(), numbers * sizeof(Real));
  device_.download(centers.data(), chunk.centers, n * sizeof(std::int32_t));
  device_.synchronize();
  for (std::size_t k = 0; k < layer.slots.size(); ++k) {
    const Slot& slot = layer.slots[k];
    StageTensor& tensor = (*results_->stages)[first_tensor + k];
    for (std::size_t a = 0; a < n; ++a)
      for (int r = 0; r < slot.n_rows; ++r)
        for (int c = 0; c < slot.n_channels; ++c) {
          const std::size_t from = slot.offset * n + (r * n + a) * slot.stride + c;
          const std::size_t to = (static_cast<std::size_t>(centers[a]) * slot.n_rows + r) * slot.n_channels + c;
          tensor.values[to] = static_cast<double>(value[from]);
          tensor.gradients[to] = static_cast<double>(gradient[from]);
        }
  }
}

}  // namespace grace::gpu
