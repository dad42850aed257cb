#include "grace/evaluator_cuda/plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cuda/layer_stages.hpp"
#include "grace/plan/harmonics_table.hpp"
#include "grace/plan/layer_layout.hpp"
#include "grace/plan/radial_table.hpp"

namespace grace::gpu {
namespace {

template <class Real>
std::vector<Real> converted(const std::vector<double>& values) {
  return std::vector<Real>(values.begin(), values.end());
}

template <class Real>
void make_table(const RadialNetwork& network, RadialPlan<Real>& plan, device::ModelMemory& memory,
                RadialTableReport& report) {
  const plan::RadialTable<Real> table = plan::make_radial_table<Real>(network, plan.stride);
  if (table.report.value_error >= report.value_error) report = table.report;
  plan.n_intervals = table.report.n_intervals;
  plan.intervals = table.intervals;
  plan.n_coefficients = table.n_coefficients;
  // [interval][degree][l][channel] -> [interval][l][degree][channel]: all coefficients of one l follow each other
  std::vector<Real> coefficients(table.coefficients.size());
  const std::size_t stride = plan.stride;
  std::size_t at = 0;
  for (int k = 0; k < plan.n_intervals; ++k)
    for (int l = 0; l <= plan.lmax; ++l)
      for (int d = 0; d < plan.n_coefficients; ++d, at += stride) {
        const auto from = table.coefficients.begin() +
                          static_cast<std::ptrdiff_t>(
                              (static_cast<std::size_t>(k) * plan.n_coefficients + d) * plan.width + l * stride);
        std::copy(from, from + static_cast<std::ptrdiff_t>(stride),
                  coefficients.begin() + static_cast<std::ptrdiff_t>(at));
      }
  plan.coefficients = memory.keep(coefficients);
}

template <class Real>
RadialPlan<Real> make_radial(const ModelSpec& spec, int layer, RadialMode mode, device::ModelMemory& memory,
                             RadialTableReport& report) {
  const RadialNetwork& network = spec.radials.at(layer);
  RadialPlan<Real> plan;
  plan.lmax = network.lmax;
  plan.n_channels = network.n_channels;
  plan.stride = padded_channels(network.n_channels);
  plan.width = (network.lmax + 1) * plan.stride;
  if (mode == RadialMode::table) {
    make_table(network, plan, memory, report);
    return plan;
  }
  plan.n_basis = network.n_basis;
  plan.envelope_order = network.envelope_order;
  plan.is_tanh = network.activation == Activation::tanh;
  plan.n_layers = static_cast<int>(network.layers.size());
  require(network.n_basis <= 64, "the radial basis of ", spec.source, " has ", network.n_basis,
          " functions, at most 64 are supported");
  require(plan.n_layers <= RadialPlan<Real>::max_layers, "the radial network of ", spec.source, " has ", plan.n_layers,
          " layers, at most ", RadialPlan<Real>::max_layers, " are supported on a GPU; use device cpu or radial table");
  for (int k = 0; k < plan.n_layers; ++k) {
    const DenseLayer& dense = network.layers[k];
    const bool last = k + 1 == plan.n_layers;
    const int width = last ? plan.width : dense.n_out, l_count = network.lmax + 1;
    std::vector<Real> weights(static_cast<std::size_t>(dense.n_in) * width, Real(0));
    for (int i = 0; i < dense.n_in; ++i)
      for (int o = 0; o < dense.n_out; ++o) {
        // the last layer counts n (lmax + 1) + l; bonds keep [l][stride]
        const int column = last ? (o % l_count) * plan.stride + o / l_count : o;
        weights[static_cast<std::size_t>(i) * width + column] =
            static_cast<Real>(dense.weights[static_cast<std::size_t>(i) * dense.n_out + o]);
      }
    plan.layer_in[k] = dense.n_in;
    plan.layer_out[k] = width;
    plan.layer_weights[k] = memory.keep(weights);
    plan.widest = std::max(plan.widest, dense.n_in);
  }
  return plan;
}

template <class Real>
GatherTable<Real> gather_table(const std::map<int, std::map<int, double>>& rows, device::ModelMemory& memory) {
  GatherTable<Real> table;
  std::vector<int> first_term{0};
  std::vector<math::GatherTerm<Real>> terms;
  for (const auto& [target, list] : rows) {
    for (const auto& [first, coefficient] : list) terms.push_back({first, 0, static_cast<Real>(coefficient)});
    first_term.push_back(static_cast<int>(terms.size()));
  }
  table.n_targets = static_cast<int>(rows.size());
  table.first_term = memory.keep(first_term);
  table.terms = memory.keep(terms);
  return table;
}

template <class Real>
void make_bases(const ModelSpec& spec, const plan::LayerLayout& layout, device::ModelMemory& memory,
                LayerPlan<Real>& layer) {
  const RadialPlan<Real>& radial = layer.radial;
  for (const Stage* stage : layout.stages) {
    if (const auto* s = std::get_if<SingleParticleBasis>(stage)) {
      require(layer.basis < 0 && s->lmax == radial.lmax && s->n_channels == radial.n_channels,
              "the single-particle basis `", s->output, "` of ", spec.source, " does not match its radial network");
      layer.basis = layout.slot(s->output);
      std::vector<Real> chemical(static_cast<std::size_t>(spec.n_elements()) * radial.stride, Real(0));
      for (int e = 0; e < spec.n_elements(); ++e)
        for (int n = 0; n < s->n_channels; ++n)
          chemical[static_cast<std::size_t>(e) * radial.stride + n] =
              static_cast<Real>(s->chemical[static_cast<std::size_t>(e) * s->n_channels + n]);
      layer.chemical = memory.keep(chemical);
      layer.basis_factor = memory.keep(converted<Real>(s->inverse_neighbors));
    }
    if (const auto* s = std::get_if<MessageBasis>(stage)) {
      require(layer.message_basis < 0 && s->lmax == radial.lmax && s->n_channels == radial.n_channels,
              "the message basis `", s->output, "` of ", spec.source, " does not match its radial network");
      layer.message_basis = layout.slot(s->output);
      MessagePlan<Real>& plan = layer.message_plan;
      for (const Stage& other : spec.stages)
        if (const auto* reduce = std::get_if<FunctionReduce>(&other); reduce != nullptr && reduce->output == s->message)
          plan.n_rows = reduce->n_rows;
      plan.n_targets = s->n_rows;
      std::map<int, std::map<int, double>> forward, adjoint;
      for (int row = 0; row < s->n_rows; ++row) forward[row];
      for (int pair = 0; pair < (s->lmax + 1) * (s->lmax + 1) * plan.n_rows; ++pair) adjoint[pair];
      for (const CouplingTerm& term : s->terms) {
        const int pair = term.left * plan.n_rows + term.right;
        forward[term.row][pair] += term.coefficient;
        adjoint[pair][term.row] += term.coefficient;
      }
      plan.forward = gather_table<Real>(forward, memory);
      plan.adjoint = gather_table<Real>(adjoint, memory);
      plan.factor = memory.keep(converted<Real>(s->inverse_neighbors));
    }
  }
}

NormPlan norm_of(const ModelSpec& spec, const std::string& density, device::ModelMemory& memory) {
  NormPlan plan;
  for (const Stage& stage : spec.stages)
    if (const auto* norm = std::get_if<DensityNorm>(&stage); norm != nullptr && norm->input == density) {
      plan.present = true;
      plan.only_nonlinear = norm->kind != DensityNorm::Kind::full;
      plan.gate = norm->kind == DensityNorm::Kind::separate_linear_gate ? norm->gate : 1.0;
      plan.scale = memory.keep(norm->scale);
    }
  return plan;
}

ReadoutPlan make_readout(const ModelSpec& spec, device::ModelMemory& memory) {
  ReadoutPlan plan;
  plan.output_scale = spec.output_scale;
  plan.shift = memory.keep(spec.shift);
  for (const Stage& stage : spec.stages) {
    const auto* s = std::get_if<Readout>(&stage);
    if (s == nullptr) continue;
    plan.is_tanh = s->activation == Activation::tanh;
    plan.n_layers = static_cast<int>(s->layers.size());
    require(plan.n_layers <= ReadoutPlan::max_layers, "the readout of ", spec.source, " has ", plan.n_layers,
            " layers, at most ", ReadoutPlan::max_layers, " are supported on a GPU; use device cpu");
    plan.n_densities = s->layers.front().n_in + 1;
    for (int k = 0; k < plan.n_layers; ++k) {
      plan.layer_in[k] = s->layers[k].n_in;
      plan.layer_out[k] = s->layers[k].n_out;
      plan.layer_weights[k] = memory.keep(s->layers[k].weights);
      plan.widest = std::max({plan.widest, s->layers[k].n_in, s->layers[k].n_out});
    }
  }
  return plan;
}

}  // namespace

template <class Real>
ModelPlan<Real> make_plan(const ModelSpec& spec, RadialMode radial, std::size_t block_bytes_per_atom,
                          device::ModelMemory& memory) {
  ModelPlan<Real> model;
  for (std::size_t index = 0; index < spec.radials.size(); ++index) {
    const plan::LayerLayout layout(spec, static_cast<int>(index), channel_unit);
    LayerPlan<Real> layer;
    layer.radial = make_radial<Real>(spec, static_cast<int>(index), radial, memory, model.radial_report);
    layer.harmonics = plan::harmonics_table<Real>(layer.radial.lmax);
    layer.n_harmonics = (layer.radial.lmax + 1) * (layer.radial.lmax + 1);
    make_bases(spec, layout, memory, layer);
    layer.slots = layout.slots;
    layer.slot_names = layout.names;
    layer.slot_rows = layout.rows;
    layer.arena_per_atom =
        layout.slots.back().offset + static_cast<std::size_t>(layout.slots.back().n_rows) * layout.slots.back().stride;
    layer.density = layout.slot(layout.density);
    std::set<std::string> given{layout.density};
    if (index == 0 && !spec.message.empty()) {
      layer.message = layout.slot(spec.message);
      given.insert(spec.message);
    }
    StageBuilder<Real>(spec, layout, block_bytes_per_atom, memory).build(given, layer);
    layer.norm = norm_of(spec, layout.density, memory);
    model.layers.push_back(std::move(layer));
  }
  model.readout = make_readout(spec, memory);
  model.pair_cutoffs = memory.keep(spec.pair_cutoffs);
  model.n_elements = spec.n_elements();
  return model;
}

template ModelPlan<double> make_plan<double>(const ModelSpec&, RadialMode, std::size_t, device::ModelMemory&);
template ModelPlan<float> make_plan<float>(const ModelSpec&, RadialMode, std::size_t, device::ModelMemory&);

}  // namespace grace::gpu
