// The SNAP kernel: coupling coefficients, the point of a pair, an invariant of one neighbour in closed form, gradients
// against differences, instruction sets against each other, and arguments that are refused.
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/isa.hpp"
#include "grace/math/scalar_pack.hpp"
#include "grace/snap/cpu_snap.hpp"

namespace {

using grace::snap::CpuSnap;
using grace::snap::CutoffRule;
using grace::snap::Snap;

constexpr double kExact = 1e-13;      // of order one
constexpr double kLevels = 1e-12;     // other instruction sets, relative to the largest
constexpr double kStep = 1e-5;        // A
constexpr double kDifference = 1e-6;  // relative to the largest

// Two structures: a skewed cell smaller than the cutoffs, and one that is periodic along one direction.
struct Problem {
  std::vector<double> positions, cells, cutoffs, beta;
  std::vector<std::int64_t> first{0, 4, 7};
  bool periodic[6] = {true, true, true, false, true, false};

  Problem() : cells{3.1, 0.2, 0.0, -0.9, 3.4, 0.1, 0.4, 0.7, 3.9, 0.0, 0.0, 0.0, 0.0, 4.2, 0.3, 0.0, 0.0, 0.0} {
    std::mt19937 random(5);
    std::uniform_real_distribution<double> place(-1.0, 4.0), radius(3.0, 5.0), weight(-1.0, 1.0);
    for (int k = 0; k < 21; ++k) positions.push_back(place(random));
    for (int k = 0; k < 7; ++k) cutoffs.push_back(radius(random));
    for (int k = 0; k < 7 * 55; ++k) beta.push_back(weight(random));
  }

  grace::StructureBatch batch() const {
    grace::StructureBatch batch;
    batch.n_structures = 2;
    batch.first_atom = first.data();
    batch.positions = positions.data();
    batch.cells = cells.data();
    batch.periodic = periodic;
    return batch;
  }

  std::vector<double> features(Snap& snap, CutoffRule rule) const {
    std::vector<double> out(7 * static_cast<std::size_t>(snap.n_features()));
    snap.descriptors(batch(), cutoffs.data(), rule, out.data());
    return out;
  }

  double energy(Snap& snap, CutoffRule rule) const {
    const auto B = features(snap, rule);
    double sum = 0.0;
    for (std::size_t k = 0; k < B.size(); ++k) sum += beta[k] * B[k];
    return sum;
  }
};

double largest(const std::vector<double>& values) {
  double most = 0.0;
  for (double v : values) most = std::max(most, std::abs(v));
  return most;
}

}  // namespace

TEST(snap_coupling_coefficients) {
  using grace::snap::clebsch_gordan;
  CHECK_NEAR(clebsch_gordan(1, 1, 1, -1, 0, 0), std::sqrt(0.5), kExact);
  CHECK_NEAR(clebsch_gordan(1, -1, 1, 1, 0, 0), -std::sqrt(0.5), kExact);
  CHECK_NEAR(clebsch_gordan(2, 2, 2, -2, 4, 0), std::sqrt(1.0 / 6.0), kExact);
  CHECK_NEAR(clebsch_gordan(2, 0, 1, 1, 1, 1), -std::sqrt(1.0 / 3.0), kExact);
  CHECK_NEAR(clebsch_gordan(2, 2, 2, 2, 2, 2), 0.0, 0.0);
  for (int J = 2; J <= 14; J += 2)  // states of a total angular momentum are normalised
    for (int M = -J; M <= J; M += 2) {
      double sum = 0.0;
      for (int M1 = -8; M1 <= 8; M1 += 2) {
        const double c = clebsch_gordan(8, M1, 6, M - M1, J, M);
        sum += c * c;
      }
      CHECK_NEAR(sum, 1.0, kExact);
    }
}

TEST(snap_number_of_components) {
  for (const auto& [twojmax, n] : {std::pair{0, 1}, {1, 2}, {2, 5}, {4, 14}, {6, 30}, {8, 55}, {10, 91}})
    CHECK(grace::snap::make_tables(twojmax).n_features == n);
}

TEST(snap_sines_of_pairs) {
  using P = grace::math::ScalarPack<double>;
  for (double y : {-1.0, -0.75, -0.5, -1e-3, 0.0, 1e-9, 0.2, 0.49, 0.5, 0.51, 0.99363, 1.0}) {
    double sine, cosine;
    grace::math::sine_cosine_of_pi<P>(y, sine, cosine);
    CHECK_NEAR(sine, std::sin(3.14159265358979323846 * y), 1e-15);
    CHECK_NEAR(cosine, std::cos(3.14159265358979323846 * y), 1e-15);
  }
}

