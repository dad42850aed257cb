// Neighbour lists of random cells against a search over all images (the sanitizer build runs this; tests/python has
// more).
#include <array>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "check.hpp"
#include "grace/neighbors.hpp"

namespace {

using Pair = std::array<int, 5>;  // i, j, image

struct System {
  std::vector<double> positions;
  std::vector<std::int32_t> species;
  double cell[9];
  bool periodic[3];
};

// Orthorhombic to strongly skewed cells of 2 to 9 A, atoms up to two cells outside.
System random_system(std::mt19937& random, int n_atoms) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  System system;
  for (int k = 0; k < 9; ++k) {
    const bool diagonal = k % 4 == 0, lower = k == 3 || k == 6 || k == 7;
    system.cell[k] = diagonal ? 2.0 + 7.0 * uniform(random) : (lower ? 8.0 * (uniform(random) - 0.5) : 0.0);
  }
  for (bool& p : system.periodic) p = uniform(random) < 0.7;
  for (int i = 0; i < n_atoms; ++i) {
    double s[3];
    for (double& x : s) x = 5.0 * uniform(random) - 2.0;
    for (int x = 0; x < 3; ++x)
      system.positions.push_back(s[0] * system.cell[x] + s[1] * system.cell[3 + x] + s[2] * system.cell[6 + x]);
    system.species.push_back(static_cast<std::int32_t>(random() % 2));
  }
  return system;
}

std::multiset<Pair> all_images(const System& system, const double* cutoffs) {
  const int n_atoms = static_cast<int>(system.species.size());
  int n[3];
  for (int k = 0; k < 3; ++k) n[k] = system.periodic[k] ? 18 : 0;  // atoms are up to 5 cells apart; 5 A is 13 more
  std::multiset<Pair> pairs;
  for (int a = -n[0]; a <= n[0]; ++a) {
    for (int b = -n[1]; b <= n[1]; ++b) {
      for (int c = -n[2]; c <= n[2]; ++c) {
        for (int i = 0; i < n_atoms; ++i) {
          for (int j = 0; j < n_atoms; ++j) {
            double d2 = 0.0;
            for (int x = 0; x < 3; ++x) {
              const double d = system.positions[3 * j + x] - system.positions[3 * i + x] + a * system.cell[x] +
                               b * system.cell[3 + x] + c * system.cell[6 + x];
              d2 += d * d;
            }
            const double cutoff = cutoffs[2 * system.species[i] + system.species[j]];
            const bool itself = i == j && a == 0 && b == 0 && c == 0;
            if (!itself && d2 < cutoff * cutoff) pairs.insert({i, j, a, b, c});
          }
        }
      }
    }
  }
  return pairs;
}

grace::StructureBatch view(const System& system, const std::int64_t* first_atom) {
  grace::StructureBatch batch;
  batch.first_atom = first_atom;
  batch.positions = system.positions.data();
  batch.species = system.species.data();
  batch.cells = system.cell;
  batch.periodic = system.periodic;
  return batch;
}

std::multiset<Pair> listed(const grace::NeighborList& list) {
  std::vector<std::int32_t> shifts(3 * list.neighbor.size());
  grace::unwrapped_shifts(list, shifts.data());
  std::multiset<Pair> pairs;
  for (int i = 0; i < list.n_atoms; ++i)
    for (std::int64_t p = list.first[i]; p < list.first[i + 1]; ++p)
      pairs.insert({i, list.neighbor[p], shifts[3 * p], shifts[3 * p + 1], shifts[3 * p + 2]});
  return pairs;
}

}  // namespace

TEST(neighbors_equal_all_images) {
  std::mt19937 random(20);
  const double cutoffs[4] = {3.0, 4.0, 4.0, 5.0};
  std::size_t n_pairs = 0;
  for (int round = 0; round < 40; ++round) {
    const int n_atoms = round % 8;
    const System system = random_system(random, n_atoms);
    const std::int64_t first_atom[2] = {0, n_atoms};
    const auto expected = all_images(system, cutoffs);
    n_pairs += expected.size();
    CHECK(listed(grace::build_neighbors(view(system, first_atom), 2, cutoffs, 0.0, 1)) == expected);
  }
  CHECK(n_pairs > 500);
}

