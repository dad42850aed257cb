// pair_style grace: hands the atoms of LAMMPS, and its neighbour list where the evaluator does not list neighbours
// itself, to the evaluator of csrc/grace, and energies, forces and virials back. Conversion and communication only;
// every formula is in csrc/grace.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#ifndef GRACE_PAIR_GRACE_H
#define GRACE_PAIR_GRACE_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ghost_exchange.h"
#include "grace/evaluator.hpp"
#include "pair.h"
#include "style_options.h"

namespace LAMMPS_NS {

class PairGrace : public Pair {
 public:
  explicit PairGrace(class LAMMPS *);
  ~PairGrace() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  // Energy of one atom, eV, with the neighbours of any full list; i may be a ghost. One-layer models only.
  double compute_atomic_energy(int, class NeighList *) override;
  void *extract(const char *, int &) override;
  double memory_usage() override;

  int pack_forward_comm(int n, int *atoms, double *buffer, int, int *) override {
    return exchange_.pack_forward(n, atoms, buffer);
  }
  void unpack_forward_comm(int n, int first, double *buffer) override { exchange_.unpack_forward(n, first, buffer); }
  int pack_reverse_comm(int n, int first, double *buffer) override { return exchange_.pack_reverse(n, first, buffer); }
  void unpack_reverse_comm(int n, int *atoms, double *buffer) override { exchange_.unpack_reverse(n, atoms, buffer); }

 private:
  // Rows as LAMMPS lists them (none where the evaluator lists), and the owner of each ghost: valid until the next
  // re-neighbouring.
  struct Rows {
    bigint build = -1;      // Neighbor::ncalls at the time
    bool all_owned = true;  // every owned atom has a row
    int n_centers = 0;
    std::vector<std::int64_t> first;
    std::vector<std::int32_t> neighbor;
    std::vector<std::int32_t> owner;
  };
  void allocate();
  void load(const std::string &file, int n_symbols, char **symbols);
  std::string description(const std::string &file, const std::string &sha256) const;
  void stop_everywhere_if(std::string failure) const;
  void check_launcher() const;
  void check_host() const;
  grace::Device choose_device() const;
  bool needs_lammps_list() const;
  void check_own_list() const;
  void rebuild_rows();
  void copy_rows();
  void map_types();
  double common_scale() const;
  [[noreturn]] void stop(const std::string &failure) const;
  void warn_close_contact(const grace::Results &) const;
  void add_peratom_virials(double factor);
  grace::Evaluator &atomic_evaluator();

  GraceStyleOptions options_;
  std::unique_ptr<grace::Evaluator> evaluator_;
  std::unique_ptr<grace::Evaluator> atomic_evaluator_;  // see atomic_evaluator()
  bool own_list_ = false;                               // the evaluator lists the neighbours, LAMMPS makes no list
  std::vector<char> pair_is_ours_;                      // [ntypes + 1][ntypes + 1], pairs that init_one was asked for
  double **scale_ = nullptr;                            // [ntypes + 1][ntypes + 1]
  bool uniform_list_ = false;
  mutable bool warned_contact_ = false;

  Rows rows_;
  GhostExchange exchange_;
  std::vector<std::int32_t> species_;    // [owned + ghosts], -1: type mapped to NULL
  std::vector<double> energies_;         // [centres]
  std::vector<double> scaled_forces_;    // [owned + ghosts][3], only while the scale differs from one
  std::vector<double> atom_virial_;      // [owned + ghosts][3][3]
  std::vector<double> centroid_virial_;  // [owned + ghosts][3][3]
  std::vector<double> local_positions_;  // of compute_atomic_energy
  std::vector<std::int32_t> local_species_;
  std::vector<std::int32_t> local_neighbor_;
};

}  // namespace LAMMPS_NS

#endif
