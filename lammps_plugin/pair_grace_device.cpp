// pair_style grace, the part that depends on where the evaluator runs: which GPU a rank takes, and who lists the
// neighbours.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#include <mpi.h>

#include <array>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "grace/device/cuda_probe.hpp"
#include "grace/error.hpp"
#include "modify.h"
#include "neighbor.h"
#include "pair_grace.h"
#include "universe.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {

// Fixes that exclude atoms from the neighbour lists, and say so only after the pair styles were initialised.
const char *const excluding_fixes[] = {"^gcmc", "^widom", "^charge/regulation"};

// The ranks of this LAMMPS on one machine.
class Node {
 public:
  explicit Node(MPI_Comm world) {
#if defined(MPI_VERSION) && MPI_VERSION >= 3  // not the stubs of a LAMMPS without MPI
    int rank = 0;
    MPI_Comm_rank(world, &rank);
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &ranks_);
    MPI_Comm_rank(ranks_, &rank_);
    MPI_Comm_size(ranks_, &size_);
#else
    (void)world;
#endif
  }
  ~Node() {
#if defined(MPI_VERSION) && MPI_VERSION >= 3
    MPI_Comm_free(&ranks_);
#endif
  }
  Node(const Node &) = delete;
  Node &operator=(const Node &) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // The short words of all ranks.
  std::vector<std::string> gather(const std::string &mine) const {
    std::array<char, 32> word{};
    mine.copy(word.data(), word.size() - 1);
    std::vector<std::array<char, 32>> all(size_, word);
#if defined(MPI_VERSION) && MPI_VERSION >= 3
    MPI_Allgather(word.data(), word.size(), MPI_CHAR, all.data(), word.size(), MPI_CHAR, ranks_);
#endif
    std::vector<std::string> words;
    for (const std::array<char, 32> &one : all) words.emplace_back(one.data());
    return words;
  }

 private:
#if defined(MPI_VERSION) && MPI_VERSION >= 3
  MPI_Comm ranks_ = MPI_COMM_NULL;
#endif
  int rank_ = 0, size_ = 1;
};

// The environment variable stands for `device auto` only, and may name a GPU.
bool environment_names_gpu() {
  const char *word = std::getenv("GRACE_MD_DEVICE");
  return word != nullptr && std::string(word).find_first_of("0123456789") != std::string::npos;
}

std::vector<int> usable_gpus() {
  const grace::device::CudaProbe &probe = grace::device::cuda_probe();
  std::vector<int> usable;
  for (int k = 0; k < probe.facts.n_devices; ++k)
    if (grace::device::cuda_obstacle(probe.facts, k).empty()) usable.push_back(k);
  return usable;
}

std::string gpu_place(int index) {
  const std::vector<std::string> &places = grace::device::cuda_probe().places;
  return index < static_cast<int>(places.size()) ? places[index] : "";
}

}  // namespace

// Called by all ranks. Ranks of a node take its GPUs in turn unless the input names one.
grace::Device PairGrace::choose_device() const {
  grace::Device device;
  std::string failure;
  try {
    device = grace::resolve_device(options_.evaluator.device);
  } catch (const grace::Error &refusal) {
    failure = refusal.what();
  }
  stop_everywhere_if(failure);
  // Ranks that exchange messages must agree on their precision, which follows from the kind of device.
  const int kind = static_cast<int>(device.kind), mine[2] = {kind, -kind};
  int largest[2] = {kind, -kind};
  MPI_Allreduce(mine, largest, 2, MPI_INT, MPI_MAX, world);
  if (largest[0] != -largest[1])
    error->all(FLERR, "grace: device auto finds a usable GPU on some ranks only; say 'device cuda' or 'device cpu'");

  const Node node(world);
  const bool is_gpu = device.kind == grace::DeviceKind::cuda;
  if (is_gpu) {
    const std::vector<int> gpus = usable_gpus();
    const bool is_automatic = options_.evaluator.device.kind == grace::DeviceKind::automatic;
    if (!gpus.empty() && options_.any_gpu && !(is_automatic && environment_names_gpu())) {
      // Partitions follow one another on a node.
      const int place = node.rank() + universe->iworld * node.size();
      device.index = gpus[place % gpus.size()];
    }
  }
  // By their places: each rank may have a CUDA_VISIBLE_DEVICES of its own.
  std::map<std::string, int> ranks_on;
  for (const std::string &place : node.gather(is_gpu ? gpu_place(device.index) : "")) ++ranks_on[place];
  if (comm->me == 0)
    for (const auto &[place, ranks] : ranks_on)
      if (!place.empty() && ranks > 1)
        utils::logmesg(lmp, "grace: " + std::to_string(ranks) + " ranks share the GPU at " + place + "\n");
  return device;
}

// Whether LAMMPS must list the neighbours: the evaluator cannot, or they are not simply all atoms within the cutoff.
bool PairGrace::needs_lammps_list() const {
  if (!evaluator_->lists_neighbors() || options_.lammps_list || ghostneigh) return true;
  for (const char *style : excluding_fixes)
    if (!modify->get_fix_by_style(style).empty()) return true;
  return neighbor->nex_type > 0 || neighbor->nex_group > 0 || neighbor->nex_mol > 0;
}

// What a list of all atoms within the cutoff would get wrong, and what is only known after the initialisation.
void PairGrace::check_own_list() const {
  const char *const remedy = "; add the keyword 'neighbors lammps' to pair_style grace";
  if (neighbor->nex_type > 0 || neighbor->nex_group > 0 || neighbor->nex_mol > 0)
    error->all(FLERR, std::string("grace: a fix excludes atoms from the neighbour lists") + remedy);
  if (force->pair == this) return;
  const int n = atom->ntypes;
  for (int i = 1; i <= n; ++i)
    for (int j = i; j <= n; ++j)
      if (map[i] >= 0 && map[j] >= 0 && !pair_is_ours_[i * (n + 1) + j])
        error->all(FLERR, "grace: pair_style hybrid gives pairs of the types " + std::to_string(i) + " and " +
                              std::to_string(j) + " to another style only" + remedy);
}
