// A small periodic crystal for tests of the evaluator, and its results with image shifts.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/evaluator.hpp"
#include "grace/neighbors.hpp"

namespace crystal_tests {

using namespace grace;

constexpr double kSummation = 1e-12;  // relative to the largest number: only the order of sums differs
constexpr double kSingle = 2e-5;      // the same in single precision

inline ModelSpec tiny(const std::string& name) {
  return load_model(NpzFile(std::string(GRACE_TEST_DATA) + "/models/" + name), {});
}

inline std::unique_ptr<Evaluator> evaluator(const std::string& model, Precision precision = Precision::fp64,
                                            int n_threads = 1, const std::string& device = "cpu") {
  EvaluatorOptions options;
  options.device = parse_device(device);
  options.precision = precision;
  options.n_threads = n_threads;
  return make_evaluator(tiny(model), options);
}

// A skewed periodic cell with two species; atoms lie inside the cell, so that lists and positions need no wrapping.
struct Crystal {
  int n = 0;
  double cell[9] = {7.3, 0.0, 0.0, 2.1, 6.9, 0.0, -1.4, 1.7, 7.8};
  bool periodic[3] = {true, true, true};
  std::vector<double> positions;
  std::vector<std::int32_t> species;
  NeighborList list;
};

inline Crystal crystal(const ModelSpec& model, int cells_per_edge = 3) {
  Crystal c;
  std::mt19937 random(19);
  std::uniform_real_distribution<double> uniform(-0.08, 0.08);
  const int edge = cells_per_edge;
  c.n = edge * edge * edge;
  for (int i = 0; i < c.n; ++i) {
    double s[3];
    const int index[3] = {i % edge, i / edge % edge, i / edge / edge};
    for (int k = 0; k < 3; ++k) s[k] = (index[k] + 0.5 + uniform(random)) / edge;
    for (int x = 0; x < 3; ++x) c.positions.push_back(s[0] * c.cell[x] + s[1] * c.cell[3 + x] + s[2] * c.cell[6 + x]);
    c.species.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(model.n_elements())));
  }
  const std::int64_t first_atom[2] = {0, c.n};
  StructureBatch batch;
  batch.first_atom = first_atom;
  batch.positions = c.positions.data();
  batch.species = c.species.data();
  batch.cells = c.cell;
  batch.periodic = c.periodic;
  c.list = build_neighbors(batch, model.n_elements(), model.pair_cutoffs.data(), 0.0, 1);
  return c;
}

// Everything a call returns, per atom of the crystal.
struct Answer {
  std::vector<double> energies, forces, virial, atom_virial, centroid_virial;
  explicit Answer(int n) : energies(n), forces(3 * n), virial(9), atom_virial(9 * n), centroid_virial(9 * n) {}
};

inline double largest(const std::vector<double>& values) {
  double out = 1.0;
  for (double v : values) out = std::max(out, std::abs(v));
  return out;
}

inline void compare(const Answer& actual, const Answer& expected, double relative) {
  const auto same = [relative](const std::vector<double>& a, const std::vector<double>& b) {
    CHECK(a.size() == b.size());
    double worst = 0.0;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      const double error = std::abs(a[i] - b[i]);
      if (!(error <= worst)) worst = error;
    }
    CHECK_NEAR(worst / largest(b), 0.0, relative);
  };
  same(actual.energies, expected.energies);
  same(actual.forces, expected.forces);
  same(actual.virial, expected.virial);
  same(actual.atom_virial, expected.atom_virial);
  same(actual.centroid_virial, expected.centroid_virial);
}

// Each atom once; bonds to periodic images through packed shifts.
inline Geometry with_image_shifts(const Crystal& c) {
  Geometry g;
  g.n_centers = g.n_atoms = c.n;
  g.positions = c.positions.data();
  g.species = c.species.data();
  g.first = c.list.first.data();
  g.neighbor = c.list.neighbor.data();
  g.shift = c.list.shift.data();
  g.cells = c.cell;
  return g;
}

inline Results results_into(Answer& answer) {
  Results r;
  r.energies = answer.energies.data();
  r.forces = answer.forces.data();
  r.virial = answer.virial.data();
  r.atom_virial = answer.atom_virial.data();
  r.centroid_virial = answer.centroid_virial.data();
  return r;
}

inline Answer with_shifts(Evaluator& evaluator, const Crystal& c) {
  Answer answer(c.n);
  Results r = results_into(answer);
  evaluator.compute(with_image_shifts(c), r);
  return answer;
}

}  // namespace crystal_tests
