// The multilinear forms behind a GRACE model, each as one function per free slot: values, gradients of any order and
// what training through forces needs are calls of these (spec: the derivative of a form with respect to one operand is
// the form with that slot left free).
//
// Arrays are row-major, channels fastest, owned by the caller; Real is float or double. Bonds are sorted by centre:
// those of atom i are first[i] .. first[i + 1] - 1. Results do not depend on the number of threads (0: all).
#pragma once

#include <cstdint>

namespace grace::ops {

using Index = std::int64_t;

// ---- bond basis: F = sum_b sum_lm sum_n A[i_b, lm, n] R[b, l(lm), n] Y[b, lm] z[s_b, n] ----------------------------

enum class BondSlot { atoms, radial, harmonics, chemical };

template <class Real>
struct BondBasis {
  Index n_atoms = 0, n_bonds = 0, n_elements = 0, n_channels = 0;
  int lmax = 0;
  const Index* first = nullptr;     // [n_atoms + 1]
  const Index* species = nullptr;   // [n_bonds] element s_b of the neighbour
  const Real* atoms = nullptr;      // A [n_atoms, (lmax + 1)^2, n_channels]
  const Real* radial = nullptr;     // R [n_bonds, lmax + 1, n_channels]
  const Real* harmonics = nullptr;  // Y [n_bonds, (lmax + 1)^2]
  const Real* chemical = nullptr;   // z [n_elements, n_channels]
};

// out = dF/d(slot), in the shape of that operand, which is not read.
template <class Real>
void bond_basis(BondSlot slot, const BondBasis<Real>& form, Real* out, int n_threads);

// ---- message basis: F = sum_b sum_t c_t YI[i_b, f_t, n] R[b, l(y_t), n] Y[b, y_t] I[j_b, w_t, n] -------------------

enum class MessageSlot { atoms, radial, harmonics, message };

template <class Real>
struct MessageBasis {
  Index n_atoms = 0, n_bonds = 0, n_channels = 0;
  Index n_rows = 0, n_message_rows = 0, n_terms = 0;
  int lmax = 0;
  const Index* first = nullptr;          // [n_atoms + 1]
  const Index* neighbor = nullptr;       // [n_bonds] atom j_b
  const std::int32_t* terms = nullptr;   // [n_terms, 3] row f, harmonic y, message row w
  const double* coefficients = nullptr;  // [n_terms]
  const Real* atoms = nullptr;           // YI [n_atoms, n_rows, n_channels]
  const Real* radial = nullptr;          // R [n_bonds, lmax + 1, n_channels]
  const Real* harmonics = nullptr;       // Y [n_bonds, (lmax + 1)^2]
  const Real* message = nullptr;         // I [n_atoms, n_message_rows, n_channels]
};

template <class Real>
void message_basis(MessageSlot slot, const MessageBasis<Real>& form, Real* out, int n_threads);

// ---- coupling product: F = sum_a sum_t c_t P[a, row_t, n] L[a, left_t, n] S[a, right_t, n] -------------------------

// One slot of the form: out[a, target, n] = sum over its terms of c first[a, ., n] second[a, ., n].
template <class Real>
struct CouplingProduct {
  Index n_atoms = 0, n_channels = 0, n_terms = 0;
  Index n_targets = 0, n_first = 0, n_second = 0;  // rows per atom
  const std::int32_t* terms = nullptr;             // [n_terms, 3] target, first, second; sorted by target
  const double* coefficients = nullptr;            // [n_terms]
  const Real* first = nullptr;                     // [n_atoms, n_first, n_channels]
  const Real* second = nullptr;                    // [n_atoms, n_second, n_channels]
};

template <class Real>
void coupling_product(const CouplingProduct<Real>& form, Real* out, int n_threads);

// ---- row linear: F = sum_p sum_t sum_a O[a, w_t] . (X_p[a, s_t] M_p[e_a, g_t]) -------------------------------------

// Channel mixes and reductions: rows of one or more tensors meet matrices that are chosen by group and, where matrices
// differ between elements, by the element of the atom. Parts share O, atoms and runs.
struct RowTerms {
  Index n_terms = 0;
  const std::int32_t* terms = nullptr;  // [n_terms, 3] target row w, source row s, group g; sorted as each slot says
  Index n_sources = 0, n_groups = 0;
};

// Atoms order[run_first[e]] .. order[run_first[e + 1] - 1] use matrices e.
struct RowRuns {
  Index n_atoms = 0, n_runs = 0;
  const Index* order = nullptr;      // [n_atoms], a permutation
  const Index* run_first = nullptr;  // [n_runs + 1]
};

template <class Real>
struct RowPart {
  RowTerms rows;
  Index n_in = 0;
  const Real* inputs = nullptr;    // X [n_atoms, n_sources, n_in]
  const Real* matrices = nullptr;  // M [n_runs, n_groups, n_in, n_out]
};

// out [n_atoms, n_targets, n_out]: O; terms sorted by target.
template <class Real>
void row_linear(const RowRuns& runs, Index n_targets, Index n_out, Index n_parts, const RowPart<Real>* parts, Real* out,
                int n_threads);

// out [n_atoms, n_sources, n_in]: X of the part, which is not read; terms sorted by source.
template <class Real>
void row_linear_inputs(const RowRuns& runs, Index n_targets, Index n_out, const RowPart<Real>& part,
                       const Real* gradient, Real* out, int n_threads);

// out [n_runs, n_groups, n_in, n_out]: M of the part, which is not read; terms sorted by group.
template <class Real>
void row_linear_matrices(const RowRuns& runs, Index n_targets, Index n_out, const RowPart<Real>& part,
                         const Real* gradient, Real* out, int n_threads);

// ---- geometry of bonds ---------------------------------------------------------------------------------------------

// r = r_j - r_i + shift . H, d = sqrt(|r|^2 + 1e-10), u = r/d, x = d / rc(s_i, s_j), Y(u), dY/dr, and the radial basis
// g_k(x) = T_k(2x - 1) f_p(x) with dg_k/dx, both 0 from the cutoff on. Everything is computed in double.
struct BondGeometry {
  Index n_atoms = 0, n_bonds = 0, n_structures = 0, n_elements = 0;
  const double* positions = nullptr;     // [n_atoms, 3] A
  const double* cells = nullptr;         // [n_structures, 3, 3] A
  const double* shift = nullptr;         // [n_bonds, 3] whole numbers
  const double* pair_cutoffs = nullptr;  // [n_elements, n_elements] A
  const Index* structure = nullptr;      // [n_atoms]
  const Index* species = nullptr;        // [n_atoms]
  const Index* center = nullptr;         // [n_bonds]
  const Index* neighbor = nullptr;       // [n_bonds]
};

// vector [n_bonds, 3] A, distance [n_bonds] A (d), scaled [n_bonds] (x); scaled may be nullptr.
void bond_vectors(const BondGeometry& bonds, double* vector, double* distance, double* scaled, int n_threads);

// harmonics [n_bonds, (lmax + 1)^2] and gradient [n_bonds, (lmax + 1)^2, 3] dY/dr in 1/A (nullptr: not wanted).
template <class Real>
void bond_harmonics(int lmax, Index n_bonds, const double* vector, Real* harmonics, Real* gradient, int n_threads);

// basis and slope [n_bonds, n_basis]: g_k and dg_k/dx; order p >= 1 of the envelope.
template <class Real>
void bond_radial_basis(int n_basis, int order, Index n_bonds, const double* scaled, Real* basis, Real* slope,
                       int n_threads);

// ---- radial network ------------------------------------------------------------------------------------------------

// R = W_last^T f(... f(W_0^T g)) and its derivative R' = dR/dx along g' = dg/dx, without biases; f is silu or tanh.
template <class Real>
struct RadialNetwork {
  Index n_bonds = 0;
  int n_layers = 0;
  const Index* widths = nullptr;         // [n_layers + 1]: n_basis, hidden ..., n_out
  const Real* const* weights = nullptr;  // [n_layers]: W_k [widths[k], widths[k + 1]], norms included
  bool is_tanh = false;
  const Real* basis = nullptr;  // g [n_bonds, n_basis]
  const Real* slope = nullptr;  // g' [n_bonds, n_basis]
};

// value, derivative [n_bonds, n_out]: R and R'.
template <class Real>
void radial_network(const RadialNetwork<Real>& network, Real* value, Real* derivative, int n_threads);

// weight_gradients[k] [widths[k], widths[k + 1]] = dL/dW_k for dL/dR and dL/dR' [n_bonds, n_out]. Hidden layers are
// computed again.
template <class Real>
void radial_network_adjoint(const RadialNetwork<Real>& network, const Real* value_gradient,
                            const Real* derivative_gradient, Real* const* weight_gradients, int n_threads);

}  // namespace grace::ops
