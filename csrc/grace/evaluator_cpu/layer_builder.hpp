// Builds the operations of one layer: packed weights, channel mixes, reductions and streamed product blocks.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "grace/evaluator_cpu/plan_storage.hpp"
#include "grace/plan/layer_layout.hpp"

namespace grace::cpu {

constexpr std::size_t block_bytes = 40960;  // rows of a product block: stays in L1 next to its operands

struct Row {
  int in = 0, out = 0, group = 0;
};

// Merges rows whose input, output and group continue each other. Weight groups are shared over the rows of one path
// only, so a segment never exceeds a path.
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

template <class Real>
class LayerBuilder {
 public:
  // tile_atoms sets how many rows make a product block.
  LayerBuilder(const ModelSpec& spec, const plan::LayerLayout& layout, PlanStorage<Real>& storage, int tile_atoms)
      : spec_(spec), layout_(layout), storage_(storage), tile_atoms_(tile_atoms) {
    make_ops();
  }

  std::vector<Op<Real>> take_ops() { return std::move(ops_); }
  std::size_t block_per_atom() const { return block_per_atom_; }

 private:
  const ModelSpec& spec_;
  plan::LayerLayout layout_;  // a copy: lookups by name insert empty entries
  PlanStorage<Real>& storage_;
  int tile_atoms_;
  std::vector<Op<Real>> ops_;
  std::size_t block_per_atom_ = 0;
  std::map<std::pair<const void*, int>, Weights<Real>> weight_cache_;

  const Weights<Real>& reduce_weights(const FunctionReduce& reduce, const FunctionReduce::Input& input) {
    auto found = weight_cache_.find({&input, 0});
    if (found == weight_cache_.end())
      found =
          weight_cache_.emplace(std::make_pair(&input, 0), storage_.reduce_weights(reduce, input, spec_.n_elements()))
              .first;
    return found->second;
  }

  const Weights<Real>& mix_weights(const ChannelMix& mix, bool right) {
    auto found = weight_cache_.find({&mix, right ? 2 : 1});
    if (found == weight_cache_.end())
      found = weight_cache_
                  .emplace(std::make_pair(&mix, right ? 2 : 1),
                           right ? storage_.right_weights(mix) : storage_.left_weights(mix, false))
                  .first;
    return found->second;
  }

  LinearOp<Real> linear(int input, int output, bool overwrite, const Weights<Real>& weights,
                        std::vector<Segment> segments) {
    LinearOp<Real> op;
    op.input = input;
    op.output = output;
    op.overwrite = overwrite;
    op.weights = weights;
    op.n_segments = static_cast<int>(segments.size());
    op.segments = storage_.keep(storage_.segments, std::move(segments));
    return op;
  }

  void add_linear(const LinearOp<Real>& map) {
    Op<Real> op;
    op.kind = Op<Real>::Kind::linear;
    op.linear = map;
    ops_.push_back(op);
  }

  void make_ops() {
    for (const Stage* stage : layout_.stages) {
      if (const auto* mix = std::get_if<ChannelMix>(stage); mix != nullptr && !layout_.is_streamed(mix->left))
        make_stored_mix(*mix);
      if (const auto* product = std::get_if<CouplingProduct>(stage)) make_product(*product);
      if (const auto* reduce = std::get_if<FunctionReduce>(stage))
        for (const auto& input : reduce->inputs)
          if (!layout_.is_streamed(input.tensor)) make_stored_reduce(*reduce, input);
    }
  }

  void make_stored_mix(const ChannelMix& mix) {
    const int out = layout_.slot(mix.output);
    std::vector<Row> rows;
    for (int row : layout_.needed.at(mix.output))
      rows.push_back({layout_.stored[mix.left].at(row), layout_.stored[mix.output].at(row), mix.left_group[row]});
    const bool merge = plan::operands_merge(mix);
    add_linear(linear(layout_.slot(mix.left), out, true,
                      merge ? storage_.left_weights(mix, true) : mix_weights(mix, false), segments_of(rows)));
    if (!merge)
      add_linear(
          linear(layout_.slot(mix.right), out, false, mix_weights(mix, true), right_segments(mix, 0, mix.n_rows)));
  }

