// The operators of training against plain loops: every slot, channel counts beside the widths of vectors, no bonds, no
// atoms, every instruction set of this machine, and arguments that are refused.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/error.hpp"
#include "grace/isa.hpp"
#include "grace/operators/operators.hpp"

namespace {

using grace::ops::Index;

template <class Real>
constexpr double relative = 64.0 * std::numeric_limits<Real>::epsilon();  // sums of up to a few hundred products

// Calls body() for every instruction set that this build has and this processor runs.
template <class Body>
void for_levels(Body body) {
  const char* before = std::getenv("GRACE_MD_ISA");
  const std::string kept = before == nullptr ? "" : before;
  for (const char* level : {"baseline", "v3", "v4"}) {
    setenv("GRACE_MD_ISA", level, 1);
    try {
      grace::select_isa();
    } catch (const grace::Error&) {
      continue;
    }
    body();
  }
  if (before == nullptr)
    unsetenv("GRACE_MD_ISA");
  else
    setenv("GRACE_MD_ISA", kept.c_str(), 1);
}

template <class Real>
std::vector<Real> normal(std::mt19937& random, Index size) {
  std::normal_distribution<double> distribution;
  std::vector<Real> out(static_cast<std::size_t>(size));
  for (Real& x : out) x = static_cast<Real>(distribution(random));
  return out;
}

std::vector<Index> integers(std::mt19937& random, Index size, Index limit) {
  std::vector<Index> out(static_cast<std::size_t>(size));
  for (Index& x : out) x = static_cast<Index>(random() % static_cast<unsigned>(limit));
  return out;
}

// Rows of n_bonds bonds over n_atoms atoms, some of them empty.
std::vector<Index> rows(std::mt19937& random, Index n_atoms, Index n_bonds) {
  std::vector<Index> first(static_cast<std::size_t>(n_atoms + 1), 0);
  for (Index b = 0; b < n_bonds; ++b) ++first[1 + random() % static_cast<unsigned>(n_atoms)];
  for (Index i = 0; i < n_atoms; ++i) first[i + 1] += first[i];
  return first;
}

int degree(int row) { return static_cast<int>(std::sqrt(row + 0.5)); }

template <class Real>
void check_all(const std::vector<Real>& actual, const std::vector<double>& expected) {
  double largest = 0.0;
  for (double x : expected) largest = std::max(largest, std::abs(x));
  CHECK(actual.size() == expected.size());
  for (std::size_t k = 0; k < expected.size(); ++k) CHECK_NEAR(actual[k], expected[k], relative<Real> * largest);
}

template <class Real>
void check_bond_basis(Index n_atoms, Index n_bonds, int lmax, Index nc) {
  std::mt19937 random(static_cast<unsigned>(nc));
  const Index n_elements = 3, n_rows = (lmax + 1) * (lmax + 1), L = lmax + 1;
  const auto first = rows(random, n_atoms, n_bonds), species = integers(random, n_bonds, n_elements);
  const auto A = normal<Real>(random, n_atoms * n_rows * nc), R = normal<Real>(random, n_bonds * L * nc);
  const auto Y = normal<Real>(random, n_bonds * n_rows), z = normal<Real>(random, n_elements * nc);
  std::vector<double> sums[4] = {std::vector<double>(A.size()), std::vector<double>(R.size()),
                                 std::vector<double>(Y.size()), std::vector<double>(z.size())};
  for (Index i = 0; i < n_atoms; ++i)
    for (Index b = first[i]; b < first[i + 1]; ++b)
      for (int row = 0; row < n_rows; ++row)
        for (Index n = 0; n < nc; ++n) {
          const Index at[4] = {(i * n_rows + row) * nc + n, (b * L + degree(row)) * nc + n, b * n_rows + row,
                               species[b] * nc + n};
          const double x[4] = {A[at[0]], R[at[1]], Y[at[2]], z[at[3]]};
          sums[0][at[0]] += x[1] * x[2] * x[3];
          sums[1][at[1]] += x[0] * x[2] * x[3];
          sums[2][at[2]] += x[0] * x[1] * x[3];
          sums[3][at[3]] += x[0] * x[1] * x[2];
        }
  grace::ops::BondBasis<Real> form;
  form.n_atoms = n_atoms;
  form.n_bonds = n_bonds;
  form.n_elements = n_elements;
  form.n_channels = nc;
  form.lmax = lmax;
  form.first = first.data();
  form.species = species.data();
  form.atoms = A.data();
  form.radial = R.data();
  form.harmonics = Y.data();
  form.chemical = z.data();
  for_levels([&] {
    for (int slot = 0; slot < 4; ++slot) {
      std::vector<Real> out(sums[slot].size(), std::numeric_limits<Real>::quiet_NaN());
      grace::ops::bond_basis(static_cast<grace::ops::BondSlot>(slot), form, out.data(), 2);
      check_all(out, sums[slot]);
    }
  });
}

template <class Real>
void check_message_basis(Index n_atoms, Index n_bonds, int lmax, Index n_rows, Index n_message, Index nc) {
  std::mt19937 random(static_cast<unsigned>(nc));
  const Index n_harmonics = (lmax + 1) * (lmax + 1), L = lmax + 1, n_terms = 3 * n_rows;
  const auto first = rows(random, n_atoms, n_bonds);
  const auto neighbor = integers(random, n_bonds, n_atoms);
  std::vector<std::int32_t> terms;
  for (Index t = 0; t < n_terms; ++t) {
    terms.push_back(static_cast<std::int32_t>(t % n_rows));
    terms.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(n_harmonics)));
    terms.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(n_message)));
  }
  const auto coefficients = normal<double>(random, n_terms);
  const auto YI = normal<Real>(random, n_atoms * n_rows * nc), R = normal<Real>(random, n_bonds * L * nc);
  const auto Y = normal<Real>(random, n_bonds * n_harmonics), I = normal<Real>(random, n_atoms * n_message * nc);
  std::vector<double> sums[4] = {std::vector<double>(YI.size()), std::vector<double>(R.size()),
                                 std::vector<double>(Y.size()), std::vector<double>(I.size())};
  for (Index i = 0; i < n_atoms; ++i)
    for (Index b = first[i]; b < first[i + 1]; ++b)
      for (Index t = 0; t < n_terms; ++t)
        for (Index n = 0; n < nc; ++n) {
          const Index f = terms[3 * t], y = terms[3 * t + 1], w = terms[3 * t + 2];
          const Index at[4] = {(i * n_rows + f) * nc + n, (b * L + degree(static_cast<int>(y))) * nc + n,
                               b * n_harmonics + y, (neighbor[b] * n_message + w) * nc + n};
          const double x[4] = {YI[at[0]], R[at[1]], Y[at[2]], I[at[3]]}, c = coefficients[t];
          sums[0][at[0]] += c * x[1] * x[2] * x[3];
          sums[1][at[1]] += c * x[0] * x[2] * x[3];
          sums[2][at[2]] += c * x[0] * x[1] * x[3];
          sums[3][at[3]] += c * x[0] * x[1] * x[2];
        }
  grace::ops::MessageBasis<Real> form;
  form.n_atoms = n_atoms;
  form.n_bonds = n_bonds;
  form.n_channels = nc;
  form.n_rows = n_rows;
  form.n_message_rows = n_message;
  form.n_terms = n_terms;
  form.lmax = lmax;
  form.first = first.data();
  form.neighbor = neighbor.data();
  form.terms = terms.data();
  form.coefficients = coefficients.data();
  form.atoms = YI.data();
  form.radial = R.data();
  form.harmonics = Y.data();
  form.message = I.data();
  for_levels([&] {
    for (int slot = 0; slot < 4; ++slot) {
      std::vector<Real> out(sums[slot].size(), std::numeric_limits<Real>::quiet_NaN());
      grace::ops::message_basis(static_cast<grace::ops::MessageSlot>(slot), form, out.data(), 2);
      check_all(out, sums[slot]);
    }
  });
}

