// Dense maps on the device against plain loops: target = (target +) sum over sources of row x matrix.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/device/mma.hpp"
#include "row_gemm_problem.hpp"

using namespace row_gemm_test;

namespace {

template <class Real>
void run(Setup<Real>& s, GemmUnits units) {
  row_gemm<TestDevice, Real>(s.device, s.gemm, s.chunk, s.arena.data(), s.block.data(), s.arena.data(), s.block.data(),
                             units);
}

template <class Real>
bool same_bits(const std::vector<Real>& a, const std::vector<Real>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Real)) == 0);
}

template <class Real>
void run_case(const Case& c, GemmUnits units, double tolerance) {
  std::vector<Real> first[2];
  for (unsigned seed = 0; seed < 5; ++seed) {
    const Problem<Real> p(c, 7);
    Setup<Real> s(p, seed);
    run(s, units);
    std::vector<Real> got[2];
    s.read(p, got);
    if (seed > 0) {  // the order of blocks and threads changes nothing
      CHECK(same_bits(got[0], first[0]) && same_bits(got[1], first[1]));
      continue;
    }
    first[0] = got[0];
    first[1] = got[1];
    const std::vector<Real> rows = p.rows_of(got);
    const std::vector<double> expected = p.expected();
    double largest = 0.0, worst = 0.0;
    bool good = rows.size() == expected.size();
    for (double v : expected) largest = std::max(largest, std::fabs(v));
    for (std::size_t i = 0; good && i < rows.size(); ++i) {
      const double error = std::fabs(static_cast<double>(rows[i]) - expected[i]);
      if (!(error <= tolerance * largest)) good = false;
      worst = std::max(worst, error);
    }
    if (!good)
      check::report(__FILE__, __LINE__,
                    "targets of " + std::to_string(c.n_columns) + " columns differ: " + std::to_string(worst) + " of " +
                        std::to_string(largest));
    // everything that is no target is as it was
    for (int place = 0; place < 2; ++place) {
      std::vector<Real> other = got[place];
      for (const GemmTarget& t : p.targets)
        if (static_cast<int>(t.row.place) == place)
          for (std::int64_t i = t.row.start(p.n_atoms); i < t.row.start(p.n_atoms) + t.row.stride * p.n_atoms; ++i)
            other[i] = p.place[place][i];
      CHECK(same_bits(other, p.place[place]));
    }
  }
}

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {64, {64, 48}, 3, 2, false, {64, 64, 5}},  // mixes
      {48, {48}, 4, 3, false, {50}},
      {48, {64}, 2, 7, false, {64, 33}},        // adjoint of a mix
      {64, {24, 16}, 5, 1, true, {64, 1, 17}},  // adjoint of a reduction
      {24, {64}, 1, 20, true, {64, 40, 3}},     // reductions
      {16, {48, 32}, 6, 5, true, {33, 64}},
      {32, {32}, 4, 2, false, {64, 8}},
      {8, {8, 96}, 3, 2, true, {1, 1, 2}},
      {40, {88, 8}, 2, 2, true, {12}},
      {56, {40}, 2, 2, false, {7}},
      {72, {72, 56}, 2, 1, false, {64, 6}},
      {80, {24}, 2, 3, true, {31, 2}},
      {88, {80}, 1, 2, false, {9}},
      {96, {96}, 2, 2, true, {64, 64, 64, 1}},
      {152, {8, 200}, 2, 2, true, {20, 20}},             // no size is a limit
      {24, {16}, 12, 2, true, std::vector<int>(94, 1)},  // many elements; several targets in a block
      {48, {8}, 22, 2, true, std::vector<int>(94, 1)},
      {64, {64}, 2, 1, false, {}},  // no atoms
      {16, {64}, 0, 1, true, {4}},  // no targets
  };
  return list;
}

}  // namespace

TEST(gpu_row_gemm_matches_plain_loops) {
  for (const Case& c : cases()) {
    run_case<double>(c, GemmUnits::vector, 1e-12);
    run_case<float>(c, GemmUnits::vector, 1e-5);
    run_case<float>(c, GemmUnits::tensor, 1e-5);
  }
}

