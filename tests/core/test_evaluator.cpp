// Contract of Evaluator::compute: what it reports, what it refuses (tests/python compares its numbers with the oracle).
#include <cmath>
#include <vector>

#include "crystal.hpp"

using namespace crystal_tests;

TEST(closest_pair_is_reported) {
  const auto one = evaluator("tiny_1l_pairs.npz");
  Crystal c = crystal(one->model());
  Answer answer(c.n);
  double shortest = 1e9;
  for (int i = 0; i < c.n; ++i)
    for (std::int64_t p = c.list.first[i]; p < c.list.first[i + 1]; ++p) {
      int s[3];
      unpack_shift(c.list.shift[p], s[0], s[1], s[2]);
      double d2 = 0.0;
      for (int x = 0; x < 3; ++x) {
        double d = c.positions[3 * c.list.neighbor[p] + x] - c.positions[3 * i + x];
        for (int k = 0; k < 3; ++k) d += s[k] * c.cell[3 * k + x];
        d2 += d * d;
      }
      shortest = std::min(shortest, std::sqrt(d2));
    }
  const Geometry g = with_image_shifts(c);
  Results r;
  r.energies = answer.energies.data();
  one->compute(g, r);
  CHECK_NEAR(r.closest_distance, shortest, 1e-12);
  CHECK(r.closest_pair[0] >= 0 && r.closest_pair[0] < c.n && r.closest_pair[1] >= 0 && r.closest_pair[1] < c.n);
}

TEST(wrong_geometry_is_refused) {
  const auto one = evaluator("tiny_2l.npz");
  const Crystal c = crystal(one->model());
  Answer answer(c.n);
  const Geometry good = with_image_shifts(c);
  Results r;
  r.energies = answer.energies.data();
  const auto refused = [&](const char* needle, auto change) {
    Geometry g = good;
    change(g);
    CHECK_THROWS(one->compute(g, r), needle);
  };
  refused("n_atoms = 26 must be at least n_centers = 27", [](Geometry& g) { g.n_atoms = 26; });
  refused("need cells", [](Geometry& g) { g.cells = nullptr; });
  refused("must be given", [](Geometry& g) { g.positions = nullptr; });
  std::vector<double> positions = c.positions;
  positions[10] = std::nan("");
  refused("position of atom 3 is not finite", [&](Geometry& g) { g.positions = positions.data(); });
  std::vector<std::int32_t> species = c.species;
  species[5] = 2;
  refused("species of atom 5 is 2", [&](Geometry& g) { g.species = species.data(); });
  const std::int32_t outside[1] = {27};
  refused("outside [0, 27)", [&](Geometry& g) {
    g.selection = outside;
    g.n_selected = 1;
  });
  one->compute(good, r);  // and works afterwards
}

TEST(no_atoms) {
  for (const char* model : {"tiny_1l_pairs.npz", "tiny_2l.npz"}) {
    const auto one = evaluator(model);
    Geometry g;
    Results r;
    one->compute(g, r);
    CHECK(std::isinf(r.closest_distance));
  }
}
