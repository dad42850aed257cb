// The SNAP kernels of a device against those of the CPU: values, adjoints, neighbours, batches one after the other, and
// what is refused.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/snap/cpu_snap.hpp"
#include "grace/snap/tables.hpp"
#include "grace/snap_cuda/device_plan.hpp"
#include "grace/snap_cuda/kernels.hpp"
#include "test_target.hpp"

namespace {

using grace::snap::CpuSnap;
using grace::snap::CutoffRule;
using grace::snap::Snap;
using grace::snap::SnapOptions;

constexpr double kRounding = 1e-12;  // relative to the largest, or to one where everything cancels
constexpr int kSeeds = 5;

// Structures one after another; a direction without cell vector is not periodic.
struct Batch {
  std::vector<double> positions, cells, cutoffs;
  std::vector<std::int64_t> first{0};
  std::vector<char> periodic;

  std::int64_t n_atoms() const { return first.back(); }
  int n_structures() const { return static_cast<int>(first.size()) - 1; }

  // Atoms in and around a skewed cell with edges of about `edge` (A).
  void add(std::mt19937& random, int n, double edge, double least_cutoff, double most_cutoff, int n_periodic = 3) {
    std::uniform_real_distribution<double> unit(0.0, 1.0);
    double cell[9];
    for (int k = 0; k < 9; ++k) cell[k] = edge * ((k % 4 == 0 ? 0.8 : -0.2) + 0.4 * unit(random));
    for (int k = 0; k < 3; ++k) periodic.push_back(k < n_periodic ? 1 : 0);
    for (int k = 0; k < 9; ++k) cells.push_back(k / 3 < n_periodic ? cell[k] : 0.0);
    for (int i = 0; i < n; ++i) {
      double s[3];
      for (double& x : s) x = 1.6 * unit(random) - 0.3;
      for (int x = 0; x < 3; ++x) positions.push_back(s[0] * cell[x] + s[1] * cell[3 + x] + s[2] * cell[6 + x]);
      cutoffs.push_back(least_cutoff + (most_cutoff - least_cutoff) * unit(random));
    }
    first.push_back(first.back() + n);
  }

  // One structure of it.
  Batch part(int s) const {
    Batch out;
    const auto atoms = [&](const std::vector<double>& from, std::int64_t width) {
      return std::vector<double>(from.begin() + width * first[s], from.begin() + width * first[s + 1]);
    };
    out.positions = atoms(positions, 3);
    out.cutoffs = atoms(cutoffs, 1);
    out.cells.assign(cells.begin() + 9 * s, cells.begin() + 9 * (s + 1));
    out.periodic.assign(periodic.begin() + 3 * s, periodic.begin() + 3 * (s + 1));
    out.first.push_back(first[s + 1] - first[s]);
    return out;
  }
};

struct Answer {
  std::vector<double> features, positions, strain;
  std::int64_t n_pairs = 0;

  bool operator==(const Answer& other) const {
    return features == other.features && positions == other.positions && strain == other.strain &&
           n_pairs == other.n_pairs;
  }
};

std::vector<double> weights(std::size_t n) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> weight(-1.0, 1.0);
  std::vector<double> beta(n);
  for (double& b : beta) b = weight(random);
  return beta;
}

Answer compute(Snap& snap, const Batch& batch, CutoffRule rule) {
  const std::size_t n = static_cast<std::size_t>(batch.n_atoms());
  grace::StructureBatch view;
  view.n_structures = batch.n_structures();
  view.first_atom = batch.first.data();
  view.positions = batch.positions.data();
  view.cells = batch.cells.data();
  std::unique_ptr<bool[]> periodic(new bool[batch.periodic.size()]);
  std::copy(batch.periodic.begin(), batch.periodic.end(), periodic.get());
  view.periodic = periodic.get();
  Answer out;
  out.features.assign(n * static_cast<std::size_t>(snap.n_features()), std::nan(""));
  out.positions.assign(3 * n, std::nan(""));
  out.strain.assign(9 * static_cast<std::size_t>(batch.n_structures()), std::nan(""));
  snap.descriptors(view, batch.cutoffs.data(), rule, out.features.data());
  snap.gradients(weights(out.features.size()).data(), out.positions.data(), out.strain.data());
  out.n_pairs = snap.n_pairs();
  return out;
}