// One neighbour: U^j = 1 + f V^j with V^j a rotation by the angle 2 t, whose trace is a sum of cosines. B_{j 0 j} is
// U^0 times the square of the norm of U^j, which is sum over m of |1 + f exp(2 i m t)|^2.
TEST(snap_of_one_neighbour_in_closed_form) {
  const double r = 1.7, rc = 4.0, rfac0 = 0.99363, pi = 3.14159265358979323846;
  const double f = 0.5 * (std::cos(pi * r / rc) + 1.0), t = rfac0 * pi * r / rc;
  const double positions[6] = {0.3, -0.2, 0.1, 0.3 + r * 2.0 / 3.0, -0.2 - r / 3.0, 0.1 + r * 2.0 / 3.0};
  const double cell[9] = {0.0}, cutoffs[2] = {rc, 1.0};
  const bool periodic[3] = {false, false, false};
  const std::int64_t first[2] = {0, 2};
  grace::StructureBatch batch;
  batch.first_atom = first;
  batch.positions = positions;
  batch.cells = cell;
  batch.periodic = periodic;
  CpuSnap snap;
  std::vector<double> B(2 * 55);
  snap.descriptors(batch, cutoffs, CutoffRule::centre, B.data());
  CHECK(snap.n_pairs() == 1);  // the second atom does not see the first
  const auto norm = [&](int J) {
    double sum = 0.0;
    for (int M = -J; M <= J; M += 2) sum += 1.0 + f * f + 2.0 * f * std::cos(M * t);
    return sum;
  };
  int feature = 0;
  for (int J1 = 0; J1 <= 8; ++J1)
    for (int J2 = 0; J2 <= J1; ++J2)
      for (int J = J1 - J2; J <= std::min(8, J1 + J2); J += 2) {
        if (J < J1) continue;
        if (J2 == 0) CHECK_NEAR(B[feature], (1.0 + f) * norm(J), 1e-12);
        if (J2 == 0) CHECK_NEAR(B[55 + feature], J + 1.0, 1e-12);
        ++feature;
      }
  CHECK(feature == 55);
}

TEST(snap_gradients_are_the_differences) {
  for (CutoffRule rule : {CutoffRule::centre, CutoffRule::pair}) {
    Problem problem;
    CpuSnap snap;
    problem.features(snap, rule);
    CHECK(snap.n_pairs() > 7 * 8);
    std::vector<double> dx(21), strain(18);
    snap.gradients(problem.beta.data(), dx.data(), strain.data());
    const double allowed = kDifference * largest(dx);
    CHECK(largest(dx) > 1.0);
    for (std::size_t k = 0; k < 21; ++k) {
      const double x = problem.positions[k];
      problem.positions[k] = x + kStep;
      const double up = problem.energy(snap, rule);
      problem.positions[k] = x - kStep;
      const double down = problem.energy(snap, rule);
      problem.positions[k] = x;
      CHECK_NEAR(dx[k], (up - down) / (2.0 * kStep), allowed);
    }
    for (int s = 0; s < 2; ++s)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
          double energies[2];
          for (int side = 0; side < 2; ++side) {
            Problem moved = problem;
            const double e = side == 0 ? kStep : -kStep;
            for (std::int64_t i = problem.first[s]; i < problem.first[s + 1]; ++i)
              moved.positions[3 * i + b] += e * problem.positions[3 * i + a];
            for (int k = 0; k < 3; ++k) moved.cells[9 * s + 3 * k + b] += e * problem.cells[9 * s + 3 * k + a];
            energies[side] = moved.energy(snap, rule);
          }
          CHECK_NEAR(strain[9 * s + 3 * a + b], (energies[0] - energies[1]) / (2.0 * kStep),
                     kDifference * largest(strain));
        }
  }
}

TEST(snap_of_all_instruction_sets) {
  const char* before = std::getenv("GRACE_MD_ISA");
  const std::string kept = before == nullptr ? "" : before;
  std::vector<double> expected, expected_dx;
  int n_levels = 0;
  for (const char* level : {"baseline", "v3", "v4"}) {
    setenv("GRACE_MD_ISA", level, 1);
    try {
      grace::select_isa();
    } catch (const grace::Error&) {
      continue;
    }
    ++n_levels;
    Problem problem;
    CpuSnap snap;
    const auto B = problem.features(snap, CutoffRule::centre);
    std::vector<double> dx(21), strain(18);
    snap.gradients(problem.beta.data(), dx.data(), strain.data());
    if (expected.empty()) expected = B, expected_dx = dx;
    for (std::size_t k = 0; k < B.size(); ++k) CHECK_NEAR(B[k], expected[k], kLevels * largest(expected));
    for (std::size_t k = 0; k < dx.size(); ++k) CHECK_NEAR(dx[k], expected_dx[k], kLevels * largest(expected_dx));
  }
  CHECK(n_levels > 0);
  if (before == nullptr)
    unsetenv("GRACE_MD_ISA");
  else
    setenv("GRACE_MD_ISA", kept.c_str(), 1);
}

TEST(snap_refuses_bad_arguments) {
  CHECK_THROWS(CpuSnap({-1}), "`twojmax` must be 0 .. 14");
  CHECK_THROWS(CpuSnap({8, 0.0}), "`rfac0` must be above 0");
  CHECK_THROWS(CpuSnap({8, 0.9, std::nan("")}), "`rmin0` must be finite");
  CpuSnap snap;
  double none[1];
  CHECK_THROWS(snap.gradients(none, none, none), "needs a call of descriptors()");
  Problem problem;
  problem.features(snap, CutoffRule::centre);
  problem.cutoffs[5] = std::nan("");
  CHECK_THROWS(problem.features(snap, CutoffRule::centre), "`cutoffs` of atom 1 of structure 1 is nan");
  CHECK_THROWS(snap.gradients(none, none, none), "needs a call of descriptors()");  // nothing is left of the failed one
  problem = Problem();
  problem.positions[4] = std::nan("");
  CHECK_THROWS(problem.features(snap, CutoffRule::centre), "`positions` of atom 1 of structure 0 are not finite");
  problem = Problem();
  for (int x = 0; x < 3; ++x) problem.positions[3 + x] = problem.positions[x] + problem.cells[x];
  CHECK_THROWS(problem.features(snap, CutoffRule::centre), "are in one place");
  problem = Problem();
  for (int x = 0; x < 3; ++x) problem.cells[x] = problem.cells[3 + x];
  CHECK_THROWS(problem.features(snap, CutoffRule::centre), "zero volume");
}
