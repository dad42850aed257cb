// pair_style grace, the part before a run: words of the input file, the model, and what LAMMPS must provide.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#include <dlfcn.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <thread>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "grace/error.hpp"
#include "modify.h"
#include "neighbor.h"
#include "pair_grace.h"
#include "update.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {

// Fixes that change types or insert atoms.
const char *const monte_carlo_fixes[] = {"^sgcmc",         "^atom/swap", "^gcmc", "^mol/swap",
                                         "^neighbor/swap", "^widom",     "^hmc"};

int processes_of_the_run() {
  int n = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &n);
  return n;
}

// All cores for a single process unless the user says otherwise; several ranks share the cores already.
int default_threads(int lammps_threads) {
  if (std::getenv("OMP_NUM_THREADS") || lammps_threads > 1 || processes_of_the_run() > 1) return lammps_threads;
  return std::max(1u, std::thread::hardware_concurrency());
}

// bin/mpirun beside the lib/ of the MPI library in use, if it is there.
std::string matching_mpirun() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void *>(&MPI_Comm_size), &info) || !info.dli_fname) return "mpirun";
  std::error_code ignored;
  const std::filesystem::path library = std::filesystem::canonical(info.dli_fname, ignored);
  const std::filesystem::path mpirun = library.parent_path().parent_path() / "bin" / "mpirun";
  return access(mpirun.c_str(), X_OK) == 0 ? mpirun.string() : "mpirun of " + std::string(info.dli_fname);
}

// load_model names the unknown element; only here its atom type is known.
std::string explain_unknown_element(const grace::NpzFile &file, int narg, char **symbols) {
  const std::vector<std::string> known = grace::load_model(file).file_elements;
  for (int type = 1; type <= narg; ++type) {
    const std::string symbol = symbols[type - 1];
    if (symbol == "NULL" || std::find(known.begin(), known.end(), symbol) != known.end()) continue;
    std::string text =
        "element '" + symbol + "' of type " + std::to_string(type) + " is not in " + file.name() + "; the model knows:";
    for (const std::string &element : known) text += " " + element;
    return text;
  }
  return "";
}

}  // namespace

void PairGrace::settings(int narg, char **arg) {
  try {
    options_ = parse_style_options(narg, arg);
  } catch (const grace::Error &failure) {
    error->all(FLERR, std::string("grace: ") + failure.what());
  }
  if (!options_.threads_given) options_.evaluator.n_threads = default_threads(comm->nthreads);
  ghostneigh = options_.ghost_messages ? 1 : 0;
  if (comm->me == 0)
    for (const std::string &note : options_.notes) utils::logmesg(lmp, "grace: " + note + "\n");
  // A second pair_style with other words reaches the same object: it needs its pair_coeff again.
  evaluator_.reset();
  atomic_evaluator_.reset();
  if (allocated)
    for (int i = 0; i <= atom->ntypes; ++i) std::fill_n(setflag[i], atom->ntypes + 1, 0);
}

void PairGrace::coeff(int narg, char **arg) {
  if (!allocated) allocate();
  if (narg < 4 || std::strcmp(arg[0], "*") != 0 || std::strcmp(arg[1], "*") != 0)
    error->all(FLERR, "grace: pair_coeff needs '* *', a model file and one element (or NULL) per atom type");
  if (narg - 3 != atom->ntypes)
    error->all(FLERR, "grace: pair_coeff gives " + std::to_string(narg - 3) + " elements for " +
                          std::to_string(atom->ntypes) + " atom types");
  map_element2type(narg - 3, arg + 3);  // map, elements (each once), setflag
  load(arg[2], narg - 3, arg + 3);
}

void PairGrace::load(const std::string &name, int n_symbols, char **symbols) {
  grace::EvaluatorOptions options = options_.evaluator;
  options.device = choose_device();
  std::string failure, sha256;
  atomic_evaluator_.reset();
  try {
    const std::string found = utils::get_potential_file_path(name);
    const grace::NpzFile file(found.empty() ? name : found);
    try {
      sha256 = file.sha256();
      grace::ModelSpec model = grace::load_model(file, std::vector<std::string>(elements, elements + nelements));
      evaluator_ = grace::make_evaluator(std::move(model), options);
    } catch (const grace::Error &) {
      failure = explain_unknown_element(file, n_symbols, symbols);
      if (failure.empty()) throw;
    }
  } catch (const std::exception &exception) {
    failure = exception.what();
    if (failure.empty()) failure = "cannot load " + name;
  }
  stop_everywhere_if(failure);
  atomic_energy_enable = evaluator_->model().n_layers == 1;
  if (comm->me == 0) utils::logmesg(lmp, description(name, sha256));
}

