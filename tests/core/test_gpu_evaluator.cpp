// The device evaluator against the CPU evaluator (which tests/python compares with the oracle): every way
// in and out, chunks, shuffled orders, determinism, memory and bad input.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "crystal.hpp"
#include "test_target.hpp"

namespace {

using namespace crystal_tests;
using test_target::device_name;

const char* const models[] = {"tiny_1l_order2.npz", "tiny_1l.npz", "tiny_1l_pairs.npz", "tiny_2l.npz"};

struct Options {
  std::string device = device_name(1);
  Precision precision = Precision::fp64;
  int chunk = 0;
  bool deterministic = false;
  RadialMode radial = RadialMode::table;
};

std::unique_ptr<Evaluator> make(const std::string& model, const Options& wanted) {
  EvaluatorOptions options;
  options.device = parse_device(wanted.device);
  options.precision = wanted.precision;
  options.chunk = wanted.chunk;
  options.deterministic = wanted.deterministic;
  options.radial = wanted.radial;
  options.n_threads = 1;
  return make_evaluator(tiny(model), options);
}

// Without rows: the evaluator lists the neighbours itself.
Geometry with_own_list(const Crystal& c, double skin) {
  Geometry g = with_image_shifts(c);
  g.first = nullptr;
  g.neighbor = g.shift = nullptr;
  g.neighbors.periodic = c.periodic;
  g.neighbors.skin = skin;
  return g;
}

Answer with_list(Evaluator& evaluator, const Crystal& c, double skin) {
  Answer answer(c.n);
  Results r = results_into(answer);
  evaluator.compute(with_own_list(c, skin), r);
  return answer;
}

bool bitwise_equal(const Answer& a, const Answer& b) {
  return a.energies == b.energies && a.forces == b.forces && a.virial == b.virial && a.atom_virial == b.atom_virial &&
         a.centroid_virial == b.centroid_virial;
}

}  // namespace

TEST(device_kernels_equal_the_cpu_kernels_in_every_order) {
  for (const char* model : models)
    for (RadialMode radial : {RadialMode::table, RadialMode::exact}) {
      const auto cpu = make(model, {"cpu", Precision::fp64, 0, false, radial});
      const Crystal c = crystal(cpu->model());
      const Answer expected = with_shifts(*cpu, c);
      for (int seed = 0; seed < 5; ++seed) {
        const auto one = make(model, {device_name(seed), Precision::fp64, seed * 4, false, radial});
        compare(with_shifts(*one, c), expected, kSummation);
      }
    }
}

TEST(device_kernels_in_single_precision) {
  for (const char* model : models) {
    const auto cpu = make(model, {"cpu"});
    const Crystal c = crystal(cpu->model());
    for (Precision precision : {Precision::mixed, Precision::fp32})
      compare(with_shifts(*make(model, {device_name(2), precision}), c), with_shifts(*cpu, c), kSingle);
  }
}

TEST(stages_of_the_device_equal_those_of_the_cpu) {
  for (const char* model : models) {
    const auto cpu = make(model, {"cpu"}), one = make(model, {device_name(4), Precision::fp64, 10});
    const Crystal c = crystal(cpu->model());
    std::vector<StageTensor> expected, actual;
    Answer a(c.n), b(c.n);
    Results ra = results_into(a), rb = results_into(b);
    ra.stages = &expected;
    rb.stages = &actual;
    cpu->compute(with_image_shifts(c), ra);
    one->compute(with_image_shifts(c), rb);
    CHECK(actual.size() == expected.size());
    for (std::size_t k = 0; k < std::min(actual.size(), expected.size()); ++k) {
      CHECK(actual[k].name == expected[k].name && actual[k].rows == expected[k].rows);
      const auto same = [&](const std::vector<double>& x, const std::vector<double>& y) {
        double largest_value = 1e-300, worst = 0.0;
        for (double v : y) largest_value = std::max(largest_value, std::abs(v));
        for (std::size_t i = 0; i < y.size(); ++i)
          if (!(std::abs(x[i] - y[i]) <= worst)) worst = std::abs(x[i] - y[i]);
        CHECK_NEAR(worst / largest_value, 0.0, kSummation);
      };
      same(actual[k].values, expected[k].values);
      same(actual[k].gradients, expected[k].gradients);
    }
  }
}

