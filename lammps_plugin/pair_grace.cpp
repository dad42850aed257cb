// SPDX-License-Identifier: GPL-2.0-or-later

#include "pair_grace.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

using namespace LAMMPS_NS;

namespace {

constexpr double close_contact = 0.3;  // A; no model is trained there

// LAMMPS orders the 6 (symmetric) and 9 components of a virial like this.
constexpr int row_of[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
constexpr int column_of[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};

}  // namespace

PairGrace::PairGrace(LAMMPS *lmp) : Pair(lmp), exchange_(lmp, this) {
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
}

PairGrace::~PairGrace() {
  if (copymode || !allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
  memory->destroy(cutghost);
  memory->destroy(scale_);
}

void PairGrace::allocate() {
  const int n = atom->ntypes + 1;
  allocated = 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(cutghost, n, n, "pair:cutghost");
  memory->create(scale_, n, n, "pair:scale");
  map = new int[n];
  for (int i = 0; i < n; ++i) {
    map[i] = -1;
    for (int j = 0; j < n; ++j) {
      setflag[i][j] = 0;
      cutsq[i][j] = cutghost[i][j] = 0.0;
      scale_[i][j] = 1.0;
    }
  }
}

void PairGrace::rebuild_rows() {
  rows_.build = neighbor->ncalls;
  rows_.n_centers = ghostneigh ? atom->nlocal + atom->nghost : atom->nlocal;
  if (own_list_) {
    check_own_list();
    rows_.all_owned = true;
  } else {
    copy_rows();
  }

  rows_.owner.clear();
  if (evaluator_->message_width() > 0 && comm->nprocs == 1 && !ghostneigh) {
    // On one rank every ghost is an image of an owned atom: its message is that of the owner.
    rows_.owner.resize(atom->nlocal + atom->nghost);
    for (int i = 0; i < atom->nlocal; ++i) rows_.owner[i] = i;
    exchange_.send(rows_.owner.data(), sizeof(std::int32_t));
  }
}

void PairGrace::copy_rows() {
  rows_.all_owned = list->inum == atom->nlocal;
  const int n_rows = list->inum + (ghostneigh ? list->gnum : 0);

  rows_.first.assign(rows_.n_centers + 1, 0);
  for (int k = 0; k < n_rows; ++k) rows_.first[list->ilist[k] + 1] = list->numneigh[list->ilist[k]];
  for (int i = 0; i < rows_.n_centers; ++i) rows_.first[i + 1] += rows_.first[i];
  rows_.neighbor.resize(rows_.first.back());
  for (int k = 0; k < n_rows; ++k) {
    const int i = list->ilist[k];
    std::int32_t *row = rows_.neighbor.data() + rows_.first[i];
    for (int m = 0; m < list->numneigh[i]; ++m) row[m] = list->firstneigh[i][m] & NEIGHMASK;
  }
}

void PairGrace::map_types() {
  const int n_atoms = atom->nlocal + atom->nghost;
  species_.resize(n_atoms);
  for (int i = 0; i < n_atoms; ++i) species_[i] = map[atom->type[i]];
}

void PairGrace::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const bool rebuilt = neighbor->ago == 0 || rows_.build != neighbor->ncalls;
  if (rebuilt) rebuild_rows();
  map_types();  // each time: Monte Carlo fixes change types between two neighbour lists

  const int n_atoms = atom->nlocal + atom->nghost;
  const double factor = common_scale();
  energies_.assign(rows_.n_centers, 0.0);
  if (factor != 1.0) scaled_forces_.assign(3 * static_cast<std::size_t>(n_atoms), 0.0);
  if (vflag_atom) atom_virial_.assign(9 * static_cast<std::size_t>(n_atoms), 0.0);
  if (cvflag_atom) centroid_virial_.assign(9 * static_cast<std::size_t>(n_atoms), 0.0);

  grace::Geometry geometry;
  geometry.n_centers = rows_.n_centers;
  geometry.n_atoms = n_atoms;
  geometry.positions = n_atoms ? atom->x[0] : nullptr;
  geometry.species = species_.data();
  geometry.owner = rows_.owner.empty() ? nullptr : rows_.owner.data();
  if (own_list_) {
    using Reuse = grace::NeighborRequest::Reuse;
    geometry.neighbors.reuse = rebuilt ? Reuse::rebuild : Reuse::keep;
    geometry.neighbors.skin = neighbor->skin;
  } else {
    geometry.first = rows_.first.data();
    geometry.neighbor = rows_.neighbor.data();
  }
  if (!rows_.all_owned || ghostneigh) {
    geometry.selection = list->ilist;
    geometry.n_selected = list->inum;
  }

  double total_virial[9] = {};
  grace::Results results;
  results.energies = energies_.data();
  // Never null: an evaluator without forces skips the reverse exchange, and a rank without atoms must take part in it.
  double no_atoms = 0.0;
  results.forces = n_atoms == 0 ? &no_atoms : factor != 1.0 ? scaled_forces_.data() : atom->f[0];
  results.virial = vflag_global ? total_virial : nullptr;
  results.atom_virial = vflag_atom ? atom_virial_.data() : nullptr;
  results.centroid_virial = cvflag_atom ? centroid_virial_.data() : nullptr;
  const bool exchange = evaluator_->message_width() > 0 && comm->nprocs > 1 && !ghostneigh;
  try {
    evaluator_->compute(geometry, results, exchange ? &exchange_ : nullptr);
  } catch (const std::exception &failure) {
    stop(failure.what());
  }
  warn_close_contact(results);

  if (factor != 1.0)
    for (int i = 0; i < n_atoms; ++i)
      for (int a = 0; a < 3; ++a) atom->f[i][a] += factor * scaled_forces_[3 * i + a];
  const int n_energies = own_list_ ? atom->nlocal : list->inum;
  for (int k = 0; k < n_energies; ++k) {
    const int i = own_list_ ? k : list->ilist[k];  // zero for an atom mapped to NULL
    if (eflag_global) eng_vdwl += factor * energies_[i];
    if (eflag_atom) eatom[i] += factor * energies_[i];
  }
  if (vflag_global)
    for (int c = 0; c < 6; ++c) virial[c] += factor * total_virial[3 * row_of[c] + column_of[c]];
  add_peratom_virials(factor);
}

void PairGrace::add_peratom_virials(double factor) {
  const int n_atoms = atom->nlocal + atom->nghost;
  for (int i = 0; i < n_atoms; ++i) {
    if (vflag_atom)
      for (int c = 0; c < 6; ++c) vatom[i][c] += factor * atom_virial_[9 * i + 3 * row_of[c] + column_of[c]];
    if (cvflag_atom)
      for (int c = 0; c < 9; ++c) cvatom[i][c] += factor * centroid_virial_[9 * i + 3 * row_of[c] + column_of[c]];
  }
}

// A GPU would wait for one atom at a time, thousands of times per Monte Carlo step: single atoms are evaluated on the
// CPU, in double precision.
grace::Evaluator &PairGrace::atomic_evaluator() {
  if (!evaluator_->lists_neighbors()) return *evaluator_;
  if (!atomic_evaluator_) {
    grace::EvaluatorOptions options = options_.evaluator;
    options.device = {grace::DeviceKind::cpu, 0};
    options.precision = grace::Precision::fp64;
    options.n_threads = 1;
    atomic_evaluator_ = grace::make_evaluator(evaluator_->model(), options);
  }
  return *atomic_evaluator_;
}

double PairGrace::compute_atomic_energy(int i, NeighList *neighbours) {
  if (!atomic_energy_enable)
    error->one(FLERR,
               "grace: energies of single atoms are not available for two-layer models, whose atoms also depend on "
               "neighbours of neighbours; use 'atomic/energy no'");
  if (i >= atom->nlocal) {
    const double needed = 2.0 * evaluator_->model().max_cutoff + neighbor->skin, found = comm->get_comm_cutoff();
    if (!(found >= needed)) {
      const std::string x = std::to_string(needed);
      error->one(FLERR, "grace: local MC energies need a communication cutoff of " + x + " A, found " +
                            std::to_string(found) + "; add 'comm_modify cutoff " + x + "'");
    }
  }
  const int n = neighbours->numneigh[i];
  local_positions_.resize(3 * (n + 1));
  local_species_.resize(n + 1);
  local_neighbor_.resize(n);
  for (int k = 0; k <= n; ++k) {
    const int j = k == 0 ? i : neighbours->firstneigh[i][k - 1] & NEIGHMASK;
    std::copy_n(atom->x[j], 3, local_positions_.data() + 3 * k);
    local_species_[k] = map[atom->type[j]];
    if (k > 0) local_neighbor_[k - 1] = k;
  }
  if (local_species_[0] < 0) return 0.0;

  const std::int64_t first[2] = {0, n};
  double energy = 0.0;
  grace::Geometry geometry;
  geometry.n_centers = 1;
  geometry.n_atoms = n + 1;
  geometry.positions = local_positions_.data();
  geometry.species = local_species_.data();
  geometry.first = first;
  geometry.neighbor = local_neighbor_.data();
  grace::Results results;
  results.energies = &energy;
  try {
    atomic_evaluator().compute(geometry, results);
  } catch (const std::exception &failure) {
    stop(failure.what());
  }
  return common_scale() * energy;
}

// One rank may fail alone. The evaluator knows atoms by their place in memory: users know IDs.
void PairGrace::stop(const std::string &failure) const {
  for (int i = 0; i < atom->nlocal + atom->nghost; ++i)
    for (int a = 0; a < 3; ++a)
      if (!std::isfinite(atom->x[i][a]))
        error->one(FLERR, "grace: position of the atom with ID " + std::to_string(atom->tag[i]) +
                              " is not finite; check the time step and the starting structure");
  error->one(FLERR, "grace: " + failure);
}

void *PairGrace::extract(const char *name, int &dim) {
  dim = 2;
  return std::strcmp(name, "scale") == 0 ? scale_ : nullptr;
}

// A many-body energy cannot be scaled pair by pair: only a common factor has a meaning.
double PairGrace::common_scale() const {
  double factor = 0.0;
  bool found = false;
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j) {
      if (map[i] < 0 || map[j] < 0) continue;
      if (found && scale_[i][j] != factor)
        error->all(FLERR, "grace: scale must be the same for all pairs of types, found " + std::to_string(factor) +
                              " and " + std::to_string(scale_[i][j]) + "; use '* *' as types of fix adapt");
      factor = scale_[i][j];
      found = true;
    }
  return found ? factor : 1.0;
}

void PairGrace::warn_close_contact(const grace::Results &results) const {
  if (warned_contact_ || !(results.closest_distance < close_contact)) return;
  warned_contact_ = true;
  error->warning(FLERR, "grace: atoms " + std::to_string(atom->tag[results.closest_pair[0]]) + " and " +
                            std::to_string(atom->tag[results.closest_pair[1]]) + " are " +
                            std::to_string(results.closest_distance) +
                            " A apart; no model is valid there (further contacts are not reported)");
}

double PairGrace::memory_usage() {
  const auto bytes = [](const auto &v) { return static_cast<double>(v.capacity() * sizeof(v[0])); };
  double evaluators = 0.0;
  for (const auto *evaluator : {evaluator_.get(), atomic_evaluator_.get()})
    if (evaluator) evaluators += static_cast<double>(evaluator->workspace_bytes());
  return Pair::memory_usage() + evaluators + bytes(rows_.first) + bytes(rows_.neighbor) + bytes(rows_.owner) +
         bytes(species_) + bytes(energies_) + bytes(scaled_forces_) + bytes(atom_virial_) + bytes(centroid_virial_);
}
