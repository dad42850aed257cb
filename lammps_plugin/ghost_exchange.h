// Messages of two-layer models between MPI ranks: forward copies rows of owned atoms to their ghosts, reverse adds rows
// of ghosts to their owners. LAMMPS moves the data and calls pack/unpack of the pair style, which hands the calls on to
// here.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#ifndef GRACE_GHOST_EXCHANGE_H
#define GRACE_GHOST_EXCHANGE_H

#include <cstddef>

#include "grace/evaluator.hpp"
#include "lammps.h"
#include "pair.h"

class GhostExchange final : public grace::MessageExchange {
 public:
  GhostExchange(LAMMPS_NS::LAMMPS *lammps, LAMMPS_NS::Pair *pair) : lammps_(lammps), pair_(pair) {}

  // Rows are [owned + ghosts][width]; Pair::comm_forward and comm_reverse must be at least `width`.
  void forward(double *rows, int width) override { send(rows, width * sizeof(double)); }
  void forward(float *rows, int width) override { send(rows, width * sizeof(float)); }
  void reverse(double *rows, int width) override { add(rows, width * sizeof(double), false); }
  void reverse(float *rows, int width) override { add(rows, width * sizeof(float), true); }

  // Copies rows of any type, `bytes` bytes each, from owned atoms to ghosts.
  void send(void *rows, std::size_t bytes);

  int pack_forward(int n, const int *atoms, double *buffer) const;
  void unpack_forward(int n, int first, const double *buffer) const;
  int pack_reverse(int n, int first, double *buffer) const;
  void unpack_reverse(int n, const int *atoms, const double *buffer) const;

 private:
  void add(void *rows, std::size_t bytes, bool single);
  void start(void *rows, std::size_t bytes, bool single);
  void load(double *slot, int atom) const;

  LAMMPS_NS::LAMMPS *lammps_;
  LAMMPS_NS::Pair *pair_;
  char *rows_ = nullptr;
  std::size_t bytes_ = 0;  // of one row
  int slots_ = 0;          // doubles that carry one row: floats travel two by two, bit by bit
  bool single_ = false;    // rows are float; matters where they are added
};

#endif
