// Streamed products of StageBuilder: how they are cut into blocks, and what reads the blocks.
#include <algorithm>
#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cuda/layer_stages.hpp"

namespace grace::gpu {

// Multiplet of every stored row of a tensor: rows that share their weight groups. Rows of tensors that carry no such
// information count as multiplets of their own.
template <class Real>
std::vector<int> StageBuilder<Real>::paths_of(const std::string& tensor) const {
  const std::vector<int>& rows = layout_.rows[layout_.slot(tensor)];
  std::vector<int> paths(rows.size());
  for (std::size_t k = 0; k < rows.size(); ++k) paths[k] = static_cast<int>(k);
  for (const Stage* stage : layout_.stages) {
    if (plan::output_of(*stage) != tensor) continue;
    if (const auto* mix = std::get_if<ChannelMix>(stage))
      for (std::size_t k = 0; k < rows.size(); ++k) paths[k] = mix->left_group[rows[k]];
    if (std::holds_alternative<SingleParticleBasis>(*stage))
      for (std::size_t k = 0; k < rows.size(); ++k) {
        int l = 0;
        while ((l + 1) * (l + 1) <= rows[k]) ++l;
        paths[k] = l;
      }
  }
  return paths;
}

// Weight groups of a product row in everything that reads it: equal within a path only.
template <class Real>
std::vector<int> StageBuilder<Real>::key_of(const CouplingProduct& product, int row) const {
  std::vector<int> key;
  if (const auto mixes = layout_.left_mixes.find(product.output); mixes != layout_.left_mixes.end())
    for (const ChannelMix* mix : mixes->second) key.push_back(mix->left_group[row]);
  if (const auto reductions = layout_.reductions.find(product.output); reductions != layout_.reductions.end())
    for (const FunctionReduce* reduce : reductions->second)
      for (const auto& input : reduce->inputs) {
        if (input.tensor != product.output) continue;
        const auto found =
            std::find_if(input.rows.begin(), input.rows.end(), [&](const auto& r) { return r.source == row; });
        key.push_back(found == input.rows.end() ? -1 : found->group);
      }
  return key;
}

// Blocks of whole paths, sorted by the multiplet of their left operand, so that the adjoint of a block touches few rows
// of it.
template <class Real>
std::vector<typename StageBuilder<Real>::Step> StageBuilder<Real>::cut(const CouplingProduct& product) {
  const std::vector<int> left_paths = paths_of(product.left);
  std::map<int, int> left_of;
  for (const CouplingTerm& term : product.terms) {
    const auto stored = layout_.stored[product.left].find(term.left);
    if (stored == layout_.stored[product.left].end()) continue;
    const auto [it, fresh] = left_of.emplace(term.row, left_paths[stored->second]);
    if (!fresh) it->second = std::min(it->second, left_paths[stored->second]);
  }
  std::vector<Path> paths;
  std::vector<int> key_before;
  for (int row : layout_.needed.at(product.output)) {
    std::vector<int> key = key_of(product, row);
    if (paths.empty() || key != key_before) paths.emplace_back();
    paths.back().rows.push_back(row);
    paths.back().left_path = left_of.count(row) != 0 ? left_of[row] : 0;
    key_before = std::move(key);
  }
  std::stable_sort(paths.begin(), paths.end(), [](const Path& a, const Path& b) { return a.left_path < b.left_path; });
  const std::size_t row_bytes = sizeof(Real) * padded_channels(product.n_channels);
  const std::size_t max_rows = std::max<std::size_t>(1, block_bytes_ / row_bytes);
  std::vector<Step> steps;
  for (const Path& path : paths) {
    if (steps.empty() || steps.back().rows.size() + path.rows.size() > max_rows) steps.emplace_back();
    for (int row : path.rows) {
      steps.back().block_row.emplace(row, static_cast<int>(steps.back().rows.size()));
      steps.back().rows.push_back(row);
    }
  }
  return steps;
}

// Rows of a reduction that read a block, with the index of the input.
template <class Real>
std::vector<std::pair<const FunctionReduce::Row*, std::size_t>> StageBuilder<Real>::reduced_rows(
    const FunctionReduce& reduce, const std::string& product, const Step& step) {
  std::vector<std::pair<const FunctionReduce::Row*, std::size_t>> rows;
  for (std::size_t k = 0; k < reduce.inputs.size(); ++k)
    if (reduce.inputs[k].tensor == product)
      for (const FunctionReduce::Row& row : reduce.inputs[k].rows)
        if (step.block_row.count(row.source) != 0) rows.push_back({&row, k});
  return rows;
}

template <class Real>
void StageBuilder<Real>::forward_product(const CouplingProduct& product, LayerStage<Real>& stage) {
  const int stride = padded_channels(product.n_channels);
  const std::vector<Step>& steps = steps_[&product] = cut(product);
  for (const Step& step : steps) {
    block_per_atom_ = std::max(block_per_atom_, step.rows.size() * stride);
    ProductStep<Real> made;
    Targets mixed;
    for (const ChannelMix* mix : layout_.left_mixes[product.output]) mix_targets(*mix, step.rows, &step, stride, mixed);
    add_gemms(mixed, mix_weights_, values_, made.consumers);
    for (const FunctionReduce* reduce : layout_.reductions[product.output]) {
      Targets targets;
      for (const auto& [row, k] : reduced_rows(*reduce, product.output, step))
        add_source(targets, address(reduce->output, row->target), block_address(step, row->source, stride),
                   matrices_.at(reduce).forward[k][row->group]);
      add_gemms(targets, reduce_weights_.at(reduce), values_, made.consumers);
    }
    stage.steps.push_back(std::move(made));
  }
}

template <class Real>
void StageBuilder<Real>::adjoint_product(const CouplingProduct& product, LayerStage<Real>& stage) {
  const int stride = padded_channels(product.n_channels);
  const std::vector<int> left_paths = paths_of(product.left), right_paths = paths_of(product.right);
  const bool same = product.left == product.right;
  for (std::size_t s = 0; s < steps_[&product].size(); ++s) {
    const Step& step = steps_[&product][s];
    std::set<std::int64_t> written;  // block rows
    Targets mixed;
    for (const ChannelMix* mix : layout_.left_mixes[product.output])
      for (int row : step.rows)
        if (layout_.stored[mix->output].count(row) != 0)
          add_source(mixed, block_address(step, row, stride), address(mix->output, row),
                     matrices_.at(mix).transposed[0][mix->left_group[row]]);
    add_gemms(mixed, mix_weights_, written, stage.steps[s].gradients);
    for (const FunctionReduce* reduce : layout_.reductions[product.output]) {
      Targets targets;
      for (const auto& [row, k] : reduced_rows(*reduce, product.output, step))
        add_source(targets, block_address(step, row->source, stride), address(reduce->output, row->target),
                   matrices_.at(reduce).transposed[k][row->group]);
      add_gemms(targets, reduce_weights_.at(reduce), written, stage.steps[s].gradients);
    }
    require(written.size() == step.rows.size(), "internal error: a row of the product `", product.output, "` of ",
            spec_.source, " is made but read by nobody");

    ProductRows rows;
    rows.right_is_left = same;
    rows.stride = stride;
    auto operand = [&](const std::string& tensor, const std::vector<int>& paths) {
      ProductOperand made;
      made.path = paths;
      for (int row : layout_.rows[layout_.slot(tensor)]) {
        made.rows.push_back(address(tensor, row));
        made.gradient_exists.push_back(gradients_.count(made.rows.back().offset) != 0 ? 1 : 0);
      }
      return made;
    };
    rows.left = operand(product.left, left_paths);
    if (!same) rows.right = operand(product.right, right_paths);
    // A path is a run of rows with equal keys.
    std::vector<int> key_before;
    for (int row : step.rows) {
      std::vector<int> key = key_of(product, row);
      rows.path.push_back(rows.path.empty() ? 0 : rows.path.back() + (key != key_before ? 1 : 0));
      key_before = std::move(key);
    }
    for (const CouplingTerm& term : product.terms) {
      const auto found = step.block_row.find(term.row);
      if (found == step.block_row.end()) continue;
      const int left = layout_.stored[product.left].at(term.left), right = layout_.stored[product.right].at(term.right);
      rows.terms.push_back({found->second, left, right, term.coefficient});
      gradients_.insert(rows.left.rows[left].offset);
      gradients_.insert((same ? rows.left : rows.right).rows[right].offset);
    }
    stage.steps[s].block = make_product_block<Real>(rows, memory_);
  }
}

#define GRACE_INSTANTIATE(Real)                                                                              \
  template std::vector<int> StageBuilder<Real>::paths_of(const std::string&) const;                          \
  template std::vector<int> StageBuilder<Real>::key_of(const CouplingProduct&, int) const;                   \
  template std::vector<StageBuilder<Real>::Step> StageBuilder<Real>::cut(const CouplingProduct&);            \
  template std::vector<std::pair<const FunctionReduce::Row*, std::size_t>> StageBuilder<Real>::reduced_rows( \
      const FunctionReduce&, const std::string&, const Step&);                                               \
  template void StageBuilder<Real>::forward_product(const CouplingProduct&, LayerStage<Real>&);              \
  template void StageBuilder<Real>::adjoint_product(const CouplingProduct&, LayerStage<Real>&);
GRACE_INSTANTIATE(double)
GRACE_INSTANTIATE(float)
#undef GRACE_INSTANTIATE

}  // namespace grace::gpu
