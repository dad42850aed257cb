// Words after `pair_style grace`.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#ifndef GRACE_STYLE_OPTIONS_H
#define GRACE_STYLE_OPTIONS_H

#include <string>
#include <vector>

#include "grace/evaluator.hpp"

struct GraceStyleOptions {
  grace::EvaluatorOptions evaluator;
  bool threads_given = false;
  bool any_gpu = true;          // the words name no GPU: ranks of a node take turns
  bool lammps_list = false;     // neighbors lammps: also where the evaluator could list the neighbours itself
  bool uniform_list = false;    // listcut uniform: one list cutoff for all type pairs
  bool ghost_messages = false;  // ghost2rc: two-layer models recompute the messages of ghosts instead of communicating
  std::vector<std::string> notes;  // one line per keyword that is accepted only so that input files of other builds run
};

// Throws grace::Error naming the word.
GraceStyleOptions parse_style_options(int narg, char **arg);

#endif
