#include "grace/evaluator_cpu/compiled_model.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <set>

#include "grace/error.hpp"
#include "grace/evaluator_cpu/packing.hpp"
#include "grace/evaluator_cpu/radial_table.hpp"

namespace grace::cpu {
namespace {

constexpr std::size_t block_bytes = 40960;  // rows of a product block: stays in L1 next to its operands

math::HarmonicsTable<double> harmonics_table(int lmax) {
  require(lmax <= math::max_lmax, "lmax = ", lmax, " of the radial network is above the supported ", math::max_lmax);
  math::HarmonicsTable<double> t{};
  t.lmax = lmax;
  t.p_mm[0] = 1.0;
  for (int m = 1; m <= lmax; ++m) t.p_mm[m] = t.p_mm[m - 1] * std::sqrt((2.0 * m + 1.0) / (2.0 * m));
  for (int m = 0; m <= lmax; ++m) {
    t.first[m] = std::sqrt(2.0 * m + 3.0);
    for (int l = m + 2; l <= lmax; ++l) {
      t.a[l][m] = std::sqrt((4.0 * l * l - 1.0) / (l * l - m * m));
      t.b[l][m] = std::sqrt(((l - 1.0) * (l - 1.0) - m * m) / (4.0 * (l - 1.0) * (l - 1.0) - 1.0));
    }
  }
  return t;
}

template <class Real>
math::HarmonicsTable<Real> convert(const math::HarmonicsTable<double>& from) {
  math::HarmonicsTable<Real> to{};
  to.lmax = from.lmax;
  for (int m = 0; m <= math::max_lmax; ++m) {
    to.p_mm[m] = static_cast<Real>(from.p_mm[m]);
    to.first[m] = static_cast<Real>(from.first[m]);
    for (int l = 0; l <= math::max_lmax; ++l) {
      to.a[l][m] = static_cast<Real>(from.a[l][m]);
      to.b[l][m] = static_cast<Real>(from.b[l][m]);
    }
  }
  return to;
}

struct Row {
  int in = 0, out = 0, group = 0;
};

// Merges rows whose input, output and group continue each other. Weight groups are shared over the rows of one path only,
// so a segment never exceeds a path.
std::vector<Segment> segments_of(const std::vector<Row>& rows) {
  std::vector<Segment> segments;
  for (const Row& row : rows) {
    if (!segments.empty()) {
      Segment& last = segments.back();
      if (row.group == last.group && row.in == last.in_row + last.n_rows && row.out == last.out_row + last.n_rows) {
        ++last.n_rows;
        continue;
      }
    }
    segments.push_back({row.in, row.out, 1, row.group});
  }
  return segments;
}

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

}  // namespace

template <class Real>
struct CompiledModel<Real>::Storage {
  std::deque<AlignedVector<Real>> reals;
  std::deque<AlignedVector<double>> doubles;
  std::deque<std::vector<int>> integers;
  std::deque<std::vector<Segment>> segments;
  std::deque<std::vector<math::GatherTerm<Real>>> terms;
  std::deque<std::vector<Block<Real>>> blocks;
  std::deque<std::vector<BlockConsumer<Real>>> consumers;
  std::deque<std::vector<Op<Real>>> ops;
  std::deque<std::vector<Slot>> slots;
  std::deque<std::vector<const Real*>> pointers;
  std::deque<std::vector<const double*>> double_pointers;

  template <class T>
  static auto* keep(std::deque<T>& where, T value) {
    where.push_back(std::move(value));
    return where.back().data();
  }

  const int* keep_integers(std::vector<int> v) { return keep(integers, std::move(v)); }

  // targets must be sorted; `rows` = (target, first, second, coefficient)
  GatherTable<Real> gather_table(std::map<int, std::map<std::pair<int, int>, double>> rows) {
    std::vector<int> target, first_term{0};
    std::vector<math::GatherTerm<Real>> list;
    for (const auto& [t, terms_of_t] : rows) {
      target.push_back(t);
      for (const auto& [operands, c] : terms_of_t) list.push_back({operands.first, operands.second, static_cast<Real>(c)});
      first_term.push_back(static_cast<int>(list.size()));
    }
    GatherTable<Real> table;
    table.n_targets = static_cast<int>(target.size());
    table.target = keep_integers(std::move(target));
    table.first_term = keep_integers(std::move(first_term));
    table.terms = keep(terms, std::move(list));
    return table;
  }

