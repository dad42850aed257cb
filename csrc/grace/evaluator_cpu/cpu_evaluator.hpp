// The CPU evaluator: deals tiles of atoms to threads and runs the passes of one- and two-layer models.
//
// One layer:  per tile, forward and adjoint.
// Two layers: (1) layer-1 forward of all tiles -> message, densities; (2) message of ghosts; (3) layer-2 forward and
// adjoint -> dE/dI, dE/d(densities of layer 1); (4) dE/dI of ghosts back; (5) layer-1 adjoint, from the values kept in
// (1) where they fit in memory, recomputed otherwise.
#pragma once

#include <string>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "grace/evaluator.hpp"
#include "grace/evaluator_cpu/dispatch.hpp"
#include "grace/evaluator_cpu/tile_schedule.hpp"
#include "grace/evaluator_cpu/workspace.hpp"

namespace grace::cpu {

template <class Real>
class CpuEvaluator final : public Evaluator {
 public:
  CpuEvaluator(ModelSpec model, const EvaluatorOptions& options);

  const ModelSpec& model() const override { return spec_; }
  void compute(const Geometry& geometry, Results& results, MessageExchange* exchange) override;
  RadialTableReport radial_report() const override { return compiled_.radial_report; }
  int message_width() const override;
  std::size_t workspace_bytes() const override;
  std::string description() const override;

 private:
  // ---- every model (cpu_evaluator.cpp)
  void check(const Geometry& g, const Results& r, const MessageExchange* exchange) const;
  std::vector<std::int32_t> selected_centers() const;
  void set_schedule(const std::vector<std::int32_t>& centers);
  void prepare_threads();
  void start_tile(Workspace<Real>& w, const TileRange& range, const LayerPlan<Real>& plan);
  void finish_energies(Workspace<Real>& w, const double* y, double* gy);
  void scatter(Workspace<Real>& w);
  void one_layer_tile(Workspace<Real>& w, const TileRange& range);
  // Thread 0 adds to the caller's arrays directly; the others to their own, folded in thread order at the end.
  void clear_sums();
  void fold_sums();
  void prepare_stages();
  void copy_stages(int layer, const Tile<Real>& tile);

  // ---- two layers (cpu_evaluator_two_layers.cpp)
  void two_layers(const std::vector<std::int32_t>& wanted, MessageExchange* exchange);
  std::vector<std::int32_t> message_centers(const std::vector<std::int32_t>& wanted) const;
  std::int64_t owner_of(std::int64_t atom) const { return geometry_->owner == nullptr ? atom : geometry_->owner[atom]; }
  bool reserve_kept_values();
  void first_layer_forward(Workspace<Real>& w, const TileRange& range);
  void second_layer_tile(Workspace<Real>& w, const TileRange& range);
  void first_layer_backward(Workspace<Real>& w, const TileRange& range);
  void touch_message_gradient(Workspace<Real>& w);
  void fold_message_gradients(std::size_t n_rows, std::size_t width);

  template <class Function>
  void for_each_tile(Function f) {
#ifdef _OPENMP
#pragma omp parallel num_threads(n_threads_) if (n_threads_ > 1)
    {
      const int stride = omp_get_num_threads();
      for (int t = omp_get_thread_num(); t < n_threads_; t += stride)
        for (const TileRange& range : schedule_.tiles[t]) f(workspaces_[t], range);
    }
#else
    for (int t = 0; t < n_threads_; ++t)
      for (const TileRange& range : schedule_.tiles[t]) f(workspaces_[t], range);
#endif
  }

  int density_stride() const { return Workspace<Real>::density_stride(compiled_); }

  ModelSpec spec_;
  EvaluatorOptions options_;
  Kernels kernels_;
  TileKernels<Real> tile_kernels_;
  int tile_atoms_;
  CompiledModel<Real> compiled_;
  int n_threads_ = 1;
  std::vector<Workspace<Real>> workspaces_;

  // of the current call
  const Geometry* geometry_ = nullptr;
  Results* results_ = nullptr;
  Inputs inputs_;
  TileSchedule schedule_;
  AlignedVector<Real> message_, message_gradient_;    // [atom, or owner][message_width]
  AlignedVector<double> density_, density_gradient_;  // [centre][density_stride] of layer 1
  AlignedVector<Real> kept_;                          // layer-1 values of all tiles
  bool keep_ = false;
};

}  // namespace grace::cpu