std::unique_ptr<Snap> on_device(std::uint64_t seed, int twojmax = 8) {
  return grace::snap::make_snap({twojmax, 0.99363, 0.1, grace::parse_device(test_target::device_name(seed))});
}

double largest(const std::vector<double>& values) {
  double most = 0.0;
  for (double v : values) most = std::max(most, std::abs(v));
  return most;
}

void compare(const std::vector<double>& values, const std::vector<double>& expected) {
  CHECK(values.size() == expected.size());
  const double allowed = kRounding * std::max(1.0, largest(expected));
  for (std::size_t k = 0; k < values.size(); ++k) CHECK_NEAR(values[k], expected[k], allowed);
}

void compare(const Answer& answer, const Answer& expected) {
  CHECK(answer.n_pairs == expected.n_pairs);
  compare(answer.features, expected.features);
  compare(answer.positions, expected.positions);
  compare(answer.strain, expected.strain);
}

// Cells smaller than the cutoffs, an atom without neighbours, a wire, a layer, nothing, and more atoms than any block
// has threads for at a time.
Batch all_kinds(std::mt19937& random) {
  Batch batch;
  batch.add(random, 4, 3.4, 3.0, 5.0);
  batch.add(random, 1, 2.5, 6.0, 6.0);
  batch.add(random, 1, 5.0, 4.0, 4.0, 0);
  batch.add(random, 0, 5.0, 4.0, 4.0);
  batch.add(random, 3, 4.2, 3.0, 5.0, 1);
  batch.add(random, 70, 12.0, 2.0, 4.0, 2);
  batch.add(random, 12, 6.0, 2.5, 5.5);
  return batch;
}

}  // namespace

TEST(gpu_snap_equals_the_cpu) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::mt19937 random(static_cast<unsigned>(50 + seed));
    const Batch batch = all_kinds(random);
    const auto device = on_device(seed);
    CpuSnap cpu({8, 0.99363, 0.1});
    CHECK(device->n_features() == 55);
    for (CutoffRule rule : {CutoffRule::centre, CutoffRule::pair}) {
      const Answer expected = compute(cpu, batch, rule);
      CHECK(expected.n_pairs > 300);
      CHECK(largest(expected.positions) > 1.0);
      CHECK(largest(expected.strain) > 1.0);
      compare(compute(*device, batch, rule), expected);
    }
  }
}

TEST(gpu_snap_of_other_levels) {
  for (int twojmax : {0, 1, 2, 7, 9, 14}) {
    std::mt19937 random(7);
    Batch batch;
    batch.add(random, 3, 3.4, 3.0, 5.0);
    batch.add(random, 2, 4.0, 3.0, 4.0, 0);
    CpuSnap cpu({twojmax, 0.99363, 0.1});
    compare(compute(*on_device(2, twojmax), batch, CutoffRule::pair), compute(cpu, batch, CutoffRule::pair));
  }
}

// The first call finds out how many pairs there are; later ones are larger, smaller, empty, and larger again.
TEST(gpu_snap_of_many_batches) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::mt19937 random(static_cast<unsigned>(60 + seed));
    const auto device = on_device(seed);
    CpuSnap cpu({8, 0.99363, 0.1});
    for (double cutoff : {3.0, 12.0, 2.0, 0.0, 13.0}) {
      Batch batch;
      const int n_structures = cutoff > 0.0 ? 1 + static_cast<int>(random() % 4) : 0;
      for (int s = 0; s < n_structures; ++s)
        batch.add(random, 1 + static_cast<int>(random() % 5), 3.5, 0.8 * cutoff, cutoff);
      const Answer answer = compute(*device, batch, CutoffRule::centre);
      compare(answer, compute(cpu, batch, CutoffRule::centre));
      if (cutoff >= 12.0) CHECK(answer.n_pairs > 100 * batch.n_atoms());  // more than there is room for at first
      CHECK(compute(*device, batch, CutoffRule::centre) == answer);
      CHECK(compute(*on_device(seed), batch, CutoffRule::centre) == answer);
    }
  }
}