TEST(own_lists_equal_given_rows) {
  for (const char* model : models) {
    const auto cpu = make(model, {"cpu"}), one = make(model, {});
    Crystal c = crystal(cpu->model());
    CHECK(one->lists_neighbors() && !cpu->lists_neighbors());
    compare(with_list(*one, c, 0.0), with_shifts(*cpu, c), kSummation);
    compare(with_list(*one, c, 0.6), with_shifts(*cpu, c), kSummation);
    // atoms move: the list is kept, then made again; atoms may also be given outside the cell
    for (double step : {0.02, 0.3, 5.0}) {
      for (int i = 0; i < c.n; ++i)
        for (int x = 0; x < 3; ++x) c.positions[3 * i + x] += step * std::sin(1.0 + 7.0 * i + 3.0 * x);
      const std::vector<double> moved = c.positions;
      const Answer actual = with_list(*one, c, 0.6);
      const std::int64_t first_atom[2] = {0, c.n};
      StructureBatch batch;
      batch.first_atom = first_atom;
      batch.positions = c.positions.data();
      batch.species = c.species.data();
      batch.cells = c.cell;
      batch.periodic = c.periodic;
      c.list = build_neighbors(batch, cpu->model().n_elements(), cpu->model().pair_cutoffs.data(), 0.0, 1);
      for (int i = 0; i < c.n; ++i)
        for (int a = 0; a < 3; ++a)
          for (int x = 0; x < 3; ++x) c.positions[3 * i + x] -= c.list.wrap[3 * i + a] * c.cell[3 * a + x];
      compare(actual, with_shifts(*cpu, c), kSummation);
      c.positions = moved;
    }
    // other species: other cutoffs, other order in the chunks
    std::reverse(c.species.begin(), c.species.end());
    const auto fresh = make(model, {});
    compare(with_list(*one, c, 0.6), with_list(*fresh, c, 0.6), kSummation);
  }
}

// Monte Carlo changes species between two lists of the caller: the atoms may be half a skin from where those were made.
TEST(kept_lists_of_changed_species_reach_far_enough) {
  constexpr double skin = 1.2;
  const auto one = make("tiny_1l_pairs.npz", {}), fresh = make("tiny_1l_pairs.npz", {});
  Crystal c = crystal(one->model());
  const std::vector<double> listed = c.positions;
  const auto place = [&](double step) {
    for (int i = 0; i < c.n; ++i) {
      double u[3], length = 0.0;
      for (int x = 0; x < 3; ++x) {
        u[x] = std::sin(1.0 + 7.0 * i + 3.0 * x);
        length += u[x] * u[x];
      }
      for (int x = 0; x < 3; ++x) c.positions[3 * i + x] = listed[3 * i + x] + step * u[x] / std::sqrt(length);
    }
  };
  const auto kept = [&] {
    Geometry g = with_own_list(c, skin);
    g.neighbors.reuse = NeighborRequest::Reuse::keep;
    Answer answer(c.n);
    Results r = results_into(answer);
    one->compute(g, r);
    return answer;
  };
  with_list(*one, c, skin);
  place(0.499 * skin);
  std::reverse(c.species.begin(), c.species.end());
  compare(kept(), with_list(*fresh, c, 0.0), kSummation);
  place(-0.499 * skin);
  compare(kept(), with_list(*fresh, c, 0.0), kSummation);
}