  // source(element, group, in, out) -> weight
  template <class Source>
  Weights<Real> weights(int n_elements, int n_groups, int n_in, int n_out, Source source) {
    Weights<Real> w{n_in, n_out, padded_channels<Real>(n_in), padded_channels<Real>(n_out), n_groups, n_elements > 1, nullptr, nullptr};
    const std::size_t n = static_cast<std::size_t>(n_elements) * n_groups;
    AlignedVector<Real> forward(n * n_in * w.out_stride, Real(0)), transposed(n * n_out * w.in_stride, Real(0));
    for (int e = 0; e < n_elements; ++e)
      for (int g = 0; g < n_groups; ++g) {
        const std::size_t m = static_cast<std::size_t>(e) * n_groups + g;
        pack_matrix(n_in, w.out_stride, [&](int i, int o) { return o < n_out ? source(e, g, i, o) : 0.0; }, forward.data() + m * n_in * w.out_stride);
        pack_matrix(n_out, w.in_stride, [&](int o, int i) { return i < n_in ? source(e, g, i, o) : 0.0; }, transposed.data() + m * n_out * w.in_stride);
      }
    w.forward = keep(reals, std::move(forward));
    w.transposed = keep(reals, std::move(transposed));
    return w;
  }

  Weights<Real> left_weights(const ChannelMix& mix, bool merge_right) {
    std::vector<int> right_group(mix.n_left_groups, -1);
    if (merge_right)
      for (const auto& term : mix.right_terms) right_group[mix.left_group[term.to]] = term.group;
    return weights(1, mix.n_left_groups, mix.n_left, mix.n_out, [&](int, int g, int i, int o) {
      double value = mix.left_weights[(static_cast<std::size_t>(g) * mix.n_left + i) * mix.n_out + o];
      if (merge_right && right_group[g] >= 0)
        value += mix.right_weights[(static_cast<std::size_t>(right_group[g]) * mix.n_right + i) * mix.n_out + o];
      return value;
    });
  }

  Weights<Real> right_weights(const ChannelMix& mix) {
    return weights(1, mix.n_right_groups, mix.n_right, mix.n_out, [&](int, int g, int i, int o) {
      return mix.right_weights[(static_cast<std::size_t>(g) * mix.n_right + i) * mix.n_out + o];
    });
  }

  Weights<Real> reduce_weights(const FunctionReduce& reduce, const FunctionReduce::Input& input, int n_elements) {
    Weights<Real> w = weights(reduce.per_element ? n_elements : 1, input.n_groups, input.n_channels, reduce.n_out, [&](int e, int g, int i, int o) {
      return input.weights[((static_cast<std::size_t>(e) * input.n_groups + g) * reduce.n_out + o) * input.n_channels + i];
    });
    w.per_element = reduce.per_element && n_elements > 1;
    return w;
  }
};

namespace {

// One layer under construction.
template <class Real, class Storage>
class LayerBuilder {
 public:
  LayerBuilder(const ModelSpec& spec, Storage& storage, int index, int tile_atoms)
      : spec_(spec), storage_(storage), index_(index), tile_atoms_(tile_atoms) {
    assign_stages();
    find_consumers();
    find_needed_rows();
    make_slots();
    make_ops();
  }

