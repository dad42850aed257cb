// Neighbour lists of the device against those of the CPU, entry by entry, and against plain loops.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/neighbors_cuda/scan_kernels.hpp"
#include "neighbor_problem.hpp"

using namespace neighbor_test;

// Launches on a GPU are compiled by nvcc, here with the lists.
namespace grace::gpu {
extern template void exclusive_scan(TestDevice&, std::int64_t*, std::int64_t, std::int64_t*);
}

namespace {

void compare(const Batch& batch, const std::vector<double>& cutoffs, int n_species, double skin, std::uint64_t seed) {
  const grace::NeighborList expected = grace::build_neighbors(batch.view(), n_species, cutoffs.data(), skin, 1);
  Listed listed(seed);
  listed.build(batch, cutoffs, n_species, skin);
  CHECK(listed.list.host_first() == expected.first);
  CHECK(listed.neighbor == expected.neighbor);
  CHECK(listed.shift == expected.shift);
  const std::vector<double> wrapped = listed.wrapped(batch.positions, batch.cells);
  for (std::int64_t i = 0; i < batch.n_atoms(); ++i)
    for (int x = 0; x < 3; ++x) {
      double r = batch.positions[3 * i + x];
      for (int k = 0; k < 3; ++k)
        r -= expected.wrap[3 * i + k] * batch.cells[9 * std::int64_t{expected.structure[i]} + 3 * k + x];
      CHECK_NEAR(wrapped[3 * i + x], r, 1e-10);
    }
}

}  // namespace

TEST(gpu_scan_of_any_length) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    TestDevice device(test_target::order(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    for (std::int64_t n : {1, 2, 255, 2047, 2048, 2049, 10000}) {
      std::vector<std::int64_t> values(n), sums(n);
      for (std::int64_t k = 0; k < n; ++k) values[k] = static_cast<std::int64_t>(random()) << 8;
      for (std::int64_t k = 1; k < n; ++k) sums[k] = sums[k - 1] + values[k - 1];
      Buffer<std::int64_t> scanned(device, "values"), totals(device, "sums");
      scanned.upload(values);
      totals.reserve(grace::gpu::scan_memory(n));
      grace::gpu::exclusive_scan(device, scanned.data(), n, totals.data());
      CHECK(test_target::read<std::int64_t>(device, scanned.data(), n) == sums);
    }
  }
}

TEST(gpu_neighbors_equal_those_of_the_cpu) {
  std::mt19937 random(40);
  for (int round = 0; round < 40; ++round) {
    const int n_species = 1 + round % 4;
    Batch batch;
    const int n_structures = 1 + round % 7;
    for (int s = 0; s < n_structures; ++s) add_random(batch, random, static_cast<int>(random() % 12), n_species);
    compare(batch, random_cutoffs(random, n_species), n_species, 0.5 * (round % 5), round % 5);
  }
}

TEST(gpu_neighbors_of_many_bins) {
  std::mt19937 random(41);
  for (int round = 0; round < 5; ++round) {
    Batch batch;
    add_random(batch, random, 500, 2, 25.0, 40.0);
    add_random(batch, random, 3, 2);
    add_random(batch, random, 300, 2, 15.0, 30.0);
    compare(batch, {3.0, 2.5, 4.0, 3.5}, 2, 0.3, round);
  }
}

TEST(gpu_neighbors_of_long_rows) {  // more entries than are sorted in shared memory
  std::mt19937 random(42);
  Batch batch;
  batch.add({0.1, 0.2, 0.3}, {1.1, 0, 0, 0.2, 1.0, 0, 0, 0.1, 1.2}, {true, true, true}, random, 1);
  batch.add({0.1, 0.2, 0.3, 0.6, 0.6, 0.7}, {3, 0, 0, 0, 3, 0, 0, 0, 3}, {true, true, true}, random, 1);
  for (std::uint64_t seed = 0; seed < 3; ++seed) compare(batch, {7.5}, 1, 0.0, seed);
}

TEST(gpu_neighbors_in_sparse_boxes) {
  std::mt19937 random(43);
  for (int round = 0; round < 5; ++round) {
    Batch batch;
    std::vector<double> fractional;  // clusters far from each other, and one atom that is lost
    for (int cluster = 0; cluster < 6; ++cluster) {
      double middle[3];
      for (double& x : middle) x = uniform(random, -3e4, 3e4);
      for (int k = 0; k < 3 * 20; ++k) fractional.push_back(middle[k % 3] + uniform(random, -4.0, 4.0));
    }
    for (double x : {1e9, -3e8, 2e7}) fractional.push_back(x);
    batch.add(fractional, {1, 0, 0, 0, 1, 0, 0, 0, 1}, {false, false, false}, random, 2);
    batch.add(fractional, {1, 0, 0, 0, 7, 0, 0, 0, 1}, {false, round % 2 == 0, false}, random, 2);
    compare(batch, {5.0, 3.0, 4.0, 5.5}, 2, 0.5, round);
    // Atoms on a line or in a plane.
    Batch line;
    fractional.clear();
    for (int i = 0; i < 200; ++i)
      for (int k = 0; k < 3; ++k) fractional.push_back(k <= round % 3 ? 1.7 * i : 0.0);
    line.add(fractional, {1, 0, 0, 0, 1, 0, 0, 0, 1}, {false, false, false}, random, 2);
    compare(line, {5.0, 3.0, 4.0, 5.5}, 2, 0.0, round);
  }
}