// A rank that fails alone would leave the others waiting: the first failure is told to all.
void PairGrace::stop_everywhere_if(std::string failure) const {
  const int mine = failure.empty() ? comm->nprocs : comm->me;
  int first = mine;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  int length = static_cast<int>(failure.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  failure.resize(length);
  MPI_Bcast(&failure[0], length, MPI_CHAR, first, world);
  error->all(FLERR, "grace: " + failure);
}

std::string PairGrace::description(const std::string &file, const std::string &sha256) const {
  const grace::ModelSpec &model = evaluator_->model();
  std::string text = "grace: " + file + ", SHA-256 " + sha256 + "\n";
  text += "grace: " + std::to_string(model.n_layers) + (model.n_layers == 1 ? " layer, " : " layers, ") +
          std::to_string(model.n_parameters) + " parameters; types:";
  for (int type = 1; type <= atom->ntypes; ++type)
    text += " " + std::to_string(type) + "=" + (map[type] < 0 ? "NULL" : model.elements[map[type]]);
  const auto range = std::minmax_element(model.pair_cutoffs.begin(), model.pair_cutoffs.end());
  char cutoffs[80];
  std::snprintf(cutoffs, sizeof(cutoffs),
                *range.first < *range.second ? "; pair cutoffs %.4g to %.4g A\n" : "; cutoff %.4g A\n", *range.first,
                *range.second);
  text += cutoffs;
  text += "grace: " + evaluator_->description() + "\n";
  if (!model.unused_keys.empty())
    text += "grace: " + std::to_string(model.unused_keys.size()) +
            " uncertainty arrays (uq_*) of the file are not evaluated\n";
  return text;
}

void PairGrace::init_style() {
  check_host();
  check_launcher();
  uniform_list_ = options_.uniform_list;
  for (const char *style : monte_carlo_fixes)
    // A list trimmed by type pairs would lack neighbours of an atom that became an element of larger cutoff.
    if (!modify->get_fix_by_style(style).empty()) uniform_list_ = true;

  const double cutoff = evaluator_->model().max_cutoff;
  const int width = ghostneigh ? 0 : evaluator_->message_width();
  comm_forward = width == 0 ? 0 : comm->nprocs > 1 ? width : 1;
  comm_reverse = comm->nprocs > 1 ? width : 0;
  if (ghostneigh) comm->cutghostuser = std::max(comm->cutghostuser, 2.0 * cutoff + neighbor->skin);
  if (force->pair != this) {
    // pair_style hybrid asked for these sizes before the model was known; LAMMPS sizes its buffers after this function.
    force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
    force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
  }
  own_list_ = !needs_lammps_list();
  if (!own_list_) neighbor->add_request(this, NeighConst::REQ_FULL | (ghostneigh ? NeighConst::REQ_GHOST : 0));
  rows_.build = -1;
  pair_is_ours_.assign((atom->ntypes + 1) * (atom->ntypes + 1), 0);
}

void PairGrace::check_host() const {
  const auto unsupported = [this](const std::string &feature) {
    error->all(FLERR, "grace: " + feature + " is not supported with pair_style grace");
  };
  if (std::strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, std::string("grace: units metal is required, found ") + update->unit_style);
  if (!force->newton_pair)
    error->all(FLERR, "grace: newton on is required (add 'newton on' before the box is defined)");
  if (!atom->tag_enable) error->all(FLERR, "grace: atom IDs are required (use 'atom_modify id yes')");
  if (utils::strmatch(update->integrate_style, "^respa")) unsupported("run_style respa");
  if (neighbor->includegroup) unsupported("neigh_modify include");
  const bool plain = force->special_lj[1] == 1.0 && force->special_lj[2] == 1.0 && force->special_lj[3] == 1.0;
  if (atom->molecular != Atom::ATOMIC && atom->nbonds > 0 && !plain)
    unsupported("special_bonds other than 'lj/coul 1 1 1'");
  if (ghostneigh && comm->mode != Comm::SINGLE) unsupported("keyword ghost2rc together with comm_modify mode multi");
}

// An mpirun of another MPI starts independent processes that all do the same work.
void PairGrace::check_launcher() const {
  if (processes_of_the_run() > 1 || comm->me != 0) return;
  for (const char *variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char *started = std::getenv(variable);
    if (!started || std::atoi(started) <= 1) continue;
    error->warning(FLERR, std::string("grace: LAMMPS sees 1 process but the launcher started ") + started +
                              "; use the mpirun of the mpich wheel: " + matching_mpirun());
    return;
  }
}

double PairGrace::init_one(int i, int j) {
  if (!evaluator_ || map[i] < 0 || map[j] < 0) error->all(FLERR, "grace: pair_coeff is not set for all atom types");
  const grace::ModelSpec &model = evaluator_->model();
  const int n = model.n_elements();
  const double cutoff = std::max(model.pair_cutoffs[map[i] * n + map[j]], model.pair_cutoffs[map[j] * n + map[i]]);
  pair_is_ours_[i * (atom->ntypes + 1) + j] = 1;
  scale_[j][i] = scale_[i][j];
  cutghost[i][j] = cutghost[j][i] = model.max_cutoff;
  return uniform_list_ ? model.max_cutoff : cutoff;
}
