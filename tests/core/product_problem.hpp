// A block of coupling products in plain numbers, the loops that say what it is, and its copy on the device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "grace/evaluator_cuda/product.hpp"
#include "grace/evaluator_cuda/product_pattern.hpp"
#include "test_target.hpp"

namespace product_test {

using namespace grace::gpu;
using grace::CouplingTerm;
using grace::device::Buffer;
using test_target::TestDevice;

enum class Exists { none, all, some };

// Operands and block by the sizes of their paths. `n_couplings`: sets of three multiplets whose terms follow the
// pattern of real harmonics, as in models; `n_scattered`: terms between any rows.
struct Case {
  std::vector<int> left, right, block;  // no right: right_is_left
  int n_couplings, n_scattered;
  int n_channels, n_atoms;
  Exists exists;
  bool apart;  // rows of a path do not follow each other in memory
};

inline std::vector<int> paths_of(const std::vector<int>& sizes) {
  std::vector<int> path;
  for (std::size_t p = 0; p < sizes.size(); ++p) path.insert(path.end(), sizes[p], static_cast<int>(3 * p + 1));
  return path;
}

template <class Real>
struct Problem {
  std::mt19937 random;
  ProductRows rows;
  int n_channels, n_atoms, n_rows;
  std::size_t arena_per_atom = 0;
  std::vector<Real> values, gradients, row_gradients;  // as on the device; gradients: those that exist, else NaN

  double uniform() { return std::uniform_real_distribution<double>(-1.0, 1.0)(random); }
  int pick(std::size_t n) { return static_cast<int>(random() % n); }
  double coefficient() { return static_cast<double>(static_cast<Real>(uniform())); }

  Problem(const Case& c, std::uint64_t seed)
      : random(static_cast<unsigned>(seed + 11)), n_channels(c.n_channels), n_atoms(c.n_atoms) {
    rows.right_is_left = c.right.empty();
    rows.left.path = paths_of(c.left);
    rows.right.path = paths_of(c.right);
    rows.path = paths_of(c.block);
    for (int k = 0; k < c.n_couplings; ++k) couple(c);
    const std::size_t n_right = (rows.right_is_left ? rows.left : rows.right).path.size();
    for (int k = 0; k < c.n_scattered; ++k)
      add({pick(rows.path.size()), pick(rows.left.path.size()), pick(n_right), coefficient()});
    place(c.apart, c.exists);
  }
  // The rows of a model; every operand row is stored.
  Problem(const ProductRows& of_model, int channels, int atoms, Exists exists, std::uint64_t seed)
      : random(static_cast<unsigned>(seed + 11)), rows(of_model), n_channels(channels), n_atoms(atoms) {
    for (CouplingTerm& term : rows.terms) term.coefficient = static_cast<double>(static_cast<Real>(term.coefficient));
    place(false, exists);
  }

  void add(const CouplingTerm& term) {
    for (const CouplingTerm& other : rows.terms)
      if (other.row == term.row && other.left == term.left && other.right == term.right) return;
    rows.terms.push_back(term);
  }

  // Half of the terms of three multiplets or all of them, sometimes without a row of the left one; some coefficients
  // are zero.
  void couple(const Case& c) {
    const std::vector<int>& right = rows.right_is_left ? c.left : c.right;
    const auto start = [](const std::vector<int>& sizes, int path) {
      int sum = 0;
      for (int p = 0; p < path; ++p) sum += sizes[p];
      return sum;
    };
    for (int trial = 0; trial < 1000; ++trial) {
      const int p = pick(c.block.size()), a = pick(c.left.size()), b = pick(right.size());
      const int l = c.block[p] / 2, l1 = c.left[a] / 2, l2 = right[b] / 2;
      if (c.block[p] % 2 == 0 || c.left[a] % 2 == 0 || right[b] % 2 == 0) continue;
      if (l > l1 + l2 || l1 > l + l2 || l2 > l + l1) continue;
      const bool with_all = pick(2) == 0;
      const int least = pick(3) == 0 && l1 > 0 ? 1 - l1 : -l1;
      for (int m1 = least; m1 <= l1; ++m1)
        for (int m2 = -l2; m2 <= l2; ++m2)
          for (int m = -l; m <= l; ++m)
            if (orders_couple(l, l1, l2, m, m1, m2) && (with_all || m1 <= m2))
              add({start(c.block, p) + m + l, start(c.left, a) + m1 + l1, start(right, b) + m2 + l2,
                   pick(9) == 0 ? 0.0 : coefficient()});
      return;
    }
  }