TEST(gpu_snap_does_not_depend_on_company_or_order) {
  std::mt19937 random(8);
  const Batch batch = all_kinds(random);
  const Answer all = compute(*on_device(0), batch, CutoffRule::pair);
  for (std::uint64_t seed = 1; seed < kSeeds; ++seed) CHECK(compute(*on_device(seed), batch, CutoffRule::pair) == all);
  const auto device = on_device(1);
  for (int s = 0; s < batch.n_structures(); ++s) {
    const Batch part = batch.part(s);
    const std::int64_t begin = batch.first[s], end = batch.first[s + 1];
    const std::vector<double> features(all.features.begin() + 55 * begin, all.features.begin() + 55 * end);
    grace::StructureBatch view;
    view.n_structures = 1;
    view.first_atom = part.first.data();
    view.positions = part.positions.data();
    view.cells = part.cells.data();
    bool periodic[3];
    std::copy(part.periodic.begin(), part.periodic.end(), periodic);
    view.periodic = periodic;
    std::vector<double> alone(features.size());
    device->descriptors(view, part.cutoffs.data(), CutoffRule::pair, alone.data());
    CHECK(alone == features);
  }
}

// No thread of a contraction has much more to do than the others, and every term is somewhere once.
TEST(gpu_snap_streams_are_even) {
  const grace::snap::Tables tables = grace::snap::make_tables(8);
  const int n_streams = grace::snap::contraction_streams(8);
  std::size_t value_terms = 0, all_terms = tables.terms.size();
  for (int k = 0; k < tables.n_value; ++k) value_terms += static_cast<std::size_t>(tables.elements[k].n_terms);
  const auto check = [&](const grace::snap::Streams& streams, std::size_t n_terms, int n_places) {
    const std::size_t n = static_cast<std::size_t>(n_streams * grace::snap::contraction_blocks);
    CHECK(streams.terms.size() == n_terms + grace::snap::terms_ahead);
    CHECK(streams.first_term.size() == n + 1 && streams.first_element.size() == n + 1);
    CHECK(streams.first_term.back() == static_cast<std::int32_t>(n_terms));
    CHECK(streams.first_place.front() == 0 && streams.first_place.back() == n_places);
    const double mean = static_cast<double>(n_terms) / static_cast<double>(n);
    std::size_t n_ends = 0;
    std::int32_t n_slots = 0;
    for (std::size_t s = 0; s < n; ++s) CHECK(streams.first_term[s + 1] - streams.first_term[s] < 1.2 * mean);
    for (const auto& term : streams.terms) n_ends += (term.second & grace::snap::last_term) != 0 ? 1 : 0;
    for (const auto& element : streams.elements) n_slots += element.slot >= 0 ? 1 : 0;
    CHECK(n_ends == streams.elements.size());
    CHECK(n_slots == streams.first_slot.back());
  };
  check(grace::snap::value_streams(tables, n_streams), value_terms, 55);
  check(grace::snap::adjoint_streams(tables, n_streams), all_terms, tables.n_half);
}

TEST(gpu_snap_refuses_what_the_cpu_refuses) {
  std::mt19937 random(9);
  Batch good;
  good.add(random, 3, 4.0, 3.0, 4.0);
  good.add(random, 4, 4.0, 3.0, 4.0);
  const auto device = on_device(3);
  CpuSnap cpu({8, 0.99363, 0.1});
  double none[1];
  CHECK_THROWS(device->gradients(none, none, none), "needs a call of descriptors()");
  CHECK_THROWS(on_device(0, 15), "`twojmax` must be 0 .. 14");
  const Answer expected = compute(*device, good, CutoffRule::pair);
  std::vector<Batch> wrong(5, good);
  for (int x = 0; x < 3; ++x) wrong[0].positions[3 * 5 + x] = wrong[0].positions[3 * 4 + x] + wrong[0].cells[9 + x];
  wrong[1].positions[4] = std::nan("");
  wrong[2].cutoffs[6] = 0.1;
  for (int x = 0; x < 3; ++x) wrong[3].cells[9 + x] = wrong[3].cells[12 + x];
  wrong[4].positions[0] = 1e11;
  for (const Batch& batch : wrong) {
    std::string sentence;
    try {
      compute(cpu, batch, CutoffRule::pair);
    } catch (const grace::Error& error) {
      sentence = error.what();
    }
    CHECK(sentence.size() > 40);
    CHECK_THROWS(compute(*device, batch, CutoffRule::pair), sentence);
    CHECK_THROWS(device->gradients(none, none, none), "needs a call of descriptors()");
    CHECK(compute(*device, good, CutoffRule::pair) == expected);
  }
}
