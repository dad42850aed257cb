// Entry points of one instruction-set unit of the operators: each works on a range of atoms or bonds. Plain data.
#pragma once

#include "grace/isa.hpp"
#include "grace/math/coupling.hpp"
#include "grace/math/spherical_harmonics.hpp"
#include "grace/operators/operators.hpp"

namespace grace::ops {

// Terms of one slot of a trilinear form, in rows of equal target.
template <class Real>
struct Gather {
  const int* first_term = nullptr;  // [n_targets + 1]
  const math::GatherTerm<Real>* terms = nullptr;
};

// Terms of a message basis; a pair is y * n_message_rows + w.
template <class Real>
struct MessagePlan {
  int n_harmonics = 0;
  Gather<Real> rows;   // targets: rows f, `first`: pair
  Gather<Real> pairs;  // targets: pairs, `first`: row f
};

// One term of a row linear map: rows x + atom * stride of `depth` numbers times the matrix [depth, n_columns].
template <class Real>
struct LinearTerm {
  const Real* x = nullptr;
  Index stride = 0;
  int depth = 0;
  const Real* matrix = nullptr;
};

// out[atom, target, :] = sum of terms first_term[target] .. first_term[target + 1] - 1, for some atoms of one run.
template <class Real>
struct LinearRows {
  Index n_targets = 0, n_columns = 0;
  const int* first_term = nullptr;
  const LinearTerm<Real>* terms = nullptr;
};

// One product of the matrix slot: sum over atoms of x[atom, 0 .. n_in)^T y[atom, 0 .. n_out), added to `sum`.
template <class Real>
struct OuterTerm {
  const Real* x = nullptr;
  const Real* y = nullptr;
};

template <class Real>
struct OuterRows {
  Index n_groups = 0, n_in = 0, n_out = 0;
  Index x_stride = 0, y_stride = 0;  // between atoms
  const int* first_term = nullptr;   // [n_groups + 1]
  const OuterTerm<Real>* terms = nullptr;
};

// Atoms that meet a matrix while it is in the L1 cache.
constexpr int linear_tile = 24;

// A radial network with rows of matrices padded to 64 bytes.
template <class Real>
struct NetworkPlan {
  int n_layers = 0;
  bool is_tanh = false;
  const int* width = nullptr;               // [n_layers + 1]
  const int* stride = nullptr;              // [n_layers + 1] the same, padded
  const Real* const* weights = nullptr;     // [n_layers]: [width[k], stride[k + 1]]
  const Real* const* transposed = nullptr;  // [n_layers]: [width[k + 1], stride[k]]
  const Real* basis = nullptr;
  const Real* slope = nullptr;
};

// Bonds whose layers are in the cache at a time; a multiple of the rows of a register tile.
constexpr int network_tile = 32;

template <class Real>
struct Kernels {
  // out: the whole result, of which the rows (or bonds) of atoms begin..end - 1 are written ...
  void (*basis_atoms)(const BondBasis<Real>&, Index begin, Index end, Real* out) = nullptr;
  void (*basis_radial)(const BondBasis<Real>&, Index begin, Index end, Real* out) = nullptr;
  void (*basis_harmonics)(const BondBasis<Real>&, Index begin, Index end, Real* out) = nullptr;
  // ... but here it is added to sum [n_elements, n_channels]
  void (*basis_chemical)(const BondBasis<Real>&, Index begin, Index end, Real* sum) = nullptr;
  // scratch: n_harmonics * n_message_rows vectors, aligned
  void (*message_atoms)(const MessageBasis<Real>&, const MessagePlan<Real>&, Index begin, Index end, Real* out,
                        Real* scratch) = nullptr;
  void (*message_radial)(const MessageBasis<Real>&, const MessagePlan<Real>&, Index begin, Index end, Real* out,
                         Real* scratch) = nullptr;
  void (*message_harmonics)(const MessageBasis<Real>&, const MessagePlan<Real>&, Index begin, Index end, Real* out,
                            Real* scratch) = nullptr;
  void (*message_bonds)(const MessageBasis<Real>&, const MessagePlan<Real>&, Index begin, Index end, Index first_bond,
                        Real* out, Real* scratch) = nullptr;
  void (*add_to)(Index n, const Real* values, Real* sum) = nullptr;
  // atoms atoms[0 .. count - 1], count <= linear_tile
  void (*linear)(const LinearRows<Real>&, const Index* atoms, int count, Real* out) = nullptr;
  void (*outer)(const OuterRows<Real>&, const Index* atoms, int count, Real* sum) = nullptr;
  void (*product)(const CouplingProduct<Real>&, const Gather<Real>&, Index begin, Index end, Real* out) = nullptr;
  // bonds begin..end - 1; scratch as network_scratch says, zero, aligned
  void (*network)(const NetworkPlan<Real>&, Index begin, Index end, Real* value, Real* derivative,
                  Real* scratch) = nullptr;
  // adds to sums[k] [width[k], stride[k + 1]]
  void (*network_adjoint)(const NetworkPlan<Real>&, Index begin, Index end, const Real* value_gradient,
                          const Real* derivative_gradient, Real* const* sums, Real* scratch) = nullptr;
  void (*harmonics)(const math::HarmonicsTable<double>&, Index begin, Index end, const double* vector, Real* values,
                    Real* gradient) = nullptr;
  void (*radial_basis)(int n_basis, int order, Index begin, Index end, const double* scaled, Real* basis, Real* slope,
                       double* scratch) = nullptr;
};

// Doubles of scratch that radial_basis needs.
constexpr int radial_basis_scratch(int n_basis) { return 2 * 8 * n_basis; }

// Numbers of scratch of the network kernels: 2 network_tile rows of every layer, twice that of hidden layers for the
// derivatives of activations, two buffers and a transposed layer of the widest.
template <class Real>
Index network_scratch(const NetworkPlan<Real>& plan) {
  Index widest = 0, sum = 0;
  for (int k = 0; k <= plan.n_layers; ++k) {
    widest = plan.stride[k] > widest ? plan.stride[k] : widest;
    sum += plan.stride[k];
  }
  return 2 * network_tile * (2 * sum + 3 * widest);
}

struct AllKernels {
  Kernels<double> fp64;
  Kernels<float> fp32;
};

const AllKernels& kernels_of(IsaLevel level);

// Those of select_isa(), which is asked every time: it costs nothing beside a kernel, and tests change it.
template <class Real>
const Kernels<Real>& selected_kernels();

}  // namespace grace::ops
