// Coupling products on the device, against plain loops over P[row] = sum_terms c L[left] R[right] and its derivatives.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "check.hpp"
#include "grace/model/spec.hpp"
#include "product_problem.hpp"

using namespace product_test;

namespace {

// NaN where NaN is expected: memory that must not be touched.
template <class Real>
void compare(const std::vector<Real>& got, const std::vector<double>& expected, double tolerance, const char* what) {
  double largest = 0.0, worst = 0.0;
  for (double v : expected)
    if (!std::isnan(v)) largest = std::max(largest, std::fabs(v));
  bool good = got.size() == expected.size();
  for (std::size_t i = 0; good && i < got.size(); ++i) {
    if (std::isnan(expected[i])) {
      good = std::isnan(got[i]);
      continue;
    }
    const double error = std::fabs(static_cast<double>(got[i]) - expected[i]);
    if (!(error <= tolerance * largest)) good = false;
    worst = std::max(worst, error);
  }
  if (!good)
    check::report(__FILE__, __LINE__,
                  std::string(what) + " differ: " + std::to_string(worst) + " of " + std::to_string(largest));
}

template <class Real>
Census run(const Problem<Real>& p, std::uint64_t seed, double tolerance) {
  TestDevice device(test_target::order(seed));
  grace::device::DeviceModelMemory<TestDevice> memory(device);
  const ProductBlock<Real> block = make_product_block<Real>(p.rows, memory);
  CHECK(block.n_rows == p.n_rows && block.stride == p.rows.stride);

  // Numbers behind the block's rows, and those of the arena between the operands, must survive.
  Buffer<TestDevice, Real> values(device, "values"), rows(device, "rows"), gradients(device, "gradients");
  const std::size_t n = p.row_gradients.size(), behind = 100;
  values.upload(p.values);
  rows.upload(std::vector<Real>(n + behind, std::numeric_limits<Real>::quiet_NaN()));
  product_forward(device, block, p.n_atoms, static_cast<const Real*>(values.data()), rows.data());
  std::vector<double> expected = p.forward();
  expected.resize(n + behind, std::nan(""));
  compare(test_target::read<Real>(device, rows.data(), n + behind), expected, tolerance, "products");

  rows.upload(p.row_gradients.data(), n);
  gradients.upload(p.gradients);
  product_adjoint(device, block, p.n_atoms, static_cast<const Real*>(values.data()),
                  static_cast<const Real*>(rows.data()), gradients.data());
  compare(test_target::read<Real>(device, gradients.data(), p.gradients.size()), p.adjoint(), tolerance, "gradients");

  Census census;
  census.count(device, block.forward);
  census.count(device, block.adjoint);
  return census;
}

Census run_case(const Case& c, std::uint64_t seed) {
  const Census census = run(Problem<double>(c, seed), seed, 1e-12);
  run(Problem<float>(c, seed), seed, 1e-5);
  return census;
}

const std::vector<int> of_A = {1, 3, 5, 7, 9};

// Rows of a tensor that share their weights are a path; without mixes every row is one.
std::vector<int> paths(const grace::ModelSpec& model, const std::string& tensor, int n_rows) {
  std::vector<int> path(n_rows);
  for (int r = 0; r < n_rows; ++r) path[r] = r;
  for (const grace::Stage& stage : model.stages)
    if (const auto* mix = std::get_if<grace::ChannelMix>(&stage);
        mix != nullptr && (mix->output == tensor || mix->left == tensor))
      path = mix->left_group;
  return path;
}

}  // namespace

TEST(gpu_product_matches_plain_loops) {
  const std::vector<Case> cases = {
      {of_A, {}, {1, 3, 5, 7, 1, 3, 5, 7, 3, 9}, 30, 0, 42, 5, Exists::some, false},
      {{1, 1, 3, 5, 3, 7, 5, 9}, of_A, {1, 3, 5, 7, 3, 5, 9}, 40, 0, 32, 3, Exists::some, false},
      {{3, 5, 7, 9, 9}, {}, {9, 9, 7, 5}, 25, 0, 6, 7, Exists::none, false},
      {{1, 3, 5}, {9, 7, 5, 3}, {1, 1, 3, 5, 5}, 20, 0, 20, 9, Exists::all, false},
      {of_A, of_A, {1, 3, 5, 7, 9}, 20, 3, 8, 11, Exists::some, false},  // some multiplets off the pattern
      {of_A, {}, {1, 3, 5, 7, 9, 3}, 20, 0, 16, 3, Exists::some, true},  // not in one piece of memory
      {{1, 2, 4, 11, 3, 13}, {}, {3, 6, 11, 1, 15}, 10, 60, 8, 5, Exists::some, false},
      {{1, 1, 1, 1, 1, 1}, {1, 1, 1}, {1, 1, 1, 1}, 0, 25, 1, 1, Exists::some, false},
      {{3, 5, 7, 3, 5, 7}, {3, 5}, {3, 5, 3}, 3, 0, 8, 3, Exists::some, false},  // rows that nobody reads
      {{1, 3}, {}, {1, 3, 5}, 0, 0, 5, 4, Exists::some, false},                  // no terms
      {of_A, {}, {1, 3, 5, 7}, 10, 0, 64, 0, Exists::some, false},               // no atoms
      {{1}, {}, {1}, 1, 0, 3, 1, Exists::none, false}};
  for (const Case& c : cases)
    for (std::uint64_t seed = 0; seed < 5; ++seed) run_case(c, seed);
}