  // Right terms whose target row is needed and lies in [begin, end).
  std::vector<Segment> right_segments(const ChannelMix& mix, int begin, int end) {
    std::vector<Row> rows;
    for (const auto& term : mix.right_terms) {
      const auto found = layout_.stored[mix.output].find(term.to);
      if (term.to < begin || term.to >= end || found == layout_.stored[mix.output].end()) continue;
      rows.push_back({layout_.stored[mix.right].at(term.from), found->second, term.group});
    }
    return segments_of(rows);
  }

  void make_stored_reduce(const FunctionReduce& reduce, const FunctionReduce::Input& input) {
    std::vector<Row> rows;
    for (const auto& row : input.rows)
      rows.push_back({layout_.stored[input.tensor].at(row.source), row.target, row.group});
    add_linear(linear(layout_.slot(input.tensor), layout_.slot(reduce.output), false, reduce_weights(reduce, input),
                      segments_of(rows)));
  }

  void make_product(const CouplingProduct& product) {
    const std::set<int>& needed = layout_.needed.at(product.output);
    if (needed.empty()) return;
    const int stride = padded_channels<Real>(product.n_channels);
    const int max_rows = std::max<int>(1, static_cast<int>(block_bytes / (sizeof(Real) * stride * tile_atoms_)));
    // Rows are cut where no path continues: a path is a run of rows with the same weight group for every consumer.
    std::vector<std::vector<int>> blocks;
    std::vector<int> before_key;
    std::vector<int> path;
    auto flush_path = [&] {
      if (path.empty()) return;
      if (blocks.empty() || blocks.back().size() + path.size() > static_cast<std::size_t>(max_rows))
        blocks.emplace_back();
      blocks.back().insert(blocks.back().end(), path.begin(), path.end());
      path.clear();
    };
    std::map<const FunctionReduce*, std::map<int, FunctionReduce::Row>> reduce_rows;
    for (const FunctionReduce* reduce : layout_.reductions[product.output])
      for (const auto& input : reduce->inputs)
        if (input.tensor == product.output)
          for (const auto& row : input.rows) reduce_rows[reduce][row.source] = row;
    for (int row : needed) {
      std::vector<int> key;
      for (const ChannelMix* mix : layout_.left_mixes[product.output]) key.push_back(mix->left_group[row]);
      for (const FunctionReduce* reduce : layout_.reductions[product.output]) {
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
    op.product.left = layout_.slot(product.left);
    op.product.right = layout_.slot(product.right);
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
      const int l = layout_.stored[product.left].at(term.left), r = layout_.stored[product.right].at(term.right),
                f = found->second;
      forward[f][{l, r}] += term.coefficient;
      left[l][{f, r}] += term.coefficient;
      (same ? left : right)[r][{f, l}] += term.coefficient;
    }
    for (int f = 0; f < block.n_rows; ++f) forward[f];  // a row without terms is zero
    block.forward = storage_.gather_table(std::move(forward));
    block.adjoint_left = storage_.gather_table(std::move(left));
    block.adjoint_right = storage_.gather_table(std::move(right));

    std::vector<LinearOp<Real>> consumers;
    const int here = LinearOp<Real>::block;
    for (const ChannelMix* mix : layout_.left_mixes[product.output]) {
      std::vector<Row> list;
      for (int row : rows) {
        const auto out = layout_.stored[mix->output].find(row);
        if (out != layout_.stored[mix->output].end())
          list.push_back({block_row[row], out->second, mix->left_group[row]});
      }
      if (list.empty()) continue;
      const int out = layout_.slot(mix->output);
      consumers.push_back(linear(here, out, true, mix_weights(*mix, false), segments_of(list)));
      // The right operand of the same output rows, while they are in cache.
      consumers.push_back(linear(layout_.slot(mix->right), out, false, mix_weights(*mix, true),
                                 right_segments(*mix, rows.front(), rows.back() + 1)));
    }
    for (const FunctionReduce* reduce : layout_.reductions[product.output])
      for (const auto& input : reduce->inputs) {
        if (input.tensor != product.output) continue;
        std::vector<Row> list;
        for (int row : rows) {
          const auto found = reduce_rows[reduce].find(row);
          if (found != reduce_rows[reduce].end())
            list.push_back({block_row[row], found->second.target, found->second.group});
        }
        if (!list.empty())
          consumers.push_back(
              linear(here, layout_.slot(reduce->output), false, reduce_weights(*reduce, input), segments_of(list)));
      }
    block.n_consumers = static_cast<int>(consumers.size());
    block.consumers = storage_.keep(storage_.consumers, std::move(consumers));
    return block;
  }
};

}  // namespace grace::cpu