template <class Real>
void check_product(Index n_atoms, Index nc) {
  std::mt19937 random(static_cast<unsigned>(nc));
  const Index n_targets = 6, n_first = 4, n_second = 9, n_terms = 20;
  std::vector<std::int32_t> terms;
  for (Index t = 0; t < n_terms; ++t) {
    terms.push_back(static_cast<std::int32_t>(t / 4));  // the last row has no term
    terms.push_back(static_cast<std::int32_t>(random() % n_first));
    terms.push_back(static_cast<std::int32_t>(random() % n_second));
  }
  const auto c = normal<double>(random, n_terms);
  const auto a = normal<Real>(random, n_atoms * n_first * nc), b = normal<Real>(random, n_atoms * n_second * nc);
  std::vector<double> expected(static_cast<std::size_t>(n_atoms * n_targets * nc), 0.0);
  for (Index i = 0; i < n_atoms; ++i)
    for (Index t = 0; t < n_terms; ++t)
      for (Index n = 0; n < nc; ++n)
        expected[(i * n_targets + terms[3 * t]) * nc + n] += c[t] *
                                                             double(a[(i * n_first + terms[3 * t + 1]) * nc + n]) *
                                                             double(b[(i * n_second + terms[3 * t + 2]) * nc + n]);
  grace::ops::CouplingProduct<Real> form;
  form.n_atoms = n_atoms;
  form.n_channels = nc;
  form.n_terms = n_terms;
  form.n_targets = n_targets;
  form.n_first = n_first;
  form.n_second = n_second;
  form.terms = terms.data();
  form.coefficients = c.data();
  form.first = a.data();
  form.second = b.data();
  for_levels([&] {
    std::vector<Real> out(expected.size(), std::numeric_limits<Real>::quiet_NaN());
    grace::ops::coupling_product(form, out.data(), 2);
    check_all(out, expected);
  });
}

