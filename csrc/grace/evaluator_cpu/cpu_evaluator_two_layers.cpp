// Passes of two-layer models (see cpu_evaluator.hpp).
#include <algorithm>
#include <utility>

#include "grace/evaluator_cpu/cpu_evaluator.hpp"
#include "grace/evaluator_cpu/densities.hpp"

namespace grace::cpu {
namespace {

constexpr std::size_t kept_bytes = 1u << 30;  // layer-1 values kept between the passes; above, they are recomputed
constexpr int touch_block = 64;               // atoms per block of a thread's message gradient

}  // namespace

// Layer 1 is needed for the wanted centres and for the centres their neighbours are (images of).
template <class Real>
std::vector<std::int32_t> CpuEvaluator<Real>::message_centers(const std::vector<std::int32_t>& wanted) const {
  if (geometry_->selection == nullptr) return wanted;
  std::vector<char> needed(geometry_->n_centers, 0);
  for (std::int32_t i : wanted) {
    needed[i] = 1;
    for (std::int64_t p = geometry_->first[i]; p < geometry_->first[i + 1]; ++p) {
      const std::int64_t j = owner_of(geometry_->neighbor[p]);
      if (j < geometry_->n_centers && geometry_->species[j] >= 0) needed[j] = 1;
    }
  }
  std::vector<std::int32_t> centers;
  for (std::int64_t i = 0; i < geometry_->n_centers; ++i)
    if (needed[i] != 0) centers.push_back(static_cast<std::int32_t>(i));
  return centers;
}

template <class Real>
void CpuEvaluator<Real>::two_layers(const std::vector<std::int32_t>& wanted, MessageExchange* exchange) {
  const int width = message_width();
  const bool adjoint = results_->forces != nullptr;
  const std::size_t n_rows = geometry_->owner != nullptr ? geometry_->n_centers : geometry_->n_atoms;
  const std::size_t stride = density_stride();
  message_.resize(n_rows * width);
  density_.resize(geometry_->n_centers * stride);
  if (adjoint) density_gradient_.assign(geometry_->n_centers * stride, 0.0);

  const std::vector<std::int32_t> centers = message_centers(wanted);
  set_schedule(centers);
  keep_ = adjoint && reserve_kept_values();
  prepare_threads();
  for_each_tile([this](Workspace<Real>& w, const TileRange& range) { first_layer_forward(w, range); });
  if (exchange != nullptr && geometry_->owner == nullptr) exchange->forward(message_.data(), width);

  if (adjoint) {
    message_gradient_.assign(n_rows * width, Real(0));
    for (int t = 1; t < n_threads_; ++t) {
      workspaces_[t].message_gradient.resize(n_rows * width);
      workspaces_[t].touched.assign(n_rows / touch_block + 1, 0);
    }
  }
  TileSchedule first_layer;
  if (geometry_->selection != nullptr) {
    first_layer = std::move(schedule_);
    set_schedule(wanted);
    prepare_threads();
  }
  for_each_tile([this](Workspace<Real>& w, const TileRange& range) { second_layer_tile(w, range); });
  if (geometry_->selection != nullptr) schedule_ = std::move(first_layer);
  if (!adjoint) return;
  fold_message_gradients(n_rows, width);
  if (exchange != nullptr && geometry_->owner == nullptr) exchange->reverse(message_gradient_.data(), width);
  prepare_threads();
  for_each_tile([this](Workspace<Real>& w, const TileRange& range) { first_layer_backward(w, range); });
}

template <class Real>
bool CpuEvaluator<Real>::reserve_kept_values() {
  std::size_t total = 0;
  for (auto& thread_tiles : schedule_.tiles)
    for (TileRange& range : thread_tiles) {
      range.kept = total;
      total += compiled_.layers[0].plan.arena_per_atom * static_cast<std::size_t>(range.end - range.begin);
      total = (total + 15) / 16 * 16;
    }
  if (total * sizeof(Real) > kept_bytes) return false;
  if (kept_.size() < total) kept_.resize(total);
  return true;
}

template <class Real>
void CpuEvaluator<Real>::first_layer_forward(Workspace<Real>& w, const TileRange& range) {
  const CompiledLayer<Real>& layer = compiled_.layers[0];
  start_tile(w, range, layer.plan);
  if (keep_) w.tile.values = kept_.data() + range.kept;
  tile_kernels_.layer_forward(layer.plan, w.tile);
  const int stride = density_stride();
  double* x = w.densities();
  read_densities(layer.plan, w.tile, stride, x);
  const Slot& slot = layer.plan.slots[layer.plan.message];
  const Real* rows = w.tile.values + slot.offset * w.tile.n_atoms;
  for (int a = 0; a < w.tile.n_atoms; ++a) {
    const std::int64_t i = w.tile.atoms[a];
    std::copy(x + a * stride, x + (a + 1) * stride, density_.data() + i * stride);
    Real* message = message_.data() + i * message_width();
    for (int r = 0; r < slot.n_rows; ++r)
      std::copy_n(rows + (static_cast<std::size_t>(r) * w.tile.n_atoms + a) * slot.stride, slot.stride,
                  message + r * slot.stride);
  }
}

template <class Real>
void CpuEvaluator<Real>::second_layer_tile(Workspace<Real>& w, const TileRange& range) {
  const CompiledLayer<Real>& layer = compiled_.layers[1];
  start_tile(w, range, layer.plan);
  w.tile.message = message_.data();
  w.tile.owner = geometry_->owner;
  tile_kernels_.layer_forward(layer.plan, w.tile);
  const int stride = density_stride(), n = compiled_.readout.n_densities, atoms = w.tile.n_atoms;
  const std::size_t plane = static_cast<std::size_t>(tile_atoms_) * stride;
  double* x = w.densities();
  double *y = x + plane, *gy = y + plane, *other = gy + plane;
  // densities of layer 1, normalised, plus those of layer 2
  for (int a = 0; a < atoms; ++a) {
    const double* from = density_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride;
    std::copy(from, from + stride, x + a * stride);
  }
  apply_norm(compiled_.layers[0].norm, atoms, n, stride, x, y);
  read_densities(layer.plan, w.tile, stride, x);
  apply_norm(layer.norm, atoms, n, stride, x, other);
  for (int a = 0; a < atoms; ++a)
    for (int k = 0; k < n; ++k) y[a * stride + k] += other[a * stride + k];
  finish_energies(w, y, results_->forces == nullptr ? nullptr : gy);
  if (results_->forces == nullptr) return;

  apply_norm_adjoint(layer.norm, atoms, n, stride, x, gy, other);
  write_density_gradient(layer.plan, w.tile, stride, other);
  for (int a = 0; a < atoms; ++a) {
    const double* from = density_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride;
    std::copy(from, from + stride, x + a * stride);
  }
  apply_norm_adjoint(compiled_.layers[0].norm, atoms, n, stride, x, gy, other);
  for (int a = 0; a < atoms; ++a)
    std::copy(other + a * stride, other + a * stride + n,
              density_gradient_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride);

  w.tile.message_gradient = message_gradient_.data();
  if (&w != &workspaces_[0]) {
    w.tile.message_gradient = w.message_gradient.data();
    touch_message_gradient(w);
  }
  tile_kernels_.layer_backward(layer.plan, w.tile);
  copy_stages(1, w.tile);
  scatter(w);
}

// Zeroes the blocks of this thread's message gradient that the tile's bonds will add to.
template <class Real>
void CpuEvaluator<Real>::touch_message_gradient(Workspace<Real>& w) {
  const std::size_t width = message_width(), n = w.message_gradient.size();
  for (int b = 0; b < w.tile.bonds.count; ++b) {
    const std::size_t block = owner_of(w.tile.bonds.neighbor[b]) / touch_block;
    if (w.touched[block] != 0) continue;
    w.touched[block] = 1;
    const std::size_t begin = block * touch_block * width, end = std::min(n, begin + touch_block * width);
    std::fill(w.message_gradient.begin() + begin, w.message_gradient.begin() + end, Real(0));
  }
}

template <class Real>
void CpuEvaluator<Real>::fold_message_gradients(std::size_t n_rows, std::size_t width) {
  for (int t = 1; t < n_threads_; ++t) {
    const Workspace<Real>& w = workspaces_[t];
    for (std::size_t block = 0; block < w.touched.size(); ++block) {
      if (w.touched[block] == 0) continue;
      const std::size_t begin = block * touch_block * width,
                        end = std::min(n_rows * width, begin + touch_block * width);
      for (std::size_t i = begin; i < end; ++i) message_gradient_[i] += w.message_gradient[i];
    }
  }
}

template <class Real>
void CpuEvaluator<Real>::first_layer_backward(Workspace<Real>& w, const TileRange& range) {
  const CompiledLayer<Real>& layer = compiled_.layers[0];
  start_tile(w, range, layer.plan);
  if (keep_)
    w.tile.values = kept_.data() + range.kept;
  else
    tile_kernels_.layer_forward(layer.plan, w.tile);
  const int stride = density_stride();
  double* gx = w.densities();
  const Slot& slot = layer.plan.slots[layer.plan.message];
  Real* rows = w.tile.gradients + slot.offset * w.tile.n_atoms;
  for (int a = 0; a < w.tile.n_atoms; ++a) {
    const std::int64_t i = w.tile.atoms[a];
    std::copy_n(density_gradient_.data() + i * stride, stride, gx + a * stride);
    const Real* gradient = message_gradient_.data() + i * message_width();
    for (int r = 0; r < slot.n_rows; ++r)
      std::copy_n(gradient + r * slot.stride, slot.stride,
                  rows + (static_cast<std::size_t>(r) * w.tile.n_atoms + a) * slot.stride);
  }
  write_density_gradient(layer.plan, w.tile, stride, gx);
  tile_kernels_.layer_backward(layer.plan, w.tile);
  copy_stages(0, w.tile);
  scatter(w);
}

template void CpuEvaluator<double>::two_layers(const std::vector<std::int32_t>&, MessageExchange*);
template void CpuEvaluator<float>::two_layers(const std::vector<std::int32_t>&, MessageExchange*);

}  // namespace grace::cpu