TEST(gpu_neighbors_of_centres_and_ghosts) {
  std::mt19937 random(44);
  const std::vector<double> cutoffs{4.0, 3.0, 0.0, 2.5};
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const int n_centers = seed == 4 ? 0 : 120, n_atoms = 300;
    std::vector<double> positions;
    std::vector<std::int32_t> species;
    for (int i = 0; i < n_atoms; ++i) {
      for (int k = 0; k < 3; ++k) positions.push_back(uniform(random, -12.0, 12.0));
      species.push_back(static_cast<std::int32_t>(random() % 3) - 1);
    }
    grace::gpu::ListAtoms atoms;
    atoms.n_centers = n_centers;
    atoms.n_atoms = n_atoms;
    Listed listed(seed);
    listed.build(atoms, positions, species, cutoffs, 2, 0.25);
    std::vector<std::int64_t> first{0};
    std::vector<std::int32_t> neighbor;
    for (int i = 0; i < n_centers; ++i) {
      for (int j = 0; j < n_atoms; ++j) {
        if (i == j || species[i] < 0 || species[j] < 0) continue;
        double d2 = 0.0;
        for (int k = 0; k < 3; ++k) d2 += std::pow(positions[3 * j + k] - positions[3 * i + k], 2);
        const double cutoff = cutoffs[2 * species[i] + species[j]];
        if (cutoff > 0.0 && std::sqrt(d2) < cutoff + 0.25) neighbor.push_back(j);
      }
      first.push_back(static_cast<std::int64_t>(neighbor.size()));
    }
    CHECK(listed.list.host_first() == first);
    CHECK(listed.neighbor == neighbor);
    CHECK(listed.list.shift() == nullptr);
    CHECK(listed.wrapped(positions, {}) == positions);
    std::vector<double> moved = positions;
    CHECK(!listed.moved(moved, {}));
    moved[3 * 299] += 0.5;  // a ghost counts as well
    CHECK(listed.moved(moved, {}));
  }
}

TEST(gpu_neighbors_do_not_list_atoms_without_species) {
  std::mt19937 random(45);
  Batch all, some;
  add_random(all, random, 30, 1, 8.0, 10.0);
  some = all;
  std::vector<char> listed_atom(30, 1);
  for (int i = 0; i < 30; i += 3) some.species[i] = -1, listed_atom[i] = 0;
  Listed full(0), part(1);
  full.build(all, {4.0}, 1, 0.0);
  part.build(some, {4.0}, 1, 0.0);
  std::vector<std::int32_t> neighbor, shift;
  for (int i = 0; i < 30; ++i)
    for (std::int64_t p = full.list.host_first()[i]; p < full.list.host_first()[i + 1]; ++p)
      if (listed_atom[i] != 0 && listed_atom[full.neighbor[p]] != 0) {
        neighbor.push_back(full.neighbor[p]);
        shift.push_back(full.shift[p]);
      }
  CHECK(neighbor.size() > 0);
  CHECK(part.neighbor == neighbor && part.shift == shift);
}

TEST(gpu_neighbors_of_nothing) {
  Listed listed(1);
  Batch nothing;
  listed.build(nothing, {3.0}, 1, 1.0);
  CHECK(listed.list.host_first() == std::vector<std::int64_t>{0} && listed.neighbor.empty());
  CHECK(!listed.moved({}, {}));
  std::mt19937 random(46);
  Batch batch;
  add_random(batch, random, 0, 1);
  listed.build(batch, {3.0}, 1, 1.0);
  CHECK(listed.neighbor.empty());
  add_random(batch, random, 1, 1);
  add_random(batch, random, 0, 1);
  compare(batch, {3.0}, 1, 0.0, 2);
  compare(batch, {0.0}, 1, 0.0, 2);  // no pair is ever listed
  listed.build(batch, {-1.0}, 1, 0.0);
  CHECK(!listed.moved(batch.positions, batch.cells));
  CHECK(listed.list.bytes() > 0 && listed.list.bytes() <= listed.device.allocated_bytes());
}