// L = sum(value gv + derivative gd) of the network, with weights changed by h along one direction.
struct Network {
  std::vector<Index> widths{3, 7, 5, 4};
  std::vector<std::vector<double>> weights, direction;
  std::vector<double> basis, slope, gv, gd;
  Index n_bonds;

  explicit Network(Index n) : n_bonds(n) {
    std::mt19937 random(11);
    for (std::size_t k = 0; k + 1 < widths.size(); ++k) {
      weights.push_back(normal<double>(random, widths[k] * widths[k + 1]));
      direction.push_back(normal<double>(random, widths[k] * widths[k + 1]));
    }
    basis = normal<double>(random, n * widths[0]);
    slope = normal<double>(random, n * widths[0]);
    gv = normal<double>(random, n * widths.back());
    gd = normal<double>(random, n * widths.back());
  }

  grace::ops::RadialNetwork<double> view(const std::vector<const double*>& matrices, bool is_tanh) const {
    grace::ops::RadialNetwork<double> network;
    network.n_bonds = n_bonds;
    network.n_layers = static_cast<int>(matrices.size());
    network.widths = widths.data();
    network.weights = matrices.data();
    network.is_tanh = is_tanh;
    network.basis = basis.data();
    network.slope = slope.data();
    return network;
  }

  double loss(double h, bool is_tanh) const {
    auto moved = weights;
    std::vector<const double*> matrices;
    for (std::size_t k = 0; k < moved.size(); ++k) {
      for (std::size_t e = 0; e < moved[k].size(); ++e) moved[k][e] += h * direction[k][e];
      matrices.push_back(moved[k].data());
    }
    std::vector<double> value(gv.size()), derivative(gv.size());
    grace::ops::radial_network(view(matrices, is_tanh), value.data(), derivative.data(), 1);
    double sum = 0.0;
    for (std::size_t e = 0; e < gv.size(); ++e) sum += gv[e] * value[e] + gd[e] * derivative[e];
    return sum;
  }

  double slope_of_loss(bool is_tanh) const {
    std::vector<const double*> matrices;
    std::vector<std::vector<double>> gradients;
    std::vector<double*> out;
    for (const auto& w : weights) {
      matrices.push_back(w.data());
      gradients.emplace_back(w.size());
    }
    for (auto& g : gradients) out.push_back(g.data());
    grace::ops::radial_network_adjoint(view(matrices, is_tanh), gv.data(), gd.data(), out.data(), 2);
    double sum = 0.0;
    for (std::size_t k = 0; k < weights.size(); ++k)
      for (std::size_t e = 0; e < weights[k].size(); ++e) sum += gradients[k][e] * direction[k][e];
    return sum;
  }
};

}  // namespace

