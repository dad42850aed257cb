// The evaluator with ghost atoms, as MPI codes use it: owner maps, message exchange on one rank and between two ranks
// in lock step, against the same atoms with image shifts (which tests/python compares with the oracle).
#include <algorithm>
#include <array>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "crystal.hpp"
#include "test_target.hpp"

namespace {

using namespace crystal_tests;

// What one rank holds: its own atoms, then ghosts, which are images of own atoms or atoms of other ranks.
struct Domain {
  std::vector<int> global;  // [n_atoms] atom of the crystal; the first n_centers are this rank's own
  int n_centers = 0;
  std::vector<double> positions;
  std::vector<std::int32_t> species, neighbor;
  std::vector<std::int64_t> first{0};
};

Domain domain(const Crystal& c, const std::vector<int>& own) {
  Domain d;
  d.n_centers = static_cast<int>(own.size());
  std::map<std::tuple<int, int, int, int>, int> local;  // (atom, image) -> index
  const auto add = [&](int atom, int sa, int sb, int sc) {
    const auto found = local.emplace(std::make_tuple(atom, sa, sb, sc), static_cast<int>(d.global.size()));
    if (found.second) {
      d.global.push_back(atom);
      d.species.push_back(c.species[atom]);
      for (int x = 0; x < 3; ++x)
        d.positions.push_back(c.positions[3 * atom + x] + sa * c.cell[x] + sb * c.cell[3 + x] + sc * c.cell[6 + x]);
    }
    return found.first->second;
  };
  for (int atom : own) add(atom, 0, 0, 0);
  for (int atom : own) {
    for (std::int64_t p = c.list.first[atom]; p < c.list.first[atom + 1]; ++p) {
      int sa, sb, sc;
      unpack_shift(c.list.shift[p], sa, sb, sc);
      d.neighbor.push_back(add(c.list.neighbor[p], sa, sb, sc));
    }
    d.first.push_back(static_cast<std::int64_t>(d.neighbor.size()));
  }
  return d;
}

// Evaluates a domain and adds its results to the atoms of the crystal, ghosts folded onto their owners.
void add_domain(Evaluator& evaluator, const Domain& d, const std::int32_t* owner, MessageExchange* exchange,
                Answer& answer) {
  const std::size_t n = d.global.size();
  Geometry g;
  g.n_centers = d.n_centers;
  g.n_atoms = static_cast<std::int64_t>(n);
  g.positions = d.positions.data();
  g.species = d.species.data();
  g.first = d.first.data();
  g.neighbor = d.neighbor.data();
  g.owner = owner;
  // one more than needed: a rank without atoms must still pass pointers, nullptr would mean that it wants no forces
  Answer local(static_cast<int>(n) + 1);
  Results r = results_into(local);
  evaluator.compute(g, r, exchange);
  for (int i = 0; i < d.n_centers; ++i) answer.energies[d.global[i]] += local.energies[i];
  const auto fold = [&](const std::vector<double>& from, std::vector<double>& to, int width) {
    for (std::size_t i = 0; i < n; ++i)
      for (int k = 0; k < width; ++k) to[width * d.global[i] + k] += from[width * i + k];
  };
  fold(local.forces, answer.forces, 3);
  fold(local.atom_virial, answer.atom_virial, 9);
  fold(local.centroid_virial, answer.centroid_virial, 9);
  for (int k = 0; k < 9; ++k) answer.virial[k] += local.virial[k];
}

std::vector<int> all_atoms(const Crystal& c) {
  std::vector<int> atoms(c.n);
  for (int i = 0; i < c.n; ++i) atoms[i] = i;
  return atoms;
}

// On one rank every ghost is an image of an own atom: what an owner map says, done by copying.
class CopyExchange final : public MessageExchange {
 public:
  explicit CopyExchange(const Domain& d) : domain_(d) {}
  void forward(double* rows, int width) override { copy(rows, width); }
  void forward(float* rows, int width) override { copy(rows, width); }
  void reverse(double* rows, int width) override { fold(rows, width); }
  void reverse(float* rows, int width) override { fold(rows, width); }
  int n_forward = 0, n_reverse = 0, width_seen = 0;