  CompiledLayer<Real> finish(RadialMode mode, RadialTableReport& report) {
    CompiledLayer<Real> layer;
    LayerPlan<Real>& plan = layer.plan;
    make_radial(mode, plan.radial, report);
    plan.harmonics = convert<Real>(harmonics_table(plan.radial.lmax));
    plan.n_harmonics = (plan.radial.lmax + 1) * (plan.radial.lmax + 1);
    make_basis(plan);
    plan.n_ops = static_cast<int>(ops_.size());
    plan.ops = storage_.keep(storage_.ops, std::move(ops_));
    plan.n_slots = static_cast<int>(slots_.size());
    for (const Slot& slot : slots_) plan.arena_per_atom = std::max(plan.arena_per_atom, slot.offset + static_cast<std::size_t>(slot.n_rows) * slot.stride);
    plan.slots = storage_.keep(storage_.slots, std::move(slots_));
    plan.block_per_atom = block_per_atom_;
    plan.n_accumulated = static_cast<int>(accumulated_.size());
    plan.accumulated = storage_.keep_integers(accumulated_);
    plan.density = density_;
    plan.message = index_ == 0 && !spec_.message.empty() ? slot_of_.at(spec_.message) : -1;
    layer.slot_names = names_;
    layer.slot_rows = stored_rows_;
    for (const Stage& stage : spec_.stages)
      if (const auto* norm = std::get_if<DensityNorm>(&stage); norm != nullptr && norm->input == density_name_) {
        layer.norm.present = true;
        layer.norm.only_nonlinear = norm->kind != DensityNorm::Kind::full;
        layer.norm.gate = norm->kind == DensityNorm::Kind::separate_linear_gate ? norm->gate : 1.0;
        AlignedVector<double> scale(norm->scale.begin(), norm->scale.end());
        layer.norm.scale = storage_.keep(storage_.doubles, std::move(scale));
      }
    return layer;
  }

 private:
  const ModelSpec& spec_;
  Storage& storage_;
  int index_;
  int tile_atoms_;
  std::vector<const Stage*> stages_;                       // of this layer, in order
  std::map<std::string, const Stage*> producer_;
  std::map<std::string, std::vector<const ChannelMix*>> left_mixes_;
  std::map<std::string, std::vector<const FunctionReduce*>> reduces_;
  std::map<std::string, std::set<int>> needed_;
  std::map<std::string, int> slot_of_;
  std::map<std::string, std::map<int, int>> stored_;       // model row -> stored row
  std::vector<std::string> names_;
  std::vector<std::vector<int>> stored_rows_;
  std::vector<Slot> slots_;
  std::vector<Op<Real>> ops_;
  std::vector<int> accumulated_;
  std::size_t block_per_atom_ = 0;
  std::string density_name_;
  int density_ = -1;
  std::map<std::pair<const void*, int>, Weights<Real>> weight_cache_;

  static bool is_streamed(const Stage& stage) { return std::holds_alternative<CouplingProduct>(stage); }

  // A stage belongs to the layer of its radial network, or of its operands.
  void assign_stages() {
    std::map<std::string, int> layer_of;
    const std::string radial = spec_.radials.at(index_).name;
    for (const Stage& stage : spec_.stages) {
      int layer = -1;
      if (const auto* s = std::get_if<SingleParticleBasis>(&stage)) layer = s->radial == radial ? index_ : -2;
      if (const auto* s = std::get_if<MessageBasis>(&stage)) layer = s->radial == radial ? index_ : -2;
      if (const auto* s = std::get_if<ChannelMix>(&stage)) layer = layer_of.at(s->left);
      if (const auto* s = std::get_if<CouplingProduct>(&stage)) layer = layer_of.at(s->left);
      if (const auto* s = std::get_if<FunctionReduce>(&stage)) layer = layer_of.at(s->inputs.at(0).tensor);
      if (layer == -1) continue;  // norms and readout are handled by the evaluator
      layer_of[output_of(stage)] = layer;
      if (layer != index_) continue;
      stages_.push_back(&stage);
      producer_[output_of(stage)] = &stage;
    }
    std::vector<std::string> densities;
    for (const Stage& stage : spec_.stages)
      if (const auto* readout = std::get_if<Readout>(&stage)) densities = readout->inputs;
    for (std::string name : densities) {
      for (const Stage& stage : spec_.stages)
        if (const auto* norm = std::get_if<DensityNorm>(&stage); norm != nullptr && norm->output == name) name = norm->input;
      if (producer_.count(name) != 0) density_name_ = name;
    }
    require(!density_name_.empty(), "internal error: layer ", index_ + 1, " of ", spec_.source, " feeds no readout");
  }

