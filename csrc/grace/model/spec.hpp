// A model is data: an ordered list of typed stages, read from a weight file (mathematics: docs/theory.md).
//
// Every weight here already carries its constant factors (GEMM norms, output factors), so the evaluators never see
// them. Tensors are named as in the weight files (A, A1, AA, ...). A tensor has `n_channels` channels and `n_rows`
// angular rows.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "grace/model/weights.hpp"

namespace grace {

enum class Activation { silu, tanh };

// y = activation(x W); weights are [n_in][n_out], norm folded in. The last layer of a network has no activation.
struct DenseLayer {
  int n_in = 0;
  int n_out = 0;
  std::vector<double> weights;
};

// R_nl(d) of one layer: Chebyshev functions T_1..T_K(2 d/rc - 1) times the envelope of order p, then an MLP without
// biases. Output index of the last layer = n * (lmax + 1) + l.
struct RadialNetwork {
  std::string name;  // "R" (1L and first layer), "R1" (second layer)
  int n_basis = 0;
  int envelope_order = 0;
  Activation activation = Activation::silu;
  std::vector<DenseLayer> layers;
  int n_channels = 0;
  int lmax = 0;
};

// A[i,n,lm] = inverse_neighbors[mu_i] sum_j R_nl(d_ij) Y_lm(u_ij) chemical[mu_j][n]
struct SingleParticleBasis {
  std::string output;  // "A", "B0"
  std::string radial;  // name of a RadialNetwork
  int lmax = 0;
  int n_channels = 0;
  std::vector<double> chemical;           // [n_elements][n_channels]
  std::vector<double> inverse_neighbors;  // [n_elements]
};

// One term P[row] += coefficient * L[left] * R[right].
struct CouplingTerm {
  int row = 0;
  int left = 0;
  int right = 0;
  double coefficient = 0.0;
};

// YI[i,n,row] = inverse_neighbors[mu_i] sum_terms c sum_j R_nl(d_ij) Y_left(u_ij) message[j,n,right]
struct MessageBasis {
  std::string output;   // "YI"
  std::string radial;   // "R1"
  std::string message;  // "I"
  int lmax = 0;         // of the harmonics
  int n_channels = 0;
  int n_rows = 0;
  std::vector<CouplingTerm> terms;        // sorted by row
  std::vector<double> inverse_neighbors;  // [n_elements]
};

// out[k,w] = sum_n left_weights[left_group[w]][n][k] L[n,w] + sum over right terms with to == w of
// right_weights[group][n][k] S[n,from]
struct ChannelMix {
  struct RightTerm {
    int to = 0;
    int from = 0;
    int group = 0;
  };
  std::string output;  // "A1", "AA1", ...
  std::string left;
  std::string right;
  int n_left = 0;   // channels of the left tensor
  int n_right = 0;  // channels of the right tensor
  int n_out = 0;
  int n_rows = 0;  // rows of the output = rows of the left tensor
  int n_left_groups = 0;
  int n_right_groups = 0;
  std::vector<double> left_weights;   // [n_left_groups][n_left][n_out]
  std::vector<int> left_group;        // [n_rows]
  std::vector<double> right_weights;  // [n_right_groups][n_right][n_out]
  std::vector<RightTerm> right_terms;
};

// P[n,row] = sum_terms c L[n,left] R[n,right]; terms sorted by row.
struct CouplingProduct {
  std::string output;  // "AA", ...
  std::string left;
  std::string right;
  int n_channels = 0;
  int n_rows = 0;
  std::vector<CouplingTerm> terms;
};

// out[k,target] = sum over inputs T, over its rows: weights[mu_i][group][k][n] T[n,source]
struct FunctionReduce {
  struct Row {
    int source = 0;
    int group = 0;
    int target = 0;
  };
  struct Input {
    std::string tensor;
    int n_channels = 0;
    int n_groups = 0;
    std::vector<double> weights;  // [n_elements or 1][n_groups][n_out][n_channels]
    std::vector<Row> rows;
  };
  std::string output;  // "rho", "I1", "I", "B", "I2"
  bool per_element = false;
  int n_out = 0;   // channels of the output
  int n_rows = 0;  // rows of the output
  std::vector<Input> inputs;
};

// RMS norm over the densities of one atom (one-row tensor). full: x_k s_k / sqrt(mean x^2 + 1e-10); only_nonlinear: x_0
// kept, the rest normalised among themselves; separate_linear_gate: as only_nonlinear, and x_0 times gate.
struct DensityNorm {
  enum class Kind { full, only_nonlinear, separate_linear_gate };
  std::string input;
  std::string output;
  Kind kind = Kind::full;
  std::vector<double> scale;
  double gate = 1.0;
};

// e = x_0 + MLP(x_1..x_n), x = sum of the input densities (one-row tensors of n + 1 channels).
struct Readout {
  std::vector<std::string> inputs;
  Activation activation = Activation::silu;
  std::vector<DenseLayer> layers;
};

using Stage =
    std::variant<SingleParticleBasis, MessageBasis, ChannelMix, CouplingProduct, FunctionReduce, DensityNorm, Readout>;

struct ModelSpec {
  std::string source;                      // file name
  int n_layers = 0;                        // 1 or 2
  std::vector<std::string> file_elements;  // all elements of the file
  std::vector<std::string> elements;       // elements in use; every per-element array follows this order
  std::vector<RadialNetwork> radials;
  std::vector<Stage>
      stages;  // in order of evaluation; stages up to and including the one that outputs `message` are layer 1's
  std::string message;               // "I", or empty for one layer
  double max_cutoff = 0.0;           // over the elements in use, A
  std::vector<double> pair_cutoffs;  // [n_elements][n_elements], row = centre, A
  double output_scale = 1.0;
  std::vector<double> shift;             // [n_elements], eV
  std::int64_t n_parameters = 0;         // floating-point weights of the file that the model uses (all elements)
  std::vector<std::string> unused_keys;  // uncertainty arrays (uq_*): kept by the Python layer, not evaluated

  int n_elements() const { return static_cast<int>(elements.size()); }
  int element_index(const std::string& symbol) const;  // throws Error listing the known elements
};

// Reads and checks a model. `elements`: the subset to keep, in the order wanted; empty = all of the file.
// Throws Error naming the key for a missing or mis-shaped array, a non-finite weight or a zero norm scale, and naming
// the feature for what is not supported (3L models, radial networks that see the elements, unknown schema).
ModelSpec load_model(const WeightSource& source, const std::vector<std::string>& elements = {});

}  // namespace grace