TEST(gpu_neighbors_name_what_is_wrong) {
  std::mt19937 random(47);
  Batch good;
  for (int s = 0; s < 3; ++s) add_random(good, random, 8, 2, 6.0, 9.0);
  std::fill(good.periodic.begin(), good.periodic.end(), char{1});
  for (std::size_t k = 0; k < good.cells.size(); ++k)
    if (k % 9 % 4 == 0) good.cells[k] = 20.0;
  const std::vector<double> cutoffs{3.0, 3.0, 3.0, 3.0};
  const auto build = [&](const Batch& batch, double skin = 0.0) { Listed(1).build(batch, cutoffs, 2, skin); };
  build(good);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  // The sentence is the one of the CPU.
  const auto same = [&](const Batch& batch, const char* needle) {
    std::string sentence = "no error";
    try {
      grace::build_neighbors(batch.view(), 2, cutoffs.data(), 0.0, 1);
    } catch (const grace::Error& error) {
      sentence = error.what();
    }
    CHECK_THROWS(build(batch), sentence);
    CHECK_THROWS(build(batch), needle);
  };
  Batch bad = good;
  bad.positions[3 * 11 + 1] = nan;
  bad.positions[3 * 20] = nan;
  same(bad, "`positions` of atom 3 of structure 1 are not finite");
  bad = good;
  bad.positions[3 * 9] = 1e13;
  same(bad, "atom 1 of structure 1 are beyond");
  bad = good;
  bad.positions[3 * 9] = 9e11;
  same(bad, "cells outside the cell");
  bad = good;
  bad.species[23] = 2;
  same(bad, "`species` of atom 7 of structure 2 is 2");
  bad = good;
  bad.cells[9 + 4] = nan;
  same(bad, "`cell` of structure 1 has a value that is not finite");
  bad = good;
  for (int k = 0; k < 3; ++k) bad.cells[9 + k] = bad.cells[9 + 3 + k];
  same(bad, "`cell` of structure 1 has zero volume");
  bad = good;
  for (int k = 0; k < 3; ++k) bad.cells[18 + k] = 0.0;
  same(bad, "`cell` of structure 2 has zero length");
  bad = good;
  for (int k = 0; k < 9; ++k) bad.cells[k] = k % 4 == 0 ? (k == 0 ? 0.004 : 5.0) : 0.0;
  same(bad, "images would be needed");
  CHECK_THROWS(build(good, -1.0), "`skin` must be finite and >= 0");
  CHECK_THROWS(build(good, nan), "`skin` must be finite and >= 0");
}

TEST(gpu_neighbors_notice_motion_as_the_cpu_does) {
  std::mt19937 random(48);
  int exceeded = 0, rounds = 0;
  for (int round = 0; round < 60; ++round) {
    Batch batch;
    const int n_structures = 1 + round % 3;
    for (int s = 0; s < n_structures; ++s) add_random(batch, random, round % 9 == 0 ? 1500 : 6, 2, 12.0, 20.0);
    const std::vector<double> cutoffs{3.0, 2.5, 0.0, 4.0};
    const double skin = 0.25 * (round % 4);
    Listed listed(round % 5);
    listed.build(batch, cutoffs, 2, skin);
    std::vector<double> cells = batch.cells, positions = batch.positions;
    const double strain = round % 2 == 0 ? 0.0 : uniform(random, -0.02, 0.02);
    for (double& x : cells) x *= 1.0 + strain;
    const double amplitude = uniform(random, 0.0, 0.7) * skin;
    for (double& x : positions) x = (1.0 + strain) * x + uniform(random, -0.5, 0.5) * amplitude + 3.0;
    const bool expected = grace::max_displacement_exceeds(batch.view(), positions.data(), cells.data(), 2.5, 4.0, skin);
    CHECK(listed.moved(positions, cells) == expected);
    exceeded += expected ? 1 : 0;
    ++rounds;
    positions[0] = std::numeric_limits<double>::quiet_NaN();
    CHECK(listed.moved(positions, cells));
  }
  CHECK(exceeded > 5 && exceeded < rounds - 5);
}

TEST(gpu_neighbors_at_the_margin_of_motion) {
  std::mt19937 random(49);
  Batch batch;
  batch.add({0.0, 0.0, 0.0, 0.5, 0.0, 0.0}, {8, 0, 0, 0, 8, 0, 0, 0, 8}, {true, true, true}, random, 1);
  Listed listed(2);
  listed.build(batch, {4.0}, 1, 1.0);
  std::vector<double> positions = batch.positions;
  const auto both = [&] {
    const bool expected =
        grace::max_displacement_exceeds(batch.view(), positions.data(), batch.cells.data(), 4.0, 4.0, 1.0);
    CHECK(listed.moved(positions, batch.cells) == expected);
    return expected;
  };
  CHECK(!both());
  positions[0] = 1.0;  // the middle of the range has moved by half of it: twice 0.5 is the skin
  CHECK(both());
  positions[0] = std::nextafter(1.0, 0.0);
  CHECK(!both());
}