 private:
  template <class Real>
  void copy(Real* rows, int width) {
    ++n_forward;
    width_seen = width;
    for (std::size_t i = domain_.n_centers; i < domain_.global.size(); ++i)
      std::copy_n(rows + static_cast<std::size_t>(domain_.global[i]) * width, width, rows + i * width);
  }
  template <class Real>
  void fold(Real* rows, int width) {
    ++n_reverse;
    for (std::size_t i = domain_.n_centers; i < domain_.global.size(); ++i)
      for (int k = 0; k < width; ++k)
        rows[static_cast<std::size_t>(domain_.global[i]) * width + k] += rows[i * width + k];
  }
  const Domain& domain_;
};

// Ranks in lock step: everybody shows its rows, waits, takes what it needs from the others, waits. A rank that fails
// breaks the barrier, so that a failing test ends.
class LockStep {
 public:
  explicit LockStep(int n_ranks) : rows(n_ranks), domains(n_ranks), n_ranks_(n_ranks) {}
  std::vector<double*> rows;
  std::vector<const Domain*> domains;

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const int generation = generation_;
    if (++waiting_ == n_ranks_) {
      waiting_ = 0;
      ++generation_;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return generation_ != generation || broken_; });
    require(!broken_, "another rank failed");
  }
  void fail() {
    const std::lock_guard<std::mutex> lock(mutex_);
    broken_ = true;
    changed_.notify_all();
  }

 private:
  const int n_ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0, generation_ = 0;
  bool broken_ = false;
};

class RankExchange final : public MessageExchange {
 public:
  RankExchange(LockStep& ranks, int rank) : ranks_(ranks), rank_(rank) {}

  void forward(double* rows, int width) override {
    show(rows);
    const Domain& mine = *ranks_.domains[rank_];
    for (std::size_t r = 0; r < ranks_.rows.size(); ++r) {
      const Domain& theirs = *ranks_.domains[r];
      for (int i = 0; i < theirs.n_centers; ++i)
        for (std::size_t ghost = mine.n_centers; ghost < mine.global.size(); ++ghost)
          if (mine.global[ghost] == theirs.global[i])
            std::copy_n(ranks_.rows[r] + static_cast<std::size_t>(i) * width, width, rows + ghost * width);
    }
    ranks_.wait();
  }
  void reverse(double* rows, int width) override {
    show(rows);
    const Domain& mine = *ranks_.domains[rank_];
    for (std::size_t r = 0; r < ranks_.rows.size(); ++r) {
      const Domain& theirs = *ranks_.domains[r];
      for (std::size_t ghost = theirs.n_centers; ghost < theirs.global.size(); ++ghost)
        for (int i = 0; i < mine.n_centers; ++i)
          if (mine.global[i] == theirs.global[ghost])
            for (int k = 0; k < width; ++k)
              rows[static_cast<std::size_t>(i) * width + k] += ranks_.rows[r][ghost * width + k];
    }
    ranks_.wait();
  }
  void forward(float*, int) override { throw Error("this exchange is for double precision"); }
  void reverse(float*, int) override { throw Error("this exchange is for double precision"); }

 private:
  void show(double* rows) {
    ranks_.rows[rank_] = rows;
    ranks_.wait();
  }
  LockStep& ranks_;
  int rank_;
};

std::vector<std::int32_t> owner_map(const Domain& d) {
  std::vector<std::int32_t> owner;
  for (int atom : d.global) owner.push_back(atom);  // of a single domain, whose centres are numbered as the crystal
  return owner;
}

const char* const models[] = {"tiny_1l_pairs.npz", "tiny_2l.npz"};
const std::string on_cpu = "cpu", on_device = test_target::device_name(3);

}  // namespace

TEST(ghosts_with_an_owner_map_equal_images) {
  for (const char* model : models)
    for (const auto& [n_threads, device] : {std::pair(1, on_cpu), std::pair(3, on_cpu), std::pair(1, on_device)}) {
      const auto reference = evaluator(model), ghosted = evaluator(model, Precision::fp64, n_threads, device);
      const Crystal c = crystal(reference->model());
      const Domain d = domain(c, all_atoms(c));
      CHECK(d.global.size() > 3 * static_cast<std::size_t>(c.n));
      const std::vector<std::int32_t> owner = owner_map(d);
      Answer answer(c.n);
      add_domain(*ghosted, d, owner.data(), nullptr, answer);
      compare(answer, with_shifts(*reference, c), kSummation);
    }
}

