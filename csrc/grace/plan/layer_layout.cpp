#include "grace/plan/layer_layout.hpp"

#include <type_traits>
#include <variant>

#include "grace/error.hpp"

namespace grace::plan {

const std::string& output_of(const Stage& stage) {
  static const std::string none;
  return std::visit(
      [](const auto& s) -> const std::string& {
        if constexpr (std::is_same_v<std::decay_t<decltype(s)>, Readout>)
          return none;
        else
          return s.output;
      },
      stage);
}

LayerLayout::LayerLayout(const ModelSpec& spec, int layer, int channel_unit) {
  assign_stages(spec, layer);
  find_consumers(spec);
  find_needed_rows();
  make_slots(channel_unit);
}

// A stage belongs to the layer of its radial network, or of its operands; norms and readout belong to the evaluator.
void LayerLayout::assign_stages(const ModelSpec& spec, int layer) {
  std::map<std::string, int> layer_of;
  const std::string radial = spec.radials.at(layer).name;
  for (const Stage& stage : spec.stages) {
    int owner = -1;
    if (const auto* s = std::get_if<SingleParticleBasis>(&stage)) owner = s->radial == radial ? layer : -2;
    if (const auto* s = std::get_if<MessageBasis>(&stage)) owner = s->radial == radial ? layer : -2;
    if (const auto* s = std::get_if<ChannelMix>(&stage)) owner = layer_of.at(s->left);
    if (const auto* s = std::get_if<CouplingProduct>(&stage)) owner = layer_of.at(s->left);
    if (const auto* s = std::get_if<FunctionReduce>(&stage)) owner = layer_of.at(s->inputs.at(0).tensor);
    if (owner == -1) continue;
    layer_of[output_of(stage)] = owner;
    if (owner != layer) continue;
    stages.push_back(&stage);
    producer_[output_of(stage)] = &stage;
  }
  std::vector<std::string> densities;
  for (const Stage& stage : spec.stages)
    if (const auto* readout = std::get_if<Readout>(&stage)) densities = readout->inputs;
  for (std::string name : densities) {
    for (const Stage& stage : spec.stages)
      if (const auto* norm = std::get_if<DensityNorm>(&stage); norm != nullptr && norm->output == name)
        name = norm->input;
    if (producer_.count(name) != 0) density = name;
  }
  require(!density.empty(), "internal error: layer ", layer + 1, " of ", spec.source, " feeds no readout");
}

void LayerLayout::find_consumers(const ModelSpec& spec) {
  for (const Stage* stage : stages) {
    if (const auto* mix = std::get_if<ChannelMix>(stage)) {
      left_mixes[mix->left].push_back(mix);
      require(!is_streamed(mix->right), "the channel mix `", mix->output, "` of ", spec.source, " has the product `",
              mix->right, "` as right operand, which this evaluator does not support");
    }
    if (const auto* reduce = std::get_if<FunctionReduce>(stage))
      for (const auto& input : reduce->inputs) reductions[input.tensor].push_back(reduce);
    if (const auto* product = std::get_if<CouplingProduct>(stage))
      require(!is_streamed(product->left) && !is_streamed(product->right), "the product `", product->output, "` of ",
              spec.source, " multiplies another product directly, which this evaluator does not support");
  }
}

void LayerLayout::need_all(const std::string& name, int n_rows) {
  for (int row = 0; row < n_rows; ++row) needed[name].insert(row);
}

void LayerLayout::find_needed_rows() {
  for (auto it = stages.rbegin(); it != stages.rend(); ++it) {
    const Stage& stage = **it;
    if (const auto* s = std::get_if<SingleParticleBasis>(&stage)) need_all(s->output, (s->lmax + 1) * (s->lmax + 1));
    if (const auto* s = std::get_if<MessageBasis>(&stage)) need_all(s->output, s->n_rows);
    if (const auto* s = std::get_if<ChannelMix>(&stage)) {
      const std::set<int>& rows_out = needed[s->output];
      for (int row : rows_out) needed[s->left].insert(row);
      for (const auto& term : s->right_terms)
        if (rows_out.count(term.to) != 0) needed[s->right].insert(term.from);
    }
    if (const auto* s = std::get_if<CouplingProduct>(&stage)) {
      const std::set<int> rows_out = needed[s->output];
      for (const CouplingTerm& term : s->terms)
        if (rows_out.count(term.row) != 0) {
          needed[s->left].insert(term.left);
          needed[s->right].insert(term.right);
        }
    }
    if (const auto* s = std::get_if<FunctionReduce>(&stage)) {
      need_all(s->output, s->n_rows);
      for (const auto& input : s->inputs)
        for (const auto& row : input.rows) needed[input.tensor].insert(row.source);
    }
  }
}

void LayerLayout::make_slots(int channel_unit) {
  std::size_t offset = 0;
  for (const Stage* stage : stages) {
    const std::string& name = output_of(*stage);
    if (is_streamed(name)) continue;
    int channels = 0;
    if (const auto* s = std::get_if<SingleParticleBasis>(stage)) channels = s->n_channels;
    if (const auto* s = std::get_if<MessageBasis>(stage)) channels = s->n_channels;
    if (const auto* s = std::get_if<ChannelMix>(stage)) channels = s->n_out;
    if (const auto* s = std::get_if<FunctionReduce>(stage)) channels = s->n_out;
    Slot slot;
    slot.n_channels = channels;
    slot.stride = (channels + channel_unit - 1) / channel_unit * channel_unit;
    slot.n_rows = static_cast<int>(needed[name].size());
    slot.offset = offset;
    offset += static_cast<std::size_t>(slot.n_rows) * slot.stride;
    slot_of_[name] = static_cast<int>(slots.size());
    rows.emplace_back(needed[name].begin(), needed[name].end());
    int k = 0;
    for (int row : needed[name]) stored[name][row] = k++;
    names.push_back(name);
    if (std::holds_alternative<FunctionReduce>(*stage)) accumulated.push_back(slot_of_[name]);
    slots.push_back(slot);
  }
}

bool operands_merge(const ChannelMix& mix) {
  if (mix.left != mix.right || mix.n_left != mix.n_right) return false;
  std::vector<int> seen(mix.n_rows, 0);
  std::map<int, int> right_group;
  for (const auto& term : mix.right_terms) {
    if (term.to != term.from || seen[term.to]++ != 0) return false;
    const auto [it, fresh] = right_group.emplace(mix.left_group[term.to], term.group);
    if (!fresh && it->second != term.group) return false;
  }
  for (int row = 0; row < mix.n_rows; ++row)
    if (seen[row] == 0 && right_group.count(mix.left_group[row]) != 0) return false;
  return true;
}

}  // namespace grace::plan
