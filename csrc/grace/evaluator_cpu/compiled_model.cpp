#include "grace/evaluator_cpu/compiled_model.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cpu/layer_builder.hpp"
#include "grace/evaluator_cpu/plan_storage.hpp"
#include "grace/plan/harmonics_table.hpp"
#include "grace/plan/layer_layout.hpp"
#include "grace/plan/radial_table.hpp"

namespace grace::cpu {
namespace {

template <class Real>
void make_radial(const ModelSpec& spec, int layer, RadialMode mode, PlanStorage<Real>& storage, RadialPlan<Real>& plan,
                 RadialTableReport& report) {
  const RadialNetwork& network = spec.radials.at(layer);
  plan.lmax = network.lmax;
  plan.n_channels = network.n_channels;
  plan.stride = padded_channels<Real>(network.n_channels);
  plan.width = (network.lmax + 1) * plan.stride;
  if (mode == RadialMode::table) {
    plan::RadialTable<Real> table = plan::make_radial_table<Real>(network, plan.stride);
    if (table.report.value_error >= report.value_error) report = table.report;
    plan.n_intervals = table.report.n_intervals;
    plan.intervals = table.intervals;
    plan.n_coefficients = table.n_coefficients;
    AlignedVector<Real> packed(table.coefficients.size());
    const std::size_t block = static_cast<std::size_t>(plan.n_coefficients) * plan.width;
    for (int k = 0; k < plan.n_intervals; ++k) {
      const Real* rows = table.coefficients.data() + k * block;
      pack_matrix(
          plan.n_coefficients, plan.width,
          [&](int d, int column) { return rows[static_cast<std::size_t>(d) * plan.width + column]; },
          packed.data() + k * block);
    }
    plan.coefficients = storage.keep(storage.reals, std::move(packed));
    return;
  }
  plan.n_basis = network.n_basis;
  plan.envelope_order = network.envelope_order;
  require(network.n_basis <= 64, "the radial basis of ", spec.source, " has ", network.n_basis,
          " functions, at most 64 are supported");
  plan.n_layers = static_cast<int>(network.layers.size());
  plan.is_tanh = network.activation == Activation::tanh;
  std::vector<int> in, out;
  std::vector<const Real*> pointers;
  plan.widest = padded_channels<Real>(network.n_basis);
  for (int layer = 0; layer < plan.n_layers; ++layer) {
    const DenseLayer& dense = network.layers[layer];
    const bool last = layer + 1 == plan.n_layers;
    const int width = last ? plan.width : padded_channels<Real>(dense.n_out);
    AlignedVector<Real> w(static_cast<std::size_t>(dense.n_in) * width, Real(0));
    // the last layer counts n (lmax + 1) + l; bonds keep [l][stride]
    const int l_count = network.lmax + 1;
    pack_matrix(
        dense.n_in, width,
        [&](int i, int column) {
          const int o = last ? (column % plan.stride) * l_count + column / plan.stride : column;
          const bool inside = last ? column % plan.stride < network.n_channels : column < dense.n_out;
          return inside ? dense.weights[static_cast<std::size_t>(i) * dense.n_out + o] : 0.0;
        },
        w.data());
    in.push_back(dense.n_in);
    out.push_back(width);
    if (!last) plan.widest = std::max(plan.widest, width);
    pointers.push_back(storage.keep(storage.reals, std::move(w)));
  }
  plan.layer_in = storage.keep_integers(in);
  plan.layer_out = storage.keep_integers(out);
  plan.layer_weights = storage.keep(storage.pointers, std::move(pointers));
}

template <class Real>
void make_basis(const ModelSpec& spec, const plan::LayerLayout& layout, PlanStorage<Real>& storage,
                LayerPlan<Real>& plan) {
  auto keep_reals = [&](const std::vector<double>& v) {
    return storage.keep(storage.reals, AlignedVector<Real>(v.begin(), v.end()));
  };
  for (const Stage* stage : layout.stages) {
    if (const auto* s = std::get_if<SingleParticleBasis>(stage)) {
      require(plan.basis < 0 && s->lmax == plan.radial.lmax && s->n_channels == plan.radial.n_channels,
              "the single-particle basis `", s->output, "` of ", spec.source, " does not match its radial network");
      plan.basis = layout.slot(s->output);
      AlignedVector<Real> z(static_cast<std::size_t>(spec.n_elements()) * plan.radial.stride, Real(0));
      for (int e = 0; e < spec.n_elements(); ++e)
        for (int n = 0; n < s->n_channels; ++n)
          z[static_cast<std::size_t>(e) * plan.radial.stride + n] =
              static_cast<Real>(s->chemical[static_cast<std::size_t>(e) * s->n_channels + n]);
      plan.chemical = storage.keep(storage.reals, std::move(z));
      plan.basis_factor = keep_reals(s->inverse_neighbors);
    }
    if (const auto* s = std::get_if<MessageBasis>(stage)) {
      require(plan.message_basis < 0 && s->lmax == plan.radial.lmax && s->n_channels == plan.radial.n_channels,
              "the message basis `", s->output, "` of ", spec.source, " does not match its radial network");
      plan.message_basis = layout.slot(s->output);
      for (const Stage& other : spec.stages)
        if (const auto* reduce = std::get_if<FunctionReduce>(&other); reduce != nullptr && reduce->output == s->message)
          plan.n_message_rows = reduce->n_rows;
      plan.message_factor = keep_reals(s->inverse_neighbors);
      std::map<int, std::map<std::pair<int, int>, double>> forward, adjoint;
      for (const CouplingTerm& term : s->terms) {
        const int pair = term.left * plan.n_message_rows + term.right;
        forward[term.row][{pair, 0}] += term.coefficient;
        adjoint[pair][{term.row, 0}] += term.coefficient;
      }
      for (int row = 0; row < s->n_rows; ++row) forward[row];
      for (int pair = 0; pair < (s->lmax + 1) * (s->lmax + 1) * plan.n_message_rows; ++pair) adjoint[pair];
      plan.message_forward = storage.gather_table(std::move(forward));
      plan.message_adjoint = storage.gather_table(std::move(adjoint));
    }
  }
}

template <class Real>
void make_readout(const ModelSpec& spec, PlanStorage<Real>& storage, ReadoutPlan& readout) {
  for (const Stage& stage : spec.stages) {
    const auto* s = std::get_if<Readout>(&stage);
    if (s == nullptr) continue;
    readout.is_tanh = s->activation == Activation::tanh;
    readout.n_layers = static_cast<int>(s->layers.size());
    readout.n_densities = s->layers.front().n_in + 1;
    std::vector<int> in, out, transposed_width;
    std::vector<const double*> weights, transposed;
    for (const DenseLayer& dense : s->layers) {
      const int out_width = padded_channels<double>(dense.n_out), in_width = padded_channels<double>(dense.n_in);
      AlignedVector<double> w(static_cast<std::size_t>(dense.n_in) * out_width, 0.0),
          t(static_cast<std::size_t>(dense.n_out) * in_width, 0.0);
      auto weight = [&](int i, int o) {
        return i < dense.n_in && o < dense.n_out ? dense.weights[static_cast<std::size_t>(i) * dense.n_out + o] : 0.0;
      };
      pack_matrix(dense.n_in, out_width, weight, w.data());
      pack_matrix(dense.n_out, in_width, [&](int o, int i) { return weight(i, o); }, t.data());
      in.push_back(dense.n_in);
      out.push_back(out_width);
      transposed_width.push_back(in_width);
      readout.widest = std::max({readout.widest, out_width, in_width});
      weights.push_back(storage.keep(storage.doubles, std::move(w)));
      transposed.push_back(storage.keep(storage.doubles, std::move(t)));
    }
    readout.layer_in = storage.keep_integers(in);
    readout.layer_out = storage.keep_integers(out);
    readout.layer_transposed_width = storage.keep_integers(transposed_width);
    readout.layer_weights = storage.keep(storage.double_pointers, std::move(weights));
    readout.layer_transposed = storage.keep(storage.double_pointers, std::move(transposed));
  }
}

template <class Real>
NormPlan norm_of(const ModelSpec& spec, const std::string& density, PlanStorage<Real>& storage) {
  NormPlan plan;
  for (const Stage& stage : spec.stages)
    if (const auto* norm = std::get_if<DensityNorm>(&stage); norm != nullptr && norm->input == density) {
      plan.present = true;
      plan.only_nonlinear = norm->kind != DensityNorm::Kind::full;
      plan.gate = norm->kind == DensityNorm::Kind::separate_linear_gate ? norm->gate : 1.0;
      plan.scale = storage.keep(storage.doubles, AlignedVector<double>(norm->scale.begin(), norm->scale.end()));
    }
  return plan;
}

template <class Real>
CompiledLayer<Real> compile_layer(const ModelSpec& spec, int index, RadialMode mode, int tile_atoms,
                                  PlanStorage<Real>& storage, RadialTableReport& report) {
  const plan::LayerLayout layout(spec, index, padded_channels<Real>(1));
  CompiledLayer<Real> layer;
  LayerPlan<Real>& plan = layer.plan;
  make_radial(spec, index, mode, storage, plan.radial, report);
  plan.harmonics = plan::harmonics_table<Real>(plan.radial.lmax);
  plan.n_harmonics = (plan.radial.lmax + 1) * (plan.radial.lmax + 1);
  make_basis(spec, layout, storage, plan);
  LayerBuilder<Real> builder(spec, layout, storage, tile_atoms);
  std::vector<Op<Real>> ops = builder.take_ops();
  plan.n_ops = static_cast<int>(ops.size());
  plan.ops = storage.keep(storage.ops, std::move(ops));
  plan.block_per_atom = builder.block_per_atom();
  plan.n_slots = static_cast<int>(layout.slots.size());
  plan.slots = storage.keep(storage.slots, std::vector<Slot>(layout.slots));
  plan.arena_per_atom =
      layout.slots.back().offset + static_cast<std::size_t>(layout.slots.back().n_rows) * layout.slots.back().stride;
  plan.n_accumulated = static_cast<int>(layout.accumulated.size());
  plan.accumulated = storage.keep_integers(layout.accumulated);
  plan.density = layout.slot(layout.density);
  plan.message = index == 0 && !spec.message.empty() ? layout.slot(spec.message) : -1;
  layer.norm = norm_of(spec, layout.density, storage);
  layer.slot_names = layout.names;
  layer.slot_rows = layout.rows;
  return layer;
}

}  // namespace

template <class Real>
CompiledModel<Real>::CompiledModel(const ModelSpec& spec, RadialMode radial, int tile_atoms)
    : storage_(std::make_unique<PlanStorage<Real>>()) {
  for (std::size_t layer = 0; layer < spec.radials.size(); ++layer)
    layers.push_back(compile_layer(spec, static_cast<int>(layer), radial, tile_atoms, *storage_, radial_report));
  make_readout(spec, *storage_, readout);
}

template <class Real>
CompiledModel<Real>::~CompiledModel() = default;

template class CompiledModel<double>;
template class CompiledModel<float>;

}  // namespace grace::cpu
