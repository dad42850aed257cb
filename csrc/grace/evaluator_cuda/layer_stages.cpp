#include "grace/evaluator_cuda/layer_stages.hpp"

#include <algorithm>
#include <utility>

#include "grace/error.hpp"

namespace grace::gpu {

template <class Real>
StageBuilder<Real>::StageBuilder(const ModelSpec& spec, const plan::LayerLayout& layout,
                                 std::size_t block_bytes_per_atom, device::ModelMemory& memory)
    : spec_(spec), layout_(layout), block_bytes_(block_bytes_per_atom), memory_(memory) {
  mix_weights_.elements.resize(1);
  for (const Stage* stage : layout_.stages) {
    if (const auto* mix = std::get_if<ChannelMix>(stage)) add_mix(*mix);
    if (const auto* reduce = std::get_if<FunctionReduce>(stage)) add_reduce(*reduce);
  }
  keep(mix_weights_);
}

template <class Real>
void StageBuilder<Real>::build(const std::set<std::string>& given, LayerPlan<Real>& layer) {
  for (const Stage* stage : layout_.stages) {
    LayerStage<Real> made;
    made.output = plan::output_of(*stage);
    if (const auto* mix = std::get_if<ChannelMix>(stage)) forward_mix(*mix, made);
    if (const auto* reduce = std::get_if<FunctionReduce>(stage)) forward_reduce(*reduce, made);
    if (const auto* product = std::get_if<CouplingProduct>(stage)) forward_product(*product, made);
    layer.stages.push_back(std::move(made));
  }
  layer.zero_values = missing_rows(values_, true);

  for (const std::string& name : given)
    for (int row : layout_.rows[layout_.slot(name)]) gradients_.insert(address(name, row).offset);
  for (std::size_t k = layout_.stages.size(); k-- > 0;) {
    LayerStage<Real>& made = layer.stages[k];
    if (const auto* mix = std::get_if<ChannelMix>(layout_.stages[k])) adjoint_mix(*mix, made);
    if (const auto* reduce = std::get_if<FunctionReduce>(layout_.stages[k])) adjoint_reduce(*reduce, made);
    if (const auto* product = std::get_if<CouplingProduct>(layout_.stages[k])) adjoint_product(*product, made);
  }
  layer.zero_gradients = missing_rows(gradients_, false);
  layer.block_per_atom = block_per_atom_;
}

// Rows of the arena that no operation writes: of reductions in the forward pass (a target without inputs), of any
// tensor in the adjoint (a row that is stored but has no consumer).
template <class Real>
std::vector<ArenaRange> StageBuilder<Real>::missing_rows(const std::set<std::int64_t>& written,
                                                         bool reductions_only) const {
  std::vector<ArenaRange> ranges;
  for (std::size_t s = 0; s < layout_.slots.size(); ++s) {
    if (reductions_only && std::find(layout_.accumulated.begin(), layout_.accumulated.end(), static_cast<int>(s)) ==
                               layout_.accumulated.end())
      continue;
    const Slot& slot = layout_.slots[s];
    for (int r = 0; r < slot.n_rows; ++r) {
      const std::size_t begin = slot.offset + static_cast<std::size_t>(r) * slot.stride;
      if (written.count(static_cast<std::int64_t>(begin)) != 0) continue;
      if (!ranges.empty() && ranges.back().end == begin)
        ranges.back().end += slot.stride;
      else
        ranges.push_back({begin, begin + slot.stride});
    }
  }
  return ranges;
}

template <class Real>
RowAddress StageBuilder<Real>::address(const std::string& tensor, int row) const {
  const Slot& slot = layout_.slots[layout_.slot(tensor)];
  const int stored = layout_.stored.at(tensor).at(row);
  return {Place::arena, slot.stride, static_cast<std::int64_t>(slot.offset) + std::int64_t{stored} * slot.stride};
}

template <class Real>
RowAddress StageBuilder<Real>::block_address(const Step& step, int row, int stride) const {
  return {Place::block, stride, std::int64_t{step.block_row.at(row)} * stride};
}

// ---- weight matrices -----------------------------------------------------------------------------------------------

// weight(element, group, in, out)
template <class Real>
template <class Weight>
void StageBuilder<Real>::add_operand(Weights& weights, Matrices& m, int n_groups, int n_in, int n_out, Weight weight) {
  const int in = padded_channels(n_in), out = padded_channels(n_out);
  m.forward.emplace_back();
  m.transposed.emplace_back();
  for (int g = 0; g < n_groups; ++g) {
    const std::size_t start = weights.elements[0].size(), size = static_cast<std::size_t>(in) * out;
    m.forward.back().push_back(static_cast<std::int64_t>(start));
    m.transposed.back().push_back(static_cast<std::int64_t>(start + size));
    for (std::size_t e = 0; e < weights.elements.size(); ++e) {
      std::vector<Real>& matrix = weights.elements[e];
      matrix.resize(start + 2 * size, Real(0));
      for (int i = 0; i < n_in; ++i)
        for (int o = 0; o < n_out; ++o) {
          const Real value = static_cast<Real>(weight(static_cast<int>(e), g, i, o));
          matrix[start + static_cast<std::size_t>(i) * out + o] = value;
          matrix[start + size + static_cast<std::size_t>(o) * in + i] = value;
        }
    }
  }
}

template <class Real>
void StageBuilder<Real>::keep(Weights& weights) {
  std::vector<Real> all;
  for (const auto& one : weights.elements) all.insert(all.end(), one.begin(), one.end());
  if (weights.elements.size() > 1) weights.element_stride = static_cast<std::int64_t>(weights.elements[0].size());
  weights.data = memory_.keep(all);
  weights.elements.clear();
}

template <class Real>
void StageBuilder<Real>::add_mix(const ChannelMix& mix) {
  Matrices& m = matrices_[&mix];
  const bool merge = plan::operands_merge(mix);
  std::vector<int> right_of(mix.n_left_groups, -1);
  if (merge)
    for (const auto& term : mix.right_terms) right_of[mix.left_group[term.to]] = term.group;
  auto right = [&](int g, int i, int o) {
    return mix.right_weights[(static_cast<std::size_t>(g) * mix.n_right + i) * mix.n_out + o];
  };
  add_operand(mix_weights_, m, mix.n_left_groups, mix.n_left, mix.n_out, [&](int, int g, int i, int o) {
    const double left = mix.left_weights[(static_cast<std::size_t>(g) * mix.n_left + i) * mix.n_out + o];
    return right_of[g] < 0 ? left : left + right(right_of[g], i, o);
  });
  if (!merge)
    add_operand(mix_weights_, m, mix.n_right_groups, mix.n_right, mix.n_out,
                [&](int, int g, int i, int o) { return right(g, i, o); });
}

template <class Real>
void StageBuilder<Real>::add_reduce(const FunctionReduce& reduce) {
  Weights& weights = reduce_weights_[&reduce];
  weights.elements.resize(reduce.per_element ? spec_.n_elements() : 1);
  for (const auto& input : reduce.inputs)
    add_operand(weights, matrices_[&reduce], input.n_groups, input.n_channels, reduce.n_out,
                [&](int e, int g, int i, int o) {
                  const std::size_t matrix = static_cast<std::size_t>(e) * input.n_groups + g;
                  return input.weights[(matrix * reduce.n_out + o) * input.n_channels + i];
                });
  keep(weights);
}

// ---- row GEMMs -----------------------------------------------------------------------------------------------------

template <class Real>
void StageBuilder<Real>::add_source(Targets& targets, const RowAddress& to, const RowAddress& from,
                                    std::int64_t weights) {
  auto& [target, sources] = targets[to.offset];
  target = to;
  sources.push_back({from, weights});
}

// One operation; all targets must have the same stride. `written`: rows that exist already, which are added to.
template <class Real>
RowGemm<Real> StageBuilder<Real>::gemm(const Targets& targets, const Weights& weights,
                                       std::set<std::int64_t>& written) {
  RowGemm<Real> op;
  op.weights = weights.data;
  op.element_stride = weights.element_stride;
  std::vector<GemmTarget> target_list;
  std::vector<GemmSource> source_list;
  for (const auto& [offset, target] : targets) {
    const auto& [row, sources] = target;
    GemmTarget made;
    made.row = row;
    made.first_source = static_cast<int>(source_list.size());
    made.n_sources = static_cast<int>(sources.size());
    made.accumulate = written.insert(offset).second ? 0 : 1;
    for (const Source& source : sources) {
      source_list.push_back({source.row, source.weights});
      op.most_inputs = std::max(op.most_inputs, static_cast<int>(source.row.stride));
    }
    op.n_columns = row.stride;
    target_list.push_back(made);
  }
  op.n_targets = static_cast<int>(target_list.size());
  op.targets = memory_.keep(target_list);
  op.sources = memory_.keep(source_list);
  return op;
}

// Targets of different strides become operations of their own.
template <class Real>
void StageBuilder<Real>::add_gemms(const Targets& targets, const Weights& weights, std::set<std::int64_t>& written,
                                   std::vector<RowGemm<Real>>& out) {
  std::map<int, Targets> by_stride;
  for (const auto& [offset, target] : targets) by_stride[target.first.stride].emplace(offset, target);
  for (const auto& [stride, group] : by_stride) out.push_back(gemm(group, weights, written));
}

// ---- channel mixes -------------------------------------------------------------------------------------------------

// Output rows `rows` of a mix: left operand from the arena, or from the product block at hand.
template <class Real>
void StageBuilder<Real>::mix_targets(const ChannelMix& mix, const std::vector<int>& rows, const Step* step, int stride,
                                     Targets& targets) {
  const Matrices& m = matrices_.at(&mix);
  const bool merged = m.forward.size() == 1;
  for (int row : rows) {
    if (layout_.stored[mix.output].count(row) == 0) continue;
    const RowAddress to = address(mix.output, row);
    add_source(targets, to, step == nullptr ? address(mix.left, row) : block_address(*step, row, stride),
               m.forward[0][mix.left_group[row]]);
    if (merged) continue;
    for (const auto& term : mix.right_terms)
      if (term.to == row) add_source(targets, to, address(mix.right, term.from), m.forward[1][term.group]);
  }
}

template <class Real>
void StageBuilder<Real>::forward_mix(const ChannelMix& mix, LayerStage<Real>& stage) {
  if (layout_.is_streamed(mix.left)) return;  // made with the product's blocks
  const std::set<int>& needed = layout_.needed.at(mix.output);
  Targets targets;
  mix_targets(mix, {needed.begin(), needed.end()}, nullptr, 0, targets);
  add_gemms(targets, mix_weights_, values_, stage.forward);
}

template <class Real>
void StageBuilder<Real>::adjoint_mix(const ChannelMix& mix, LayerStage<Real>& stage) {
  const Matrices& m = matrices_.at(&mix);
  const auto& stored = layout_.stored[mix.output];
  Targets targets;
  if (!layout_.is_streamed(mix.left))
    for (const auto& [row, position] : stored)
      add_source(targets, address(mix.left, row), address(mix.output, row), m.transposed[0][mix.left_group[row]]);
  if (m.transposed.size() > 1)
    for (const auto& term : mix.right_terms)
      if (stored.count(term.to) != 0)
        add_source(targets, address(mix.right, term.from), address(mix.output, term.to), m.transposed[1][term.group]);
  add_gemms(targets, mix_weights_, gradients_, stage.adjoint);
}

// ---- reductions ----------------------------------------------------------------------------------------------------

template <class Real>
void StageBuilder<Real>::forward_reduce(const FunctionReduce& reduce, LayerStage<Real>& stage) {
  const Matrices& m = matrices_.at(&reduce);
  Targets targets;
  for (std::size_t k = 0; k < reduce.inputs.size(); ++k) {
    const auto& input = reduce.inputs[k];
    if (layout_.is_streamed(input.tensor)) continue;
    for (const auto& row : input.rows)
      add_source(targets, address(reduce.output, row.target), address(input.tensor, row.source),
                 m.forward[k][row.group]);
  }
  add_gemms(targets, reduce_weights_.at(&reduce), values_, stage.forward);
}

template <class Real>
void StageBuilder<Real>::adjoint_reduce(const FunctionReduce& reduce, LayerStage<Real>& stage) {
  const Matrices& m = matrices_.at(&reduce);
  Targets targets;
  for (std::size_t k = 0; k < reduce.inputs.size(); ++k) {
    const auto& input = reduce.inputs[k];
    if (layout_.is_streamed(input.tensor)) continue;
    for (const auto& row : input.rows)
      add_source(targets, address(input.tensor, row.source), address(reduce.output, row.target),
                 m.transposed[k][row.group]);
  }
  add_gemms(targets, reduce_weights_.at(&reduce), gradients_, stage.adjoint);
}

template class StageBuilder<double>;
template class StageBuilder<float>;

}  // namespace grace::gpu