// The table of AA in published models has this size; random models come with other ones.
TEST(gpu_product_of_many_rows) {
  std::vector<int> rows;
  for (int path = 0; path < 27; ++path) rows.push_back(2 * (path % 4) + 1);
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const Census census = run_case({of_A, {}, rows, 40, 0, 48, 3, Exists::some, false}, seed);
    CHECK(census.launches == 2 && census.multiplets >= 20);
  }
}

// Sources that do not fit into shared memory together: several launches, and targets that go on in the next one.
TEST(gpu_product_of_more_rows_than_shared_memory) {
  const std::vector<int> many(60, 7), single(3, 1);
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    const Census harmonic = run_case({many, of_A, {1, 3, 5, 7, 9, 3, 5}, 250, 0, 8, 2, Exists::none, false}, seed);
    CHECK(harmonic.launches > 3 && harmonic.accumulated > 0 && harmonic.multiplets > 60);
    const Census scattered = run_case({many, {}, single, 0, 1500, 8, 3, Exists::some, false}, seed);
    CHECK(scattered.launches > 4 && scattered.accumulated > 3 && scattered.multiplets == 0);
  }
}

// Chunks large enough for wide blocks.
TEST(gpu_product_of_many_atoms) {
  for (int n_atoms : {1400, 2701}) {
    run(Problem<float>({{1, 3}, {}, {1, 3, 3}, 4, 0, 64, n_atoms, Exists::some, false}, 3), 1, 1e-5);
    run(Problem<double>({{1, 3}, {3}, {1, 5}, 4, 0, 32, n_atoms, Exists::some, false}, 3), 2, 1e-12);
  }
}

TEST(gpu_product_of_models) {
  for (const char* name : {"tiny_1l.npz", "tiny_1l_pairs.npz", "tiny_1l_order2.npz", "tiny_2l.npz"}) {
    const grace::ModelSpec model = grace::load_model(grace::NpzFile(std::string(GRACE_TEST_DATA) + "/models/" + name));
    int n_products = 0;
    for (const grace::Stage& stage : model.stages) {
      const auto* product = std::get_if<grace::CouplingProduct>(&stage);
      if (product == nullptr) continue;
      ++n_products;
      ProductRows rows;
      int n_left = 0, n_right = 0;
      for (const grace::CouplingTerm& term : product->terms) {
        n_left = std::max(n_left, term.left + 1);
        n_right = std::max(n_right, term.right + 1);
      }
      rows.right_is_left = product->left == product->right;
      if (rows.right_is_left) n_left = std::max(n_left, n_right);
      rows.left.path = paths(model, product->left, n_left);
      rows.left.path.resize(n_left);
      if (!rows.right_is_left) {
        rows.right.path = paths(model, product->right, n_right);
        rows.right.path.resize(n_right);
      }
      rows.path = paths(model, product->output, product->n_rows);
      rows.terms = product->terms;
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        const Census census = run(Problem<double>(rows, product->n_channels, 7, Exists::some, seed), seed, 1e-12);
        run(Problem<float>(rows, product->n_channels, 7, Exists::some, seed), seed, 1e-5);
        // Where a mix tells the paths, all multiplets follow the pattern, but for the scalar made of two scalars.
        if (product->output == "AA" && rows.path.back() + 1 < product->n_rows)
          CHECK(census.single_rows == 1 && census.multiplets == 10);
      }
    }
    CHECK(n_products > 0);
  }
}

TEST(gpu_product_adjoint_is_the_derivative) {
  for (const Case& c : {Case{{1, 3, 5}, {}, {1, 3, 5, 3}, 12, 3, 2, 2, Exists::none, false},
                        Case{{1, 3, 5}, {3, 5}, {1, 3, 5, 3}, 12, 0, 2, 1, Exists::none, false}}) {
    Problem<double> p(c, 5);
    TestDevice device(test_target::order(1));
    grace::device::DeviceModelMemory<TestDevice> memory(device);
    const ProductBlock<double> block = make_product_block<double>(p.rows, memory);
    Buffer<TestDevice, double> values(device, "values"), rows(device, "rows"), gradients(device, "gradients");
    values.upload(p.values);
    rows.upload(p.row_gradients);
    gradients.upload(p.gradients);
    const double *v = values.data(), *g = rows.data();
    product_adjoint(device, block, p.n_atoms, v, g, gradients.data());
    const std::vector<double> got = test_target::read<double>(device, gradients.data(), p.gradients.size());
    const auto energy = [&] {
      values.upload(p.values);
      product_forward(device, block, p.n_atoms, v, rows.data());
      double sum = 0.0;
      const std::vector<double> made = test_target::read<double>(device, rows.data(), p.row_gradients.size());
      for (std::size_t i = 0; i < made.size(); ++i) sum += made[i] * p.row_gradients[i];
      return sum;
    };
    int n_checked = 0;
    double largest = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(got[i]) || std::isnan(p.values[i])) continue;
      const double x = p.values[i], h = 1e-2;  // at most quadratic: any step is exact
      p.values[i] = x + h;
      const double high = energy();
      p.values[i] = x - h;
      const double low = energy();
      p.values[i] = x;
      CHECK_NEAR((high - low) / (2.0 * h), got[i], 1e-10);
      largest = std::max(largest, std::fabs(got[i]));
      ++n_checked;
    }
    CHECK(n_checked > 50 && largest > 0.1);
  }
}