TEST(ghosts_with_message_exchange_equal_images) {
  for (const char* model : models)
    for (const auto& [precision, device] :
         {std::pair(Precision::fp64, on_cpu), std::pair(Precision::mixed, on_cpu),
          std::pair(Precision::fp64, on_device), std::pair(Precision::mixed, on_device)}) {
      const auto one = evaluator(model, precision, 1, device);
      const Crystal c = crystal(one->model());
      const Domain d = domain(c, all_atoms(c));
      CopyExchange exchange(d);
      Answer answer(c.n);
      add_domain(*one, d, nullptr, &exchange, answer);
      compare(answer, with_shifts(*one, c), precision == Precision::fp64 ? kSummation : kSingle);
      const int calls = one->model().n_layers - 1;
      CHECK(exchange.n_forward == calls && exchange.n_reverse == calls);
      CHECK(exchange.width_seen == one->message_width());
      CHECK((one->message_width() > 0) == (calls == 1));
    }
}

TEST(two_ranks_equal_one) {
  for (const auto& [model, device] : {std::pair(models[0], on_cpu), std::pair(models[1], on_cpu),
                                      std::pair(models[0], on_device), std::pair(models[1], on_device)}) {
    const std::string device_word = device, model_file = model;  // C++17 lambdas cannot capture the bindings
    const auto reference = evaluator(model);
    const Crystal c = crystal(reference->model());
    const Answer expected = with_shifts(*reference, c);
    for (int share : {c.n / 2, 4, c.n}) {  // the last: one rank owns nothing
      std::vector<int> own[2];
      for (int i = 0; i < c.n; ++i) own[(i * 7) % c.n < share ? 0 : 1].push_back(i);
      const Domain domains[2] = {domain(c, own[0]), domain(c, own[1])};
      LockStep ranks(2);
      ranks.domains = {&domains[0], &domains[1]};
      std::vector<Answer> parts(2, Answer(c.n));
      std::array<std::string, 2> problems;
      const auto run = [&](int rank) {
        try {
          RankExchange exchange(ranks, rank);
          add_domain(*evaluator(model_file, Precision::fp64, 1, device_word), domains[rank], nullptr, &exchange,
                     parts[rank]);
        } catch (const std::exception& error) {
          problems[rank] = error.what();
          ranks.fail();
        }
      };
      std::thread other(run, 1);
      run(0);
      other.join();
      for (const std::string& problem : problems)
        if (!problem.empty()) throw Error(problem);
      const auto add = [](std::vector<double>& to, const std::vector<double>& from) {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
      };
      add(parts[0].energies, parts[1].energies);
      add(parts[0].forces, parts[1].forces);
      add(parts[0].virial, parts[1].virial);
      add(parts[0].atom_virial, parts[1].atom_virial);
      add(parts[0].centroid_virial, parts[1].centroid_virial);
      compare(parts[0], expected, kSummation);
    }
  }
}

TEST(two_layers_with_ghosts_need_a_map_or_an_exchange) {
  const auto two = evaluator("tiny_2l.npz");
  const Crystal c = crystal(two->model());
  const Domain d = domain(c, all_atoms(c));
  Answer answer(c.n);
  CHECK_THROWS(add_domain(*two, d, nullptr, nullptr, answer), "needs an owner map or a message exchange");
  // one layer does not
  add_domain(*evaluator("tiny_1l_pairs.npz"), domain(crystal(tiny("tiny_1l_pairs.npz")), {0, 1, 2}), nullptr, nullptr,
             answer);
}

TEST(forces_and_virials_are_added_and_energies_written) {
  const auto one = evaluator("tiny_2l.npz");
  const Crystal c = crystal(one->model());
  const Domain d = domain(c, all_atoms(c));
  const std::vector<std::int32_t> owner = owner_map(d);
  const std::size_t n = d.global.size();
  std::vector<double> energies(n, 5.0), forces(3 * n, 0.0), twice(3 * n, 0.0), unused(n);
  Geometry g;
  g.n_centers = d.n_centers;
  g.n_atoms = static_cast<std::int64_t>(n);
  g.positions = d.positions.data();
  g.species = d.species.data();
  g.first = d.first.data();
  g.neighbor = d.neighbor.data();
  g.owner = owner.data();
  const std::int32_t selection[2] = {4, 1};
  g.selection = selection;
  g.n_selected = 2;
  Results r;
  r.energies = energies.data();
  r.forces = forces.data();
  one->compute(g, r);
  for (int i = 0; i < d.n_centers; ++i) CHECK((energies[i] == 5.0) == (i != 4 && i != 1));  // only what was selected
  r.energies = unused.data();
  r.forces = twice.data();
  one->compute(g, r);
  one->compute(g, r);
  for (std::size_t i = 0; i < forces.size(); ++i) CHECK_NEAR(twice[i], 2.0 * forces[i], kSummation * largest(forces));
}