TEST(many_structures_in_one_call) {
  for (const char* model : models) {
    const auto cpu = make(model, {"cpu"}), one = make(model, {device_name(2), Precision::fp64, 17});
    std::vector<double> positions, cells;
    std::vector<std::int32_t> species;
    std::vector<std::int64_t> first_atom{0};
    bool periodic[9];
    std::vector<Answer> expected;
    for (int s = 0; s < 3; ++s) {
      Crystal c = crystal(cpu->model(), 2 + s % 2);
      for (double& x : c.cell) x *= 1.0 + 0.1 * s;
      for (double& x : c.positions) x *= 1.0 + 0.1 * s;
      std::fill(periodic + 3 * s, periodic + 3 * s + 3, true);
      expected.push_back(with_list(*make(model, {}), c, 0.0));
      positions.insert(positions.end(), c.positions.begin(), c.positions.end());
      cells.insert(cells.end(), c.cell, c.cell + 9);
      species.insert(species.end(), c.species.begin(), c.species.end());
      first_atom.push_back(static_cast<std::int64_t>(species.size()));
    }
    Geometry g;
    g.n_centers = g.n_atoms = first_atom.back();
    g.positions = positions.data();
    g.species = species.data();
    g.n_structures = 3;
    g.cells = cells.data();
    g.neighbors.first_atom = first_atom.data();
    g.neighbors.periodic = periodic;
    g.neighbors.skin = 0.3;
    std::vector<double> energies(g.n_atoms), forces(3 * g.n_atoms), virial(27);
    Results r;
    r.energies = energies.data();
    r.forces = forces.data();
    r.virial = virial.data();
    one->compute(g, r);
    for (int s = 0; s < 3; ++s) {
      Answer part(static_cast<int>(first_atom[s + 1] - first_atom[s]));
      std::copy(energies.begin() + first_atom[s], energies.begin() + first_atom[s + 1], part.energies.begin());
      std::copy(forces.begin() + 3 * first_atom[s], forces.begin() + 3 * first_atom[s + 1], part.forces.begin());
      std::copy(virial.begin() + 9 * s, virial.begin() + 9 * (s + 1), part.virial.begin());
      part.atom_virial = expected[s].atom_virial;
      part.centroid_virial = expected[s].centroid_virial;
      compare(part, expected[s], kSummation);
    }
  }
}

TEST(energies_alone_and_of_some_atoms) {
  for (const char* model : models) {
    const auto cpu = make(model, {"cpu"}), one = make(model, {device_name(1), Precision::fp64, 5});
    const Crystal c = crystal(cpu->model());
    const Answer all = with_shifts(*cpu, c);
    Geometry g = with_image_shifts(c);
    Answer part(c.n);
    Results energies_only;
    energies_only.energies = part.energies.data();
    one->compute(g, energies_only);
    for (int i = 0; i < c.n; ++i) CHECK_NEAR(part.energies[i], all.energies[i], kSummation * largest(all.energies));

    const std::vector<std::int32_t> selection{20, 3, 4, 11};
    g.selection = selection.data();
    g.n_selected = static_cast<std::int64_t>(selection.size());
    for (Geometry geometry : {g, with_own_list(c, 0.4)}) {
      geometry.selection = selection.data();
      geometry.n_selected = g.n_selected;
      Answer a(c.n), b(c.n);
      Results ra = results_into(a), rb = results_into(b);
      cpu->compute(g, ra);
      one->compute(geometry, rb);
      compare(b, a, kSummation);
      CHECK(b.energies[0] == 0.0 && b.energies[20] != 0.0);
    }
  }
}

TEST(fixed_point_sums_do_not_depend_on_chunks_or_order) {
  for (const char* model : {"tiny_1l_pairs.npz", "tiny_2l.npz"})
    for (Precision precision : {Precision::fp64, Precision::mixed}) {
      const Crystal c = crystal(tiny(model));
      const Answer first = with_list(*make(model, {device_name(1), precision, 0, true}), c, 0.2);
      int differing = 0;
      for (int seed = 0; seed < 4; ++seed) {
        const std::string device = device_name(seed + 2);
        CHECK(bitwise_equal(with_list(*make(model, {device, precision, 5 + 7 * seed, true}), c, 0.2), first));
        differing +=
            bitwise_equal(with_list(*make(model, {device, precision, 5 + 7 * seed, false}), c, 0.2), first) ? 0 : 1;
      }
      if (test_target::is_emulated) CHECK(differing > 0);  // or the test would show nothing
      compare(first, with_list(*make(model, {device_name(1), precision}), c, 0.2),
              precision == Precision::fp64 ? 1e-9 : kSingle);
    }
}

