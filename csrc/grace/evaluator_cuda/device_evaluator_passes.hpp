// DeviceEvaluator: the passes over the chunks.
#pragma once

#include "grace/evaluator_cuda/basis.hpp"
#include "grace/evaluator_cuda/device_evaluator.hpp"
#include "grace/evaluator_cuda/message_basis.hpp"
#include "grace/evaluator_cuda/product.hpp"
#include "grace/evaluator_cuda/readout.hpp"
#include "grace/evaluator_cuda/row_gemm.hpp"

namespace grace::gpu {

constexpr std::int64_t replay_atoms = 20000;  // up to here launches take a good part of the step, and it is recorded

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::run(MessageExchange* exchange) {
  const auto blocks = device::blocks_for(geometry_->n_atoms, CheckPositions::threads);
  device_.launch(CheckPositions{frame_.positions, geometry_->n_atoms, flags_.data()}, {blocks, 1});
  const bool recorded = exchange == nullptr && results_->stages == nullptr && geometry_->n_atoms <= replay_atoms &&
                        chunks_.host.n_chunks() > 0;
  auto passes = [&] {
    if (plan_.layers.size() == 1)
      one_layer();
    else
      two_layers(exchange);
  };
  if (recorded)
    device_.replay(replay_key(), passes);
  else
    passes();
  device_.launch(FindClosest{frame_, geometry_->n_centers, flags_.data(), closest_.data()}, {1, 1});
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::collect(const LayerPlan<Real>& layer, const Chunk& chunk) {
  collect_bonds(device_, frame_, chunk, layer.radial, bonds_.bonds(), flags_.data());
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::layer_forward(const LayerPlan<Real>& layer, const Chunk& chunk, Real* values) {
  for (const ArenaRange& range : layer.zero_values)
    device_.fill_zero(values + range.begin * chunk.n_atoms, (range.end - range.begin) * chunk.n_atoms * sizeof(Real));
  if (layer.basis >= 0) basis_forward(device_, layer, chunk, bonds_.bonds(), values);
  if (layer.message_basis >= 0) message_forward(device_, layer, frame_, chunk, bonds_.bonds(), message_.data(), values);
  Real* block = block_.data();
  for (const LayerStage<Real>& stage : layer.stages) {
    for (const RowGemm<Real>& gemm : stage.forward) row_gemm(device_, gemm, chunk, values, block, values, block);
    for (const ProductStep<Real>& step : stage.steps) {
      product_forward(device_, step.block, chunk.n_atoms, values, block);
      for (const RowGemm<Real>& gemm : step.consumers) row_gemm(device_, gemm, chunk, values, block, values, block);
    }
  }
}

// From the gradients of densities (and message) in gradients_ to the forces.
template <class Device, class Real>
void DeviceEvaluator<Device, Real>::layer_adjoint(const LayerPlan<Real>& layer, const Chunk& chunk,
                                                  const Real* values) {
  Real* gradients = gradients_.data();
  Real* block = block_.data();
  for (const ArenaRange& range : layer.zero_gradients)
    device_.fill_zero(gradients + range.begin * chunk.n_atoms,
                      (range.end - range.begin) * chunk.n_atoms * sizeof(Real));
  for (auto stage = layer.stages.rbegin(); stage != layer.stages.rend(); ++stage) {
    for (const ProductStep<Real>& step : stage->steps) {
      for (const RowGemm<Real>& gemm : step.gradients)
        row_gemm(device_, gemm, chunk, gradients, block, gradients, block);
      product_adjoint(device_, step.block, chunk.n_atoms, values, block, gradients);
    }
    for (const RowGemm<Real>& gemm : stage->adjoint) row_gemm(device_, gemm, chunk, gradients, block, gradients, block);
  }
  if (layer.basis >= 0) basis_adjoint(device_, layer, chunk, bonds_.bonds(), gradients);
  if (layer.message_basis >= 0)
    message_adjoint(device_, layer, frame_, chunk, bonds_.bonds(), message_.data(), gradients, message_sum_);
  scatter_forces(device_, frame_, chunk, bonds_.bonds(), sums_);
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::one_layer() {
  const LayerPlan<Real>& layer = plan_.layers[0];
  double* energies = geometry_->space == MemorySpace::device ? results_->energies : energies_.data();
  for (int c = 0; c < chunks_.host.n_chunks(); ++c) {
    const Chunk chunk = chunks_.chunk(c);
    collect(layer, chunk);
    layer_forward(layer, chunk, values_.data());
    readout(device_, plan_.readout, layer, static_cast<const LayerPlan<Real>*>(nullptr), chunk, values_.data(), nullptr,
            energies, adjoint() ? gradients_.data() : nullptr, nullptr);
    if (!adjoint()) continue;
    layer_adjoint(layer, chunk, values_.data());
    copy_stages(0, chunk, values_.data());
  }
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::two_layers(MessageExchange* exchange) {
  const LayerPlan<Real>&first = plan_.layers[0], &second = plan_.layers[1];
  const int n_densities = plan_.readout.n_densities;
  const Geometry& g = *geometry_;
  const std::size_t rows = g.owner != nullptr ? g.n_centers : g.n_atoms;
  const std::int64_t numbers = static_cast<std::int64_t>(rows) * message_width();
  const Chunks& first_chunks = chunks_differ_ ? first_chunks_ : chunks_;
  double* energies = g.space == MemorySpace::device ? results_->energies : energies_.data();
  Real* first_values = keep_first_ ? first_values_.data() : values_.data();

  for (int c = 0; c < first_chunks.host.n_chunks(); ++c) {
    const Chunk chunk = first_chunks.chunk(c);
    collect(first, chunk);
    layer_forward(first, chunk, first_values);
    store_message(device_, first, chunk, first_values, message_.data());
    store_densities(device_, first, n_densities, chunk, first_values, densities_.data());
  }
  const bool exchanged = exchange != nullptr && g.owner == nullptr;
  if (exchanged) exchange_rows(*exchange, message_.data(), true);

  if (adjoint()) {
    device_.fill_zero(message_sum_.data, numbers * (options_.deterministic ? sizeof(std::int64_t) : sizeof(Real)));
    device_.fill_zero(density_gradients_.data(), g.n_centers * n_densities * sizeof(double));
  }
  for (int c = 0; c < chunks_.host.n_chunks(); ++c) {
    const Chunk chunk = chunks_.chunk(c);
    collect(second, chunk);
    layer_forward(second, chunk, values_.data());
    readout(device_, plan_.readout, second, &first, chunk, values_.data(), densities_.data(), energies,
            adjoint() ? gradients_.data() : nullptr, density_gradients_.data());
    if (!adjoint()) continue;
    layer_adjoint(second, chunk, values_.data());
    copy_stages(1, chunk, values_.data());
  }
  if (!adjoint()) return;
  if (options_.deterministic) from_fixed_point(device_, message_sum_, numbers, message_gradient_.data());
  if (exchanged) exchange_rows(*exchange, message_gradient_.data(), false);

  for (int c = 0; c < first_chunks.host.n_chunks(); ++c) {
    const Chunk chunk = first_chunks.chunk(c);
    collect(first, chunk);
    if (!keep_first_) layer_forward(first, chunk, first_values);
    load_message_gradient(device_, first, chunk, message_gradient_.data(), gradients_.data());
    load_density_gradients(device_, first, n_densities, chunk, density_gradients_.data(), gradients_.data());
    layer_adjoint(first, chunk, first_values);
    copy_stages(0, chunk, first_values);
  }
}

template <class Device, class Real>
void DeviceEvaluator<Device, Real>::exchange_rows(MessageExchange& exchange, Real* rows, bool forward) {
  const std::size_t n = static_cast<std::size_t>(geometry_->n_atoms) * message_width();
  host_message_.resize(n);
  device_.download(host_message_.data(), rows, n * sizeof(Real));
  device_.synchronize();
  if (forward)
    exchange.forward(host_message_.data(), message_width());
  else
    exchange.reverse(host_message_.data(), message_width());
  device_.upload(rows, host_message_.data(), n * sizeof(Real));
}

}  // namespace grace::gpu