  // Operands in an arena with other tensors before, between and after them.
  void place(bool apart, Exists exists) {
    n_rows = static_cast<int>(rows.path.size());
    rows.stride = padded_channels(n_channels);
    std::size_t at = 3 * channel_unit;
    for (ProductOperand* operand : {&rows.left, &rows.right}) {
      operand->rows.clear();
      operand->gradient_exists.clear();
      for (std::size_t r = 0; r < operand->path.size(); ++r) {
        operand->rows.push_back({Place::arena, rows.stride, static_cast<std::int64_t>(at)});
        at += rows.stride + (apart && r % 3 == 0 ? channel_unit : 0);
        operand->gradient_exists.push_back(exists == Exists::all || (exists == Exists::some && pick(2) == 0) ? 1 : 0);
      }
      at += 2 * channel_unit;
    }
    arena_per_atom = at;
    const Real unset = std::numeric_limits<Real>::quiet_NaN();
    values.assign(arena_per_atom * n_atoms, unset);
    gradients = values;
    row_gradients.assign(static_cast<std::size_t>(n_rows) * rows.stride * n_atoms, Real(0));
    for (const ProductOperand* operand : {&rows.left, &rows.right})
      for (std::size_t r = 0; r < operand->rows.size(); ++r) {
        fill(values.data() + operand->rows[r].start(n_atoms));
        if (operand->gradient_exists[r] != 0) fill(gradients.data() + operand->rows[r].start(n_atoms));
      }
    for (int r = 0; r < n_rows; ++r) fill(row_gradients.data() + index(r));
  }

  // One row: padded channels are zero.
  void fill(Real* row) {
    for (int i = 0; i < n_atoms * rows.stride; ++i)
      row[i] = i % rows.stride < n_channels ? static_cast<Real>(uniform()) : Real(0);
  }

  std::size_t index(int row) const { return static_cast<std::size_t>(row) * rows.stride * n_atoms; }
  std::size_t left_at(const CouplingTerm& term) const { return rows.left.rows[term.left].start(n_atoms); }
  std::size_t right_at(const CouplingTerm& term) const {
    return (rows.right_is_left ? rows.left : rows.right).rows[term.right].start(n_atoms);
  }

  // [row][atom][stride]
  std::vector<double> forward() const {
    std::vector<double> out(row_gradients.size(), 0.0);
    for (const CouplingTerm& term : rows.terms)
      for (int i = 0; i < n_atoms * rows.stride; ++i)
        out[index(term.row) + i] += term.coefficient * static_cast<double>(values[left_at(term) + i]) *
                                    static_cast<double>(values[right_at(term) + i]);
    return out;
  }

  // The arena of gradients.
  std::vector<double> adjoint() const {
    std::vector<double> out(gradients.begin(), gradients.end());
    const auto add_to = [&](std::size_t at, const CouplingTerm& term, std::size_t other) {
      for (int i = 0; i < n_atoms * rows.stride; ++i) {
        if (std::isnan(out[at + i])) out[at + i] = 0.0;  // the first one to write it
        out[at + i] += term.coefficient * static_cast<double>(row_gradients[index(term.row) + i]) *
                       static_cast<double>(values[other + i]);
      }
    };
    for (const CouplingTerm& term : rows.terms) {
      add_to(left_at(term), term, right_at(term));
      add_to(right_at(term), term, left_at(term));
    }
    return out;
  }
};

// What the compiled form consists of.
struct Census {
  int launches = 0, multiplets = 0, single_rows = 0, accumulated = 0;
  template <class Real>
  void count(TestDevice& device, const std::vector<ProductGather<Real>>& gathers) {
    launches += static_cast<int>(gathers.size());
    for (const ProductGather<Real>& gather : gathers)
      for (const ProductTarget& target : test_target::read(device, gather.targets, gather.n_targets)) {
        (target.degree == ProductTarget::single_row ? single_rows : multiplets) += 1;
        accumulated += target.accumulate != 0 ? 1 : 0;
      }
  }
};

}  // namespace product_test