TEST(neighbors_do_not_depend_on_threads) {
  std::mt19937 random(21);
  const System system = random_system(random, 1500);
  const std::int64_t first_atom[2] = {0, 1500};
  const double cutoffs[4] = {1.0, 1.5, 1.5, -1.0};
  const auto one = grace::build_neighbors(view(system, first_atom), 2, cutoffs, 0.2, 1);
  const auto three = grace::build_neighbors(view(system, first_atom), 2, cutoffs, 0.2, 3);
  CHECK(one.neighbor.size() > 0);
  CHECK(one.first == three.first && one.neighbor == three.neighbor && one.shift == three.shift);
}

TEST(neighbor_vectors_are_as_listed) {
  std::mt19937 random(22);
  const System system = random_system(random, 40);
  const std::int64_t first_atom[2] = {0, 40};
  const double cutoffs[4] = {4.0, 4.0, 4.0, 4.0};
  const auto batch = view(system, first_atom);
  const auto list = grace::build_neighbors(batch, 2, cutoffs, 0.0, 1);
  std::vector<double> vectors(3 * list.neighbor.size());
  grace::pair_vectors(list, batch, vectors.data());
  CHECK(!vectors.empty());
  for (std::size_t p = 0; p < list.neighbor.size(); ++p) {
    const double* v = vectors.data() + 3 * p;
    CHECK(v[0] * v[0] + v[1] * v[1] + v[2] * v[2] < 16.0);
  }
}

TEST(neighbor_shifts_survive_packing) {
  for (int a : {-511, -1, 0, 1, 511}) {
    for (int b : {-511, 0, 511}) {
      int x, y, z;
      grace::unpack_shift(grace::pack_shift(a, b, -a), x, y, z);
      CHECK(x == a && y == b && z == -a);
    }
  }
  CHECK_THROWS(grace::pack_shift(0, 512, 0), "beyond 511 cells");
}

TEST(neighbor_errors_name_the_cause) {
  System system{{0.0, 0.0, 0.0}, {0}, {3.0, 0, 0, 6.0, 0, 0, 0, 0, 3.0}, {true, true, true}};
  const std::int64_t first_atom[2] = {0, 1};
  const double cutoff = 4.0;
  CHECK_THROWS(grace::build_neighbors(view(system, first_atom), 1, &cutoff, 0.0), "`cell` has zero volume");
  system.periodic[1] = false;
  CHECK(grace::build_neighbors(view(system, first_atom), 1, &cutoff, 0.0).neighbor.size() == 4);
  system.positions[1] = std::nan("");
  CHECK_THROWS(grace::build_neighbors(view(system, first_atom), 1, &cutoff, 0.0),
               "`positions` of atom 0 are not finite");
}

TEST(list_with_skin_is_valid_while_atoms_move_less_than_half_of_it) {
  const System system{{0, 0, 0, 1, 1, 1}, {0, 0}, {9.0, 0, 0, 0, 9.0, 0, 0, 0, 9.0}, {true, true, true}};
  const std::int64_t first_atom[2] = {0, 2};
  const auto batch = view(system, first_atom);
  const auto exceeds = [&](double move, double stretch) {
    std::vector<double> positions, cell(system.cell, system.cell + 9);
    for (double x : system.positions) positions.push_back(stretch * x + 100.0);  // all atoms move: no displacement
    for (double& x : cell) x *= stretch;
    positions[0] += move;  // half of it is the common translation
    return grace::max_displacement_exceeds(batch, positions.data(), cell.data(), 3.0, 5.0, 1.0);
  };
  CHECK(!exceeds(0.99, 1.0));
  CHECK(exceeds(1.01, 1.0));
  CHECK(!exceeds(0.0, 0.95));
  CHECK(exceeds(0.0, 0.83));  // (5 + 1) 0.83 < 5
  CHECK(!exceeds(0.0, 1.2));
  CHECK(exceeds(std::nan(""), 1.0));
  CHECK(exceeds(0.0, std::nan("")));
}