  void find_consumers() {
    for (const Stage* stage : stages_) {
      if (const auto* mix = std::get_if<ChannelMix>(stage)) {
        left_mixes_[mix->left].push_back(mix);
        require(!is_streamed(*producer_.at(mix->right)), "the channel mix `", mix->output, "` of ", spec_.source,
                " has the product `", mix->right, "` as right operand, which this evaluator does not support");
      }
      if (const auto* reduce = std::get_if<FunctionReduce>(stage))
        for (const auto& input : reduce->inputs) reduces_[input.tensor].push_back(reduce);
      if (const auto* product = std::get_if<CouplingProduct>(stage))
        require(!is_streamed(*producer_.at(product->left)) && !is_streamed(*producer_.at(product->right)), "the product `",
                product->output, "` of ", spec_.source, " multiplies another product directly, which this evaluator does not support");
    }
  }

  void need_all(const std::string& name, int n_rows) {
    for (int row = 0; row < n_rows; ++row) needed_[name].insert(row);
  }

  void find_needed_rows() {
    for (auto it = stages_.rbegin(); it != stages_.rend(); ++it) {
      const Stage& stage = **it;
      if (const auto* s = std::get_if<SingleParticleBasis>(&stage)) need_all(s->output, (s->lmax + 1) * (s->lmax + 1));
      if (const auto* s = std::get_if<MessageBasis>(&stage)) need_all(s->output, s->n_rows);
      if (const auto* s = std::get_if<ChannelMix>(&stage)) {
        const std::set<int>& rows = needed_[s->output];
        for (int row : rows) needed_[s->left].insert(row);
        for (const auto& term : s->right_terms)
          if (rows.count(term.to) != 0) needed_[s->right].insert(term.from);
      }
      if (const auto* s = std::get_if<CouplingProduct>(&stage)) {
        const std::set<int> rows = needed_[s->output];
        for (const CouplingTerm& term : s->terms)
          if (rows.count(term.row) != 0) {
            needed_[s->left].insert(term.left);
            needed_[s->right].insert(term.right);
          }
      }
      if (const auto* s = std::get_if<FunctionReduce>(&stage)) {
        need_all(s->output, s->n_rows);
        for (const auto& input : s->inputs)
          for (const auto& row : input.rows) needed_[input.tensor].insert(row.source);
      }
    }
  }

  void make_slots() {
    std::size_t offset = 0;
    for (const Stage* stage : stages_) {
      if (is_streamed(*stage)) continue;
      const std::string& name = output_of(*stage);
      int channels = 0;
      if (const auto* s = std::get_if<SingleParticleBasis>(stage)) channels = s->n_channels;
      if (const auto* s = std::get_if<MessageBasis>(stage)) channels = s->n_channels;
      if (const auto* s = std::get_if<ChannelMix>(stage)) channels = s->n_out;
      if (const auto* s = std::get_if<FunctionReduce>(stage)) channels = s->n_out;
      Slot slot;
      slot.n_channels = channels;
      slot.stride = padded_channels<Real>(channels);
      slot.n_rows = static_cast<int>(needed_[name].size());
      slot.offset = offset;
      offset += static_cast<std::size_t>(slot.n_rows) * slot.stride;
      slot_of_[name] = static_cast<int>(slots_.size());
      stored_rows_.emplace_back(needed_[name].begin(), needed_[name].end());
      int k = 0;
      for (int row : needed_[name]) stored_[name][row] = k++;
      names_.push_back(name);
      if (std::holds_alternative<FunctionReduce>(*stage)) accumulated_.push_back(slot_of_[name]);
      slots_.push_back(slot);
    }
    density_ = slot_of_.at(density_name_);
  }


