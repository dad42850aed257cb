// A model compiled for the CPU kernels: plain data, read by every instruction-set unit (no std:: types, see GRACE_ISA).
//
// Tensors of a tile are [row][atom][channel], channel fastest and padded to 64 bytes; `stride` is that padded count.
// Only rows that somebody reads are stored. Products are streamed: a block of rows is made, mixed and reduced while it
// is in cache, and dropped; the adjoint needs only its operands.
#pragma once

#include <cstddef>
#include <cstdint>

#include "grace/math/coupling.hpp"
#include "grace/math/spherical_harmonics.hpp"
#include "grace/plan/layout_types.hpp"

namespace grace::cpu {

// Channels are padded to this many bytes whatever the instruction set, so that buffers do not depend on it.
constexpr int row_bytes = 64;

// Weight matrices are packed for the small-matrix kernel: columns in panels of 1 to 3 units of 64 bytes, each panel
// [n_in][panel], so that a panel is one contiguous stream. Units of the next panel when `left` units remain:
constexpr int panel_units(int left) { return left == 3 || left >= 5 ? 3 : left == 2 || left == 4 ? 2 : 1; }

using plan::Slot;

// out[target] (+)= sum of terms in [first_term[t], first_term[t + 1])
template <class Real>
struct GatherTable {
  int n_targets = 0;
  const int* target = nullptr;
  const int* first_term = nullptr;
  const math::GatherTerm<Real>* terms = nullptr;
};

// Consecutive rows of one tensor that pass through one weight matrix to consecutive rows of another.
struct Segment {
  int in_row = 0;
  int out_row = 0;
  int n_rows = 0;
  int group = 0;
};

// Packed matrices [group] of n_in x out_stride, and their transposes n_out x in_stride; [element][group] if
// per_element.
template <class Real>
struct Weights {
  int n_in = 0, n_out = 0, in_stride = 0, out_stride = 0, n_groups = 0;
  bool per_element = false;
  const Real* forward = nullptr;
  const Real* transposed = nullptr;
};

// One linear map into a stored tensor: an operand of a channel mix, or one input of a reduction.
template <class Real>
struct LinearOp {
  static constexpr int block = -1;
  int input = 0;  // slot, or `block`: the rows of the product block at hand
  int output = 0;
  bool overwrite = false;  // first writer of the output rows (forward)
  Weights<Real> weights;
  int n_segments = 0;
  const Segment* segments = nullptr;
};

template <class Real>
struct Block {
  int n_rows = 0;
  GatherTable<Real> forward;        // block rows from left and right rows
  GatherTable<Real> adjoint_left;   // left gradient rows from block gradient and right rows
  GatherTable<Real> adjoint_right;  // empty when both operands are one tensor (merged into adjoint_left)
  int n_consumers = 0;
  const LinearOp<Real>* consumers = nullptr;  // what becomes of the rows, and the right operands of the same mixes
};

template <class Real>
struct ProductOp {
  int left = 0;
  int right = 0;
  int stride = 0;
  int n_blocks = 0;
  const Block<Real>* blocks = nullptr;
};

template <class Real>
struct Op {
  enum class Kind { linear, product };
  Kind kind = Kind::linear;
  LinearOp<Real> linear;
  ProductOp<Real> product;
};

using plan::TableIntervals;

// Radial functions of one network: row of a bond = [lmax + 1][stride].
template <class Real>
struct RadialPlan {
  int lmax = 0;
  int n_channels = 0;
  int stride = 0;  // padded channels
  int width = 0;   // (lmax + 1) * stride
  // table: on interval k, R = (1 - x)^3 sum_d coefficients[k][d][width] t^d, t in [-1, 1]
  int n_intervals = 0;  // 0: exact network
  TableIntervals intervals;
  int n_coefficients = 0;
  const Real* coefficients = nullptr;  // [interval], packed n_coefficients x width
  // exact: Chebyshev basis and dense layers, packed n_in x padded n_out
  int n_basis = 0;
  int envelope_order = 0;
  int n_layers = 0;
  bool is_tanh = false;
  const int* layer_in = nullptr;
  const int* layer_out = nullptr;  // padded
  const Real* const* layer_weights = nullptr;
  int widest = 0;
};

template <class Real>
struct LayerPlan {
  RadialPlan<Real> radial;
  math::HarmonicsTable<Real> harmonics;
  int n_harmonics = 0;

  int basis = -1;                      // slot of A or B0
  const Real* chemical = nullptr;      // [n_elements][stride]
  const Real* basis_factor = nullptr;  // [n_elements], inverse neighbour counts

  int message_basis = -1;                // slot of YI
  int n_message_rows = 0;                // rows of the message I
  const Real* message_factor = nullptr;  // [n_elements]
  GatherTable<Real> message_forward;     // YI rows from pairs (first = pair index lm * n_message_rows + row)
  GatherTable<Real> message_adjoint;     // pairs from YI rows

  int n_ops = 0;
  const Op<Real>* ops = nullptr;

  int n_slots = 0;
  const Slot* slots = nullptr;
  std::size_t arena_per_atom = 0;  // numbers per atom for all slots of the layer
  std::size_t block_per_atom = 0;  // largest product block

  int n_accumulated = 0;  // slots that linear ops add to and that must start at zero
  const int* accumulated = nullptr;

  int density = -1;  // slot of rho or I2
  int message = -1;  // slot of the message this layer makes (layer 1 of two)
};

// RMS norm (math/density_norm.hpp) and readout of the summed densities; double for fp64 and mixed.
struct NormPlan {
  bool present = false;
  bool only_nonlinear = false;
  double gate = 1.0;
  const double* scale = nullptr;
};

struct ReadoutPlan {
  int n_densities = 0;  // including the linear one
  bool is_tanh = false;
  int n_layers = 0;
  const int* layer_in = nullptr;
  const int* layer_out = nullptr;                   // padded to the vector row
  const double* const* layer_weights = nullptr;     // packed n_in x padded n_out
  const int* layer_transposed_width = nullptr;      // padded n_in
  const double* const* layer_transposed = nullptr;  // packed n_out x padded n_in
  int widest = 0;
};

}  // namespace grace::cpu