TEST(bond_basis_is_that_of_plain_loops) {
  for (Index nc : {1, 3, 5, 16, 21, 42}) {
    check_bond_basis<double>(7, 50, 3, nc);
    check_bond_basis<float>(7, 50, 4, nc);
  }
  check_bond_basis<double>(2, 9, 8, 6);
  check_bond_basis<float>(3, 5, 0, 2);
  check_bond_basis<double>(4, 0, 2, 8);
  check_bond_basis<float>(70, 300, 1, 4);  // several partial sums
}

TEST(message_basis_is_that_of_plain_loops) {
  for (Index nc : {1, 5, 16, 42}) {
    check_message_basis<double>(7, 40, 3, 12, 9, nc);
    check_message_basis<float>(7, 40, 2, 5, 4, nc);
  }
  check_message_basis<double>(3, 0, 2, 4, 1, 8);
  check_message_basis<float>(2, 30, 8, 9, 16, 3);
}

TEST(coupling_product_is_that_of_plain_loops) {
  for (Index nc : {1, 3, 4, 7, 16, 33, 64, 90}) {
    check_product<double>(5, nc);
    check_product<float>(5, nc);
  }
  check_product<float>(0, 8);
}

TEST(operators_without_atoms) {
  const Index first[1] = {0};
  grace::ops::BondBasis<double> form;
  form.n_elements = 1;
  form.n_channels = 2;
  form.lmax = 1;
  form.first = first;
  double z[2] = {7.0, 7.0};
  form.chemical = z;
  grace::ops::bond_basis(grace::ops::BondSlot::atoms, form, static_cast<double*>(nullptr), 1);
  grace::ops::bond_basis(grace::ops::BondSlot::chemical, form, z, 1);
  CHECK(z[0] == 0.0 && z[1] == 0.0);
}

TEST(adjoint_of_the_radial_network_is_its_slope) {
  for (Index n_bonds : {1, 40, 500})
    for (bool is_tanh : {false, true}) {
      const Network network(n_bonds);
      for_levels([&] {
        constexpr double h = 1e-4;  // five points: truncation h^4
        const double wanted = (8.0 * (network.loss(h, is_tanh) - network.loss(-h, is_tanh)) -
                               (network.loss(2 * h, is_tanh) - network.loss(-2 * h, is_tanh))) /
                              (12.0 * h);
        CHECK_NEAR(network.slope_of_loss(is_tanh), wanted, 1e-7 * (1.0 + std::abs(wanted)) * n_bonds);
      });
    }
}

TEST(operators_refuse_wrong_arguments) {
  const Index first[3] = {0, 2, 3}, backwards[3] = {0, 4, 3}, species[3] = {0, 1, 2};
  const double data[64] = {};
  double out[64];
  grace::ops::BondBasis<double> form;
  form.n_atoms = 2;
  form.n_bonds = 3;
  form.n_elements = 3;
  form.n_channels = 1;
  form.first = first;
  form.species = species;
  form.atoms = form.radial = form.harmonics = form.chemical = data;
  const auto run = [&] { grace::ops::bond_basis(grace::ops::BondSlot::atoms, form, out, 1); };
  run();
  form.lmax = 9;
  CHECK_THROWS(run(), "`lmax` must be 0 .. 8, got 9");
  form.lmax = 0;
  form.first = backwards;
  CHECK_THROWS(run(), "must not decrease, got 4 then 3");
  form.first = first;
  form.n_elements = 2;
  CHECK_THROWS(run(), "`bond_species` must be 0 .. 1, got 2 at 2");
  form.n_elements = 3;
  form.radial = nullptr;
  CHECK_THROWS(run(), "`radial` is missing");

  const std::int32_t terms[6] = {1, 0, 0, 0, 0, 0};
  grace::ops::CouplingProduct<double> product;
  product.n_atoms = 1;
  product.n_channels = 1;
  product.n_terms = 2;
  product.n_targets = 2;
  product.n_first = product.n_second = 1;
  product.terms = terms;
  product.coefficients = product.first = product.second = data;
  CHECK_THROWS(grace::ops::coupling_product(product, out, 1), "sorted by target row");
}