// A number of a target does not depend on which atoms are evaluated beside it.
TEST(gpu_row_gemm_does_not_depend_on_the_chunk) {
  for (const int variant : {0, 1, 2, 3}) {
    const bool per_element = variant % 2 == 1;
    const GemmUnits units = variant < 2 ? GemmUnits::vector : GemmUnits::tensor;
    const Case whole{24, {64, 24}, 1, 3, per_element, {61, 20}}, part{24, {64, 24}, 1, 3, per_element, {61}};
    Problem<float> p(whole, 3);
    Setup<float> all(p, 1);
    run(all, units);
    std::vector<float> got[2], of_part[2];
    all.read(p, got);
    Problem<float> q = p;  // the first tile alone
    q.c = part;
    q.n_atoms = 61;
    q.tiles.resize(1);
    const auto copy = [&](const RowAddress& row) {
      const int at = static_cast<int>(row.place);
      std::copy_n(p.place[at].begin() + row.start(p.n_atoms), row.stride * q.n_atoms,
                  q.place[at].begin() + row.start(q.n_atoms));
    };
    for (int at = 0; at < 2; ++at) q.place[at].assign(static_cast<std::size_t>(p.size[at] * q.n_atoms), q.nothing);
    for (const GemmSource& source : p.sources) copy(source.row);
    for (const GemmTarget& target : p.targets) copy(target.row);
    Setup<float> few(q, 2);
    run(few, units);
    few.read(q, of_part);
    std::vector<float> rows = p.rows_of(got);
    rows.resize(static_cast<std::size_t>(q.n_atoms) * whole.n_columns);
    CHECK(same_bits(rows, q.rows_of(of_part)));
  }
}

// Products of split numbers on tensor cores are as exact as those of fp32: root mean squares of the errors, for sums
// with signs (features) and without (the worst for units that round towards zero).
TEST(gpu_row_gemm_on_tensor_cores_is_exact) {
  for (const bool positive : {false, true})
    for (const Case& c : {Case{64, {64, 48}, 2, 3, false, {64, 64}}, Case{48, {64}, 2, 7, false, {64}},
                          Case{24, {64}, 1, 20, false, {64, 64}}}) {
      Problem<float> p(c, 11);
      if (positive) {
        for (std::vector<float>* list : {&p.weights, &p.place[0], &p.place[1]})
          for (float& v : *list) v = std::fabs(v);
      }
      const std::vector<double> expected = p.expected();
      const auto error = [&](const std::vector<float>& rows) {
        double sum = 0.0;
        for (std::size_t i = 0; i < rows.size(); ++i) sum += std::pow(static_cast<double>(rows[i]) - expected[i], 2);
        return std::sqrt(sum / static_cast<double>(rows.size()));
      };
      double errors[2];
      for (const GemmUnits units : {GemmUnits::vector, GemmUnits::tensor}) {
        Setup<float> s(p, 1);
        run(s, units);
        std::vector<float> got[2];
        s.read(p, got);
        errors[static_cast<int>(units)] = error(p.rows_of(got));
      }
      Problem<float> rounded = p;  // as without the split
      for (std::vector<float>* list : {&rounded.weights, &rounded.place[0], &rounded.place[1]})
        for (float& v : *list) v = grace::device::from_tf32(grace::device::nearest_tf32(v));
      const std::vector<double> of_rounded = rounded.expected();
      const double plain = error(std::vector<float>(of_rounded.begin(), of_rounded.end()));
      CHECK(errors[1] <= 2.0 * errors[0]);
      CHECK(plain >= 100.0 * errors[1]);
    }
}

// A NaN must not get lost, in whichever part of a number it ends up.
TEST(gpu_row_gemm_on_tensor_cores_keeps_nan) {
  Problem<float> p({16, {24}, 1, 1, false, {20}}, 5);
  const RowAddress& row = p.sources[0].row;
  p.place[static_cast<int>(row.place)][row.start(20) + 3 * 24 + 7] = std::nanf("");
  Setup<float> s(p, 1);
  run(s, GemmUnits::tensor);
  std::vector<float> got[2];
  s.read(p, got);
  const std::vector<float> rows = p.rows_of(got);
  for (std::size_t i = 0; i < rows.size(); ++i) CHECK(std::isnan(rows[i]) == (i / 16 == 3));
}
