#include <algorithm>
#include <string>
#include <vector>

#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/operators/scratch.hpp"
#include "grace/parallel.hpp"

namespace grace::ops {
namespace {

constexpr Index row_bytes = 64;
constexpr Index bonds_per_piece = 8 * network_tile;

// Partial sums of weight gradients: at most this many, whatever the number of threads, so that the order of the
// additions is always the same.
constexpr Index max_sums = 32;

template <class Real>
void check(const RadialNetwork<Real>& network) {
  check_size("n_bonds", network.n_bonds);
  check_size("n_layers", network.n_layers, 1);
  for (int k = 0; k <= network.n_layers; ++k) check_size("width of a layer", network.widths[k], 1);
  for (int k = 0; k < network.n_layers; ++k)
    check_pointer(("weights " + std::to_string(k)).c_str(), network.weights[k],
                  network.widths[k] * network.widths[k + 1]);
  check_pointer("basis", network.basis, network.n_bonds * network.widths[0]);
  check_pointer("slope", network.slope, network.n_bonds * network.widths[0]);
}

// Padded matrices of a network and their transposes.
template <class Real>
struct PlanArrays {
  std::vector<int> width, stride;
  std::vector<Index> offset;  // of layer k in `sums` and in the padded weights
  std::vector<const Real*> weights, transposed;
  NetworkPlan<Real> plan;

  explicit PlanArrays(const RadialNetwork<Real>& network)
      : width(network.widths, network.widths + network.n_layers + 1), memory_(size_of(network)) {
    constexpr int unit = row_bytes / sizeof(Real);
    for (int w : width) stride.push_back((w + unit - 1) / unit * unit);
    Real* next = memory_.data();
    for (int k = 0; k < network.n_layers; ++k) {
      offset.push_back(next - memory_.data());
      weights.push_back(next);
      for (int i = 0; i < width[k]; ++i)
        std::copy_n(network.weights[k] + Index(i) * width[k + 1], width[k + 1], next + Index(i) * stride[k + 1]);
      next += Index(width[k]) * stride[k + 1];
    }
    offset.push_back(next - memory_.data());
    for (int k = 0; k < network.n_layers; ++k) {
      transposed.push_back(next);
      for (int i = 0; i < width[k]; ++i)
        for (int n = 0; n < width[k + 1]; ++n)
          next[Index(n) * stride[k] + i] = network.weights[k][Index(i) * width[k + 1] + n];
      next += Index(width[k + 1]) * stride[k];
    }
    plan.n_layers = network.n_layers;
    plan.is_tanh = network.is_tanh;
    plan.width = width.data();
    plan.stride = stride.data();
    plan.weights = weights.data();
    plan.transposed = transposed.data();
    plan.basis = network.basis;
    plan.slope = network.slope;
  }

 private:
  static Index size_of(const RadialNetwork<Real>& network) {
    constexpr Index unit = row_bytes / sizeof(Real);
    Index size = 0;
    for (int k = 0; k < network.n_layers; ++k)
      size += network.widths[k] * (network.widths[k + 1] + unit) + network.widths[k + 1] * (network.widths[k] + unit);
    return size;
  }
  AlignedScratch<Real> memory_;
};

}  // namespace

template <class Real>
void radial_network(const RadialNetwork<Real>& network, Real* value, Real* derivative, int n_threads) {
  check(network);
  const PlanArrays<Real> arrays(network);
  check_pointer("value", value, network.n_bonds);
  check_pointer("derivative", derivative, network.n_bonds);
  const auto kernel = selected_kernels<Real>().network;
  parallel_for(network.n_bonds, thread_count(n_threads), bonds_per_piece, [&](Index begin, Index end) {
    AlignedScratch<Real> scratch(network_scratch(arrays.plan));
    kernel(arrays.plan, begin, end, value, derivative, scratch.data());
  });
}

template <class Real>
void radial_network_adjoint(const RadialNetwork<Real>& network, const Real* value_gradient,
                            const Real* derivative_gradient, Real* const* weight_gradients, int n_threads) {
  check(network);
  check_pointer("value_gradient", value_gradient, network.n_bonds);
  check_pointer("derivative_gradient", derivative_gradient, network.n_bonds);
  const PlanArrays<Real> arrays(network);
  const Index size = arrays.offset.back();
  const Index n_sums = std::max<Index>(1, std::min(max_sums, network.n_bonds / (2 * network_tile)));
  AlignedScratch<Real> sums(n_sums * size);
  const auto kernel = selected_kernels<Real>().network_adjoint;
  parallel_for(n_sums, thread_count(n_threads), 1, [&](Index begin, Index end) {
    AlignedScratch<Real> scratch(network_scratch(arrays.plan));
    for (Index s = begin; s < end; ++s) {
      std::vector<Real*> own;
      for (int k = 0; k < network.n_layers; ++k) own.push_back(sums.data() + s * size + arrays.offset[k]);
      kernel(arrays.plan, s * network.n_bonds / n_sums, (s + 1) * network.n_bonds / n_sums, value_gradient,
             derivative_gradient, own.data(), scratch.data());
    }
  });
  for (int k = 0; k < network.n_layers; ++k)
    for (Index i = 0; i < network.widths[k]; ++i)
      for (Index n = 0; n < network.widths[k + 1]; ++n) {
        double total = 0.0;
        for (Index s = 0; s < n_sums; ++s)
          total += sums.data()[s * size + arrays.offset[k] + i * arrays.stride[k + 1] + n];
        weight_gradients[k][i * network.widths[k + 1] + n] = static_cast<Real>(total);
      }
}

template void radial_network<double>(const RadialNetwork<double>&, double*, double*, int);
template void radial_network<float>(const RadialNetwork<float>&, float*, float*, int);
template void radial_network_adjoint<double>(const RadialNetwork<double>&, const double*, const double*, double* const*,
                                             int);
template void radial_network_adjoint<float>(const RadialNetwork<float>&, const float*, const float*, float* const*,
                                            int);

}  // namespace grace::ops
