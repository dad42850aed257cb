// A model compiled for the device kernels. The structures live on the host; their pointers are device memory
// (device::ModelMemory). Tensors of a chunk are [row][atom][channel] in an arena, one for values and one for gradients;
// only rows that somebody reads are stored. Products are streamed in blocks of rows that stay in the L2 cache: made,
// mixed and reduced, and dropped; their adjoint needs only the operands.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/evaluator.hpp"
#include "grace/evaluator_cuda/chunk.hpp"
#include "grace/evaluator_cuda/product_plan.hpp"
#include "grace/math/coupling.hpp"
#include "grace/math/spherical_harmonics.hpp"
#include "grace/model/spec.hpp"
#include "grace/plan/layout_types.hpp"

namespace grace::gpu {

using plan::Slot;

// target = (target +) sum over sources: row x weight matrix. One kernel for channel mixes, reductions and the adjoints
// of both (with transposed matrices).
struct GemmSource {
  RowAddress row;            // its stride is the number of rows of the matrix
  std::int64_t weights = 0;  // start of a matrix [row.stride][n_columns] in RowGemm::weights
};
struct GemmTarget {
  RowAddress row;  // its stride is RowGemm::n_columns
  int first_source = 0;
  int n_sources = 0;
  int accumulate = 0;  // add to what is there
};
template <class Real>
struct RowGemm {
  int n_targets = 0;
  int n_columns = 0;
  int most_inputs = 0;  // largest source stride
  const GemmTarget* targets = nullptr;
  const GemmSource* sources = nullptr;
  const Real* weights = nullptr;
  std::int64_t element_stride = 0;  // numbers between the matrices of two elements; 0: the same for all
};

// Radial functions of one network (plan/radial_table.hpp): functions of a bond are [lmax + 1][stride].
template <class Real>
struct RadialPlan {
  int lmax = 0;
  int n_channels = 0;
  int stride = 0;
  int width = 0;  // (lmax + 1) * stride
  // table: on interval k, R = (1 - x)^3 sum_d coefficients[k][l][d][stride] t^d, t in [-1, 1]
  int n_intervals = 0;  // 0: exact network
  plan::TableIntervals intervals;
  int n_coefficients = 0;
  const Real* coefficients = nullptr;
  // exact: Chebyshev basis and dense layers, row-major [n_in][n_out]; the last layer has `width` outputs as above
  int n_basis = 0;
  int envelope_order = 0;
  bool is_tanh = false;
  static constexpr int max_layers = 8;
  int n_layers = 0;
  int layer_in[max_layers] = {};
  int layer_out[max_layers] = {};
  const Real* layer_weights[max_layers] = {};
  int widest = 0;  // of the inputs of all layers
};

// Terms grouped by target: out[target] = sum of coefficient * first * second over [first_term[t], first_term[t + 1]).
template <class Real>
struct GatherTable {
  int n_targets = 0;
  const int* first_term = nullptr;
  const math::GatherTerm<Real>* terms = nullptr;
};

template <class Real>
struct MessagePlan {
  int n_rows = 0;                // rows of the message I; numbers per atom = n_rows * radial.stride
  int n_targets = 0;             // rows of YI
  GatherTable<Real> forward;     // YI rows from pairs (first = lm * n_rows + message row; second unused)
  GatherTable<Real> adjoint;     // pairs from YI rows (first = YI row), one target per pair
  const Real* factor = nullptr;  // [n_elements], inverse neighbour counts
};

// One block of product rows and what becomes of it.
template <class Real>
struct ProductStep {
  ProductBlock<Real> block;              // rows from operands, and its adjoint (product_plan.hpp)
  std::vector<RowGemm<Real>> consumers;  // forward: mixes and reductions that read the block
  std::vector<RowGemm<Real>> gradients;  // adjoint: gradients of the block's rows from those of the consumers
};

// One stage of the model: forward runs `forward`, then the steps; the adjoint runs the steps, then `adjoint`.
template <class Real>
struct LayerStage {
  std::string output;
  std::vector<RowGemm<Real>> forward;
  std::vector<ProductStep<Real>> steps;
  std::vector<RowGemm<Real>> adjoint;
};

struct NormPlan {
  bool present = false;
  bool only_nonlinear = false;
  double gate = 1.0;
  const double* scale = nullptr;
};

// Numbers [begin, end) per atom of an arena.
struct ArenaRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

template <class Real>
struct LayerPlan {
  RadialPlan<Real> radial;
  math::HarmonicsTable<Real> harmonics;
  int n_harmonics = 0;

  int basis = -1;                      // slot of A or B0, -1: none
  const Real* chemical = nullptr;      // [n_elements][radial.stride]
  const Real* basis_factor = nullptr;  // [n_elements], inverse neighbour counts

  int message_basis = -1;  // slot of YI, -1: none
  MessagePlan<Real> message_plan;

  std::vector<LayerStage<Real>> stages;  // in order of evaluation

  std::vector<Slot> slots;
  std::vector<std::string> slot_names;
  std::vector<std::vector<int>> slot_rows;  // model row of every stored row
  std::size_t arena_per_atom = 0;
  std::size_t block_per_atom = 0;  // largest product block

  std::vector<ArenaRange> zero_values;     // to clear before the forward pass (accumulated without a first writer)
  std::vector<ArenaRange> zero_gradients;  // to clear before the adjoint

  int density = -1;  // slot of rho or I2
  int message = -1;  // slot of the message this layer makes (layer 1 of two)
  NormPlan norm;
};

// Readout MLP of the summed densities, in double.
struct ReadoutPlan {
  int n_densities = 0;  // including the linear one
  bool is_tanh = false;
  static constexpr int max_layers = 8;
  int n_layers = 0;
  int layer_in[max_layers] = {};
  int layer_out[max_layers] = {};
  const double* layer_weights[max_layers] = {};  // row-major [n_in][n_out]
  int widest = 0;
  double output_scale = 1.0;
  const double* shift = nullptr;  // [n_elements], eV
};

template <class Real>
struct ModelPlan {
  std::vector<LayerPlan<Real>> layers;
  ReadoutPlan readout;
  RadialTableReport radial_report;  // the worse of the layers
  const double* pair_cutoffs = nullptr;
  int n_elements = 0;
};

// block_bytes_per_atom: size that a product block should not exceed (at least one path is taken), so that a block of a
// whole chunk stays in the L2 cache.
template <class Real>
ModelPlan<Real> make_plan(const ModelSpec& spec, RadialMode radial, std::size_t block_bytes_per_atom,
                          device::ModelMemory& memory);

}  // namespace grace::gpu