  const Weights<Real>& reduce_weights(const FunctionReduce& reduce, const FunctionReduce::Input& input) {
    auto found = weight_cache_.find({&input, 0});
    if (found == weight_cache_.end()) found = weight_cache_.emplace(std::make_pair(&input, 0), storage_.reduce_weights(reduce, input, spec_.n_elements())).first;
    return found->second;
  }

  const Weights<Real>& mix_weights(const ChannelMix& mix, bool right) {
    auto found = weight_cache_.find({&mix, right ? 2 : 1});
    if (found == weight_cache_.end())
      found = weight_cache_.emplace(std::make_pair(&mix, right ? 2 : 1), right ? storage_.right_weights(mix) : storage_.left_weights(mix, false)).first;
    return found->second;
  }

  void add_linear(int input, int output, bool overwrite, const Weights<Real>& weights, std::vector<Segment> segments) {
    if (segments.empty()) return;
    Op<Real> op;
    op.kind = Op<Real>::Kind::linear;
    op.linear.input = input;
    op.linear.output = output;
    op.linear.overwrite = overwrite;
    op.linear.weights = weights;
    op.linear.n_segments = static_cast<int>(segments.size());
    op.linear.segments = storage_.keep(storage_.segments, std::move(segments));
    ops_.push_back(op);
  }

  void make_ops() {
    for (const Stage* stage : stages_) {
      if (const auto* mix = std::get_if<ChannelMix>(stage); mix != nullptr && !is_streamed(*producer_.at(mix->left))) make_stored_mix(*mix);
      if (const auto* product = std::get_if<CouplingProduct>(stage)) make_product(*product);
      if (const auto* reduce = std::get_if<FunctionReduce>(stage))
        for (const auto& input : reduce->inputs)
          if (!is_streamed(*producer_.at(input.tensor))) make_stored_reduce(*reduce, input);
    }
  }