TEST(arrays_in_device_memory_are_used_in_place) {
  for (const char* model : models) {
    const auto host = make(model, {}), one = make(model, {device_name(6), Precision::fp64, 6, true});
    const Crystal c = crystal(host->model());
    const Answer expected = with_list(*host, c, 0.5);
    Answer actual(c.n);
    test_target::TestDevice device(test_target::order(0));
    using Numbers = grace::device::Buffer<test_target::TestDevice, double>;
    const auto upload = [&](const std::vector<double>& values) {
      Numbers buffer(device, "numbers");
      buffer.upload(values);
      return buffer;
    };
    grace::device::Buffer<test_target::TestDevice, std::int32_t> species(device, "species");
    species.upload(c.species);
    Numbers positions = upload(c.positions), energies = upload(actual.energies), virial = upload(actual.virial);
    Numbers forces = upload(std::vector<double>(actual.forces.size(), 0.25));  // results are added to
    Numbers atom_virial = upload(actual.atom_virial), centroid_virial = upload(actual.centroid_virial);
    device.synchronize();
    Results r;
    r.energies = energies.data();
    r.forces = forces.data();
    r.virial = virial.data();
    r.atom_virial = atom_virial.data();
    r.centroid_virial = centroid_virial.data();
    Geometry g = with_own_list(c, 0.5);
    g.positions = positions.data();
    g.species = species.data();
    g.space = MemorySpace::device;
    one->compute(g, r);
    for (auto [values, buffer] : {std::pair(&actual.energies, &energies), std::pair(&actual.forces, &forces),
                                  std::pair(&actual.virial, &virial), std::pair(&actual.atom_virial, &atom_virial),
                                  std::pair(&actual.centroid_virial, &centroid_virial)})
      *values = test_target::read<double>(device, buffer->data(), values->size());
    for (double& f : actual.forces) f -= 0.25;
    compare(actual, expected, 1e-9);
  }
}

TEST(bad_input_on_the_device_is_named) {
  const auto one = make("tiny_2l.npz", {});
  const Crystal c = crystal(one->model());
  Answer answer(c.n);
  Results r = results_into(answer);
  const auto refused = [&](Geometry g, const char* needle, auto change) {
    change(g);
    CHECK_THROWS(one->compute(g, r), needle);
  };
  std::vector<double> positions = c.positions;
  positions[10] = std::nan("");
  for (const Geometry& g : {with_image_shifts(c), with_own_list(c, 0.2)})
    refused(g, "atom 3", [&](Geometry& bad) { bad.positions = positions.data(); });
  // the same while a list is kept
  one->compute(with_own_list(c, 0.2), r);
  refused(with_own_list(c, 0.2), "atom 3 is not finite", [&](Geometry& bad) {
    bad.positions = positions.data();
    bad.neighbors.reuse = NeighborRequest::Reuse::keep;
  });
  std::vector<std::int32_t> species = c.species;
  species[5] = 2;
  refused(with_image_shifts(c), "species of atom 5 is 2", [&](Geometry& bad) { bad.species = species.data(); });
  refused(with_own_list(c, -1.0), "`skin` must be >= 0", [](Geometry&) {});
  refused(with_image_shifts(c), "need cells", [](Geometry& bad) { bad.cells = nullptr; });
  refused(with_image_shifts(c), "n_atoms = 26 must be at least", [](Geometry& bad) { bad.n_atoms = 26; });
  const auto fresh = make("tiny_2l.npz", {});
  compare(with_list(*one, c, 0.2), with_list(*fresh, c, 0.2), kSummation);  // and works afterwards
}

TEST(closest_pair_on_the_device) {
  const auto cpu = make("tiny_1l_pairs.npz", {"cpu"}), one = make("tiny_1l_pairs.npz", {});
  const Crystal c = crystal(cpu->model());
  Answer a(c.n), b(c.n);
  Results ra = results_into(a), rb = results_into(b);
  cpu->compute(with_image_shifts(c), ra);
  one->compute(with_own_list(c, 0.3), rb);
  CHECK_NEAR(rb.closest_distance, ra.closest_distance, 1e-12);
  CHECK(std::minmax(ra.closest_pair[0], ra.closest_pair[1]) == std::minmax(rb.closest_pair[0], rb.closest_pair[1]));
}

TEST(profiles_name_the_kernels) {
  const auto one = make("tiny_2l.npz", {});
  const Crystal c = crystal(one->model());
  one->start_profile();
  with_list(*one, c, 0.1);
  const std::vector<KernelTime> profile = one->profile();
  CHECK(profile.size() > 10);
  for (const KernelTime& kernel : profile) CHECK(!kernel.name.empty() && kernel.launches > 0);
}
