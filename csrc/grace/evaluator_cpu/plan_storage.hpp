// Owns the memory behind the plain pointers of a plan, and makes its tables and packed weights.
#pragma once

#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "grace/evaluator_cpu/compiled_model.hpp"
#include "grace/evaluator_cpu/packing.hpp"
#include "grace/evaluator_cpu/plan.hpp"
#include "grace/model/spec.hpp"

namespace grace::cpu {

template <class Real>
class PlanStorage {
 public:
  std::deque<AlignedVector<Real>> reals;
  std::deque<AlignedVector<double>> doubles;
  std::deque<std::vector<int>> integers;
  std::deque<std::vector<Segment>> segments;
  std::deque<std::vector<math::GatherTerm<Real>>> terms;
  std::deque<std::vector<Block<Real>>> blocks;
  std::deque<std::vector<LinearOp<Real>>> consumers;
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
      for (const auto& [operands, c] : terms_of_t)
        list.push_back({operands.first, operands.second, static_cast<Real>(c)});
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
    Weights<Real> w{
        n_in,    n_out,  padded_channels<Real>(n_in), padded_channels<Real>(n_out), n_groups, n_elements > 1,
        nullptr, nullptr};
    const std::size_t n = static_cast<std::size_t>(n_elements) * n_groups;
    AlignedVector<Real> forward(n * n_in * w.out_stride, Real(0)), transposed(n * n_out * w.in_stride, Real(0));
    for (int e = 0; e < n_elements; ++e)
      for (int g = 0; g < n_groups; ++g) {
        const std::size_t m = static_cast<std::size_t>(e) * n_groups + g;
        pack_matrix(
            n_in, w.out_stride, [&](int i, int o) { return o < n_out ? source(e, g, i, o) : 0.0; },
            forward.data() + m * n_in * w.out_stride);
        pack_matrix(
            n_out, w.in_stride, [&](int o, int i) { return i < n_in ? source(e, g, i, o) : 0.0; },
            transposed.data() + m * n_out * w.in_stride);
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
    Weights<Real> w = weights(
        reduce.per_element ? n_elements : 1, input.n_groups, input.n_channels, reduce.n_out,
        [&](int e, int g, int i, int o) {
          return input
              .weights[((static_cast<std::size_t>(e) * input.n_groups + g) * reduce.n_out + o) * input.n_channels + i];
        });
    w.per_element = reduce.per_element && n_elements > 1;
    return w;
  }
};

}  // namespace grace::cpu