  // Both operands of A1 and B1 are one tensor and their path maps agree: the two weight matrices become one.
  static bool operands_merge(const ChannelMix& mix) {
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

  void make_stored_mix(const ChannelMix& mix) {
    const int out = slot_of_.at(mix.output);
    std::vector<Row> rows;
    for (int row : needed_.at(mix.output)) rows.push_back({stored_[mix.left].at(row), stored_[mix.output].at(row), mix.left_group[row]});
    const bool merge = operands_merge(mix);
    add_linear(slot_of_.at(mix.left), out, true, merge ? storage_.left_weights(mix, true) : mix_weights(mix, false), segments_of(rows));
    if (!merge) add_linear(slot_of_.at(mix.right), out, false, mix_weights(mix, true), right_segments(mix, 0, mix.n_rows));
  }

  // Right terms whose target row is needed and lies in [begin, end).
  std::vector<Segment> right_segments(const ChannelMix& mix, int begin, int end) {
    std::vector<Row> rows;
    for (const auto& term : mix.right_terms) {
      const auto found = stored_[mix.output].find(term.to);
      if (term.to < begin || term.to >= end || found == stored_[mix.output].end()) continue;
      rows.push_back({stored_[mix.right].at(term.from), found->second, term.group});
    }
    return segments_of(rows);
  }

  void make_stored_reduce(const FunctionReduce& reduce, const FunctionReduce::Input& input) {
    std::vector<Row> rows;
    for (const auto& row : input.rows) rows.push_back({stored_[input.tensor].at(row.source), row.target, row.group});
    add_linear(slot_of_.at(input.tensor), slot_of_.at(reduce.output), false, reduce_weights(reduce, input), segments_of(rows));
  }

  void make_product(const CouplingProduct& product) {
    const std::set<int>& needed = needed_.at(product.output);
    if (needed.empty()) return;
    const int stride = padded_channels<Real>(product.n_channels);
    const int max_rows = std::max<int>(1, static_cast<int>(block_bytes / (sizeof(Real) * stride * tile_atoms_)));
    // Rows are cut where no path continues: a path is a run of rows with the same weight group for every consumer.
    std::vector<std::vector<int>> blocks;
    std::vector<int> before_key;
    std::vector<int> path;
    auto flush_path = [&] {
      if (path.empty()) return;
      if (blocks.empty() || blocks.back().size() + path.size() > static_cast<std::size_t>(max_rows)) blocks.emplace_back();
      blocks.back().insert(blocks.back().end(), path.begin(), path.end());
      path.clear();
    };
    std::map<const FunctionReduce*, std::map<int, FunctionReduce::Row>> reduce_rows;
    for (const FunctionReduce* reduce : reduces_[product.output])
      for (const auto& input : reduce->inputs)
        if (input.tensor == product.output)
          for (const auto& row : input.rows) reduce_rows[reduce][row.source] = row;
    for (int row : needed) {
      std::vector<int> key;
      for (const ChannelMix* mix : left_mixes_[product.output]) key.push_back(mix->left_group[row]);
      for (const FunctionReduce* reduce : reduces_[product.output]) {
        const auto found = reduce_rows[reduce].find(row);
        key.push_back(found == reduce_rows[reduce].end() ? -1 : found->second.group);
      }
      if (key != before_key) flush_path();
      before_key = key;
      path.push_back(row);
    }
    flush_path();

    std::vector<Block<Real>> list;
    for (const std::vector<int>& rows : blocks) {
      block_per_atom_ = std::max(block_per_atom_, rows.size() * stride);
      list.push_back(make_block(product, rows, reduce_rows));
    }
    Op<Real> op;
    op.kind = Op<Real>::Kind::product;
    op.product.left = slot_of_.at(product.left);
    op.product.right = slot_of_.at(product.right);
    op.product.stride = stride;
    op.product.n_blocks = static_cast<int>(list.size());
    op.product.blocks = storage_.keep(storage_.blocks, std::move(list));
    ops_.push_back(op);
  }

  Block<Real> make_block(const CouplingProduct& product, const std::vector<int>& rows,
                         std::map<const FunctionReduce*, std::map<int, FunctionReduce::Row>>& reduce_rows) {
    Block<Real> block;
    block.n_rows = static_cast<int>(rows.size());
    std::map<int, int> block_row;
    for (int row : rows) block_row.emplace(row, static_cast<int>(block_row.size()));
    const bool same = product.left == product.right;
    std::map<int, std::map<std::pair<int, int>, double>> forward, left, right;
    for (const CouplingTerm& term : product.terms) {
      const auto found = block_row.find(term.row);
      if (found == block_row.end()) continue;
      const int l = stored_[product.left].at(term.left), r = stored_[product.right].at(term.right), f = found->second;
      forward[f][{l, r}] += term.coefficient;
      left[l][{f, r}] += term.coefficient;
      (same ? left : right)[r][{f, l}] += term.coefficient;
    }
    for (int f = 0; f < block.n_rows; ++f) forward[f];  // a row without terms is zero
    block.forward = storage_.gather_table(std::move(forward));
    block.adjoint_left = storage_.gather_table(std::move(left));
    block.adjoint_right = storage_.gather_table(std::move(right));

    std::vector<BlockConsumer<Real>> consumers;
    for (const ChannelMix* mix : left_mixes_[product.output]) {
      std::vector<Row> list, right_list;
      for (int row : rows) {
        const auto out = stored_[mix->output].find(row);
        if (out != stored_[mix->output].end()) list.push_back({block_row[row], out->second, mix->left_group[row]});
      }
      if (list.empty()) continue;
      BlockConsumer<Real> consumer;
      consumer.output = slot_of_.at(mix->output);
      consumer.overwrite = true;
      consumer.weights = mix_weights(*mix, false);
      std::vector<Segment> segments = segments_of(list);
      consumer.n_segments = static_cast<int>(segments.size());
      consumer.segments = storage_.keep(storage_.segments, std::move(segments));
      std::vector<Segment> extra;
      for (const Segment& s : right_segments(*mix, rows.front(), rows.back() + 1)) extra.push_back(s);
      consumer.right = slot_of_.at(mix->right);
      consumer.right_weights = mix_weights(*mix, true);
      consumer.n_right_segments = static_cast<int>(extra.size());
      consumer.right_segments = storage_.keep(storage_.segments, std::move(extra));
      consumers.push_back(consumer);
    }
    for (const FunctionReduce* reduce : reduces_[product.output])
      for (const auto& input : reduce->inputs) {
        if (input.tensor != product.output) continue;
        std::vector<Row> list;
        for (int row : rows) {
          const auto found = reduce_rows[reduce].find(row);
          if (found != reduce_rows[reduce].end()) list.push_back({block_row[row], found->second.target, found->second.group});
        }
        if (list.empty()) continue;
        BlockConsumer<Real> consumer;
        consumer.output = slot_of_.at(reduce->output);
        consumer.weights = reduce_weights(*reduce, input);
        std::vector<Segment> segments = segments_of(list);
        consumer.n_segments = static_cast<int>(segments.size());
        consumer.segments = storage_.keep(storage_.segments, std::move(segments));
        consumers.push_back(consumer);
      }
    block.n_consumers = static_cast<int>(consumers.size());
    block.consumers = storage_.keep(storage_.consumers, std::move(consumers));
    return block;
  }

  void make_radial(RadialMode mode, RadialPlan<Real>& plan, RadialTableReport& report) {
    const RadialNetwork& network = spec_.radials.at(index_);
    plan.lmax = network.lmax;
    plan.n_channels = network.n_channels;
    plan.stride = padded_channels<Real>(network.n_channels);
    plan.width = (network.lmax + 1) * plan.stride;
    if (mode == RadialMode::table) {
      RadialTable<Real> table = make_radial_table<Real>(network, plan.stride);
      if (table.report.value_error >= report.value_error) report = table.report;
      plan.n_intervals = table.report.n_intervals;
      plan.intervals = table.intervals;
      plan.n_coefficients = table.n_coefficients;
      AlignedVector<Real> packed(table.coefficients.size());
      const std::size_t block = static_cast<std::size_t>(plan.n_coefficients) * plan.width;
      for (int k = 0; k < plan.n_intervals; ++k) {
        const Real* rows = table.coefficients.data() + k * block;
        pack_matrix(plan.n_coefficients, plan.width, [&](int d, int column) { return rows[static_cast<std::size_t>(d) * plan.width + column]; }, packed.data() + k * block);
      }
      plan.coefficients = storage_.keep(storage_.reals, std::move(packed));
      return;
    }
    plan.n_basis = network.n_basis;
    plan.envelope_order = network.envelope_order;
    require(network.n_basis <= 64, "the radial basis of ", spec_.source, " has ", network.n_basis, " functions, at most 64 are supported");
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
      pack_matrix(dense.n_in, width, [&](int i, int column) {
        const int o = last ? (column % plan.stride) * l_count + column / plan.stride : column;
        const bool inside = last ? column % plan.stride < network.n_channels : column < dense.n_out;
        return inside ? dense.weights[static_cast<std::size_t>(i) * dense.n_out + o] : 0.0;
      }, w.data());
      in.push_back(dense.n_in);
      out.push_back(width);
      if (!last) plan.widest = std::max(plan.widest, width);
      pointers.push_back(storage_.keep(storage_.reals, std::move(w)));
    }
    plan.layer_in = storage_.keep_integers(in);
    plan.layer_out = storage_.keep_integers(out);
    plan.layer_weights = storage_.keep(storage_.pointers, std::move(pointers));
  }

