// Turns the stages of one layer into row GEMMs and product steps, forward and adjoint (plan.hpp).
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "grace/evaluator_cuda/plan.hpp"
#include "grace/plan/layer_layout.hpp"

namespace grace::gpu {

template <class Real>
class StageBuilder {
 public:
  StageBuilder(const ModelSpec& spec, const plan::LayerLayout& layout, std::size_t block_bytes_per_atom,
               device::ModelMemory& memory);

  // Fills stages, block_per_atom and the ranges to clear. `given` names tensors whose gradients are set before the
  // adjoint runs (density, message).
  void build(const std::set<std::string>& given, LayerPlan<Real>& layer);

 private:
  // Matrices of mixes or of a reduction with their transposes, in one array per element. All mixes of a layer share one
  // array, so that one operation can serve several of them.
  struct Weights {
    std::vector<std::vector<Real>> elements;
    const Real* data = nullptr;
    std::int64_t element_stride = 0;
  };
  // Where the matrices of one mix or reduction start, [operand][group].
  struct Matrices {
    std::vector<std::vector<std::int64_t>> forward, transposed;
  };
  struct Source {
    RowAddress row;
    std::int64_t weights;
  };
  using Targets = std::map<std::int64_t, std::pair<RowAddress, std::vector<Source>>>;  // by offset
  struct Path {
    std::vector<int> rows;  // of the product
    int left_path = 0;
  };
  struct Step {
    std::vector<int> rows;
    std::map<int, int> block_row;
  };

  RowAddress address(const std::string& tensor, int row) const;
  RowAddress block_address(const Step& step, int row, int stride) const;
  std::vector<int> paths_of(const std::string& tensor) const;
  RowGemm<Real> gemm(const Targets& targets, const Weights& weights, std::set<std::int64_t>& written);
  void add_gemms(const Targets& targets, const Weights& weights, std::set<std::int64_t>& written,
                 std::vector<RowGemm<Real>>& out);

  template <class Weight>
  void add_operand(Weights& weights, Matrices& m, int n_groups, int n_in, int n_out, Weight weight);
  void keep(Weights& weights);
  void add_mix(const ChannelMix& mix);
  void add_reduce(const FunctionReduce& reduce);

  std::vector<Step> cut(const CouplingProduct& product);
  std::vector<int> key_of(const CouplingProduct& product, int row) const;
  static void add_source(Targets& targets, const RowAddress& to, const RowAddress& from, std::int64_t weights);
  void mix_targets(const ChannelMix& mix, const std::vector<int>& rows, const Step* step, int stride, Targets& targets);
  static std::vector<std::pair<const FunctionReduce::Row*, std::size_t>> reduced_rows(const FunctionReduce& reduce,
                                                                                      const std::string& product,
                                                                                      const Step& step);
  void forward_mix(const ChannelMix& mix, LayerStage<Real>& stage);
  void forward_reduce(const FunctionReduce& reduce, LayerStage<Real>& stage);
  void forward_product(const CouplingProduct& product, LayerStage<Real>& stage);
  void adjoint_mix(const ChannelMix& mix, LayerStage<Real>& stage);
  void adjoint_reduce(const FunctionReduce& reduce, LayerStage<Real>& stage);
  void adjoint_product(const CouplingProduct& product, LayerStage<Real>& stage);
  std::vector<ArenaRange> missing_rows(const std::set<std::int64_t>& written, bool reductions_only) const;

  const ModelSpec& spec_;
  plan::LayerLayout layout_;  // a copy: lookups by name insert empty entries
  std::size_t block_bytes_;
  device::ModelMemory& memory_;
  std::map<const void*, Matrices> matrices_;  // by mix or reduction
  Weights mix_weights_;
  std::map<const FunctionReduce*, Weights> reduce_weights_;
  std::map<const CouplingProduct*, std::vector<Step>> steps_;
  std::set<std::int64_t> values_;  // arena offsets of rows written so far
  std::set<std::int64_t> gradients_;
  std::size_t block_per_atom_ = 0;
};

}  // namespace grace::gpu
