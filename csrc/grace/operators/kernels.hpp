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
  void (*product)(const CouplingProduct<Real>&, const Gather<Real>&, Index begin, Index end, Real* out) = nullptr;
  // bonds begin..end - 1
  void (*harmonics)(const math::HarmonicsTable<double>&, Index begin, Index end, const double* vector, Real* values,
                    Real* gradient) = nullptr;
  void (*radial_basis)(int n_basis, int order, Index begin, Index end, const double* scaled, Real* basis, Real* slope,
                       double* scratch) = nullptr;
};

// Doubles of scratch that radial_basis needs.
constexpr int radial_basis_scratch(int n_basis) { return 2 * 8 * n_basis; }

struct AllKernels {
  Kernels<double> fp64;
  Kernels<float> fp32;
};

const AllKernels& kernels_of(IsaLevel level);

// Those of select_isa(), which is asked every time: it costs nothing beside a kernel, and tests change it.
template <class Real>
const Kernels<Real>& selected_kernels();

}  // namespace grace::ops