  const Real* keep_reals(const std::vector<double>& v) { return storage_.keep(storage_.reals, AlignedVector<Real>(v.begin(), v.end())); }

  void make_basis(LayerPlan<Real>& plan) {
    for (const Stage* stage : stages_) {
      if (const auto* s = std::get_if<SingleParticleBasis>(stage)) {
        require(plan.basis < 0 && s->lmax == plan.radial.lmax && s->n_channels == plan.radial.n_channels, "the single-particle basis `",
                s->output, "` of ", spec_.source, " does not match its radial network");
        plan.basis = slot_of_.at(s->output);
        AlignedVector<Real> z(static_cast<std::size_t>(spec_.n_elements()) * plan.radial.stride, Real(0));
        for (int e = 0; e < spec_.n_elements(); ++e)
          for (int n = 0; n < s->n_channels; ++n)
            z[static_cast<std::size_t>(e) * plan.radial.stride + n] = static_cast<Real>(s->chemical[static_cast<std::size_t>(e) * s->n_channels + n]);
        plan.chemical = storage_.keep(storage_.reals, std::move(z));
        plan.basis_factor = keep_reals(s->inverse_neighbors);
      }
      if (const auto* s = std::get_if<MessageBasis>(stage)) {
        require(plan.message_basis < 0 && s->lmax == plan.radial.lmax && s->n_channels == plan.radial.n_channels, "the message basis `",
                s->output, "` of ", spec_.source, " does not match its radial network");
        plan.message_basis = slot_of_.at(s->output);
        for (const Stage& other : spec_.stages)
          if (const auto* reduce = std::get_if<FunctionReduce>(&other); reduce != nullptr && reduce->output == s->message) plan.n_message_rows = reduce->n_rows;
        plan.message_factor = keep_reals(s->inverse_neighbors);
        std::map<int, std::map<std::pair<int, int>, double>> forward, adjoint;
        for (const CouplingTerm& term : s->terms) {
          const int pair = term.left * plan.n_message_rows + term.right;
          forward[term.row][{pair, 0}] += term.coefficient;
          adjoint[pair][{term.row, 0}] += term.coefficient;
        }
        for (int row = 0; row < s->n_rows; ++row) forward[row];
        for (int pair = 0; pair < (s->lmax + 1) * (s->lmax + 1) * plan.n_message_rows; ++pair) adjoint[pair];
        plan.message_forward = storage_.gather_table(std::move(forward));
        plan.message_adjoint = storage_.gather_table(std::move(adjoint));
      }
    }
  }
};

}  // namespace

template <class Real>
CompiledModel<Real>::CompiledModel(const ModelSpec& spec, RadialMode radial, int tile_atoms) : storage_(std::make_unique<Storage>()) {
  for (std::size_t layer = 0; layer < spec.radials.size(); ++layer)
    layers.push_back(LayerBuilder<Real, Storage>(spec, *storage_, static_cast<int>(layer), tile_atoms).finish(radial, radial_report));
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
      AlignedVector<double> w(static_cast<std::size_t>(dense.n_in) * out_width, 0.0), t(static_cast<std::size_t>(dense.n_out) * in_width, 0.0);
      auto weight = [&](int i, int o) { return i < dense.n_in && o < dense.n_out ? dense.weights[static_cast<std::size_t>(i) * dense.n_out + o] : 0.0; };
      pack_matrix(dense.n_in, out_width, weight, w.data());
      pack_matrix(dense.n_out, in_width, [&](int o, int i) { return weight(i, o); }, t.data());
      in.push_back(dense.n_in);
      out.push_back(out_width);
      transposed_width.push_back(in_width);
      readout.widest = std::max({readout.widest, out_width, in_width});
      weights.push_back(storage_->keep(storage_->doubles, std::move(w)));
      transposed.push_back(storage_->keep(storage_->doubles, std::move(t)));
    }
    readout.layer_in = storage_->keep_integers(in);
    readout.layer_out = storage_->keep_integers(out);
    readout.layer_transposed_width = storage_->keep_integers(transposed_width);
    readout.layer_weights = storage_->keep(storage_->double_pointers, std::move(weights));
    readout.layer_transposed = storage_->keep(storage_->double_pointers, std::move(transposed));
  }
}

template <class Real>
CompiledModel<Real>::~CompiledModel() = default;

template <class Real>
std::size_t CompiledModel<Real>::bytes() const {
  std::size_t total = 0;
  for (const auto& v : storage_->reals) total += v.size() * sizeof(Real);
  for (const auto& v : storage_->terms) total += v.size() * sizeof(math::GatherTerm<Real>);
  return total;
}

template class CompiledModel<double>;
template class CompiledModel<float>;

}  // namespace grace::cpu
