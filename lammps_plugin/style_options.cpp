// SPDX-License-Identifier: GPL-2.0-or-later

#include "style_options.h"

#include <cstdlib>

#include "grace/error.hpp"

namespace {

const char known_keywords[] =
    "precision auto|fp64|mixed|fp32, radial table|exact, device auto|cpu|cuda|N, deterministic yes|no, threads N, "
    "chunksize N, neighbors auto|lammps, listcut uniform, ghost2rc (accepted without effect: padding f, pad_verbose, "
    "pair_forces)";

int positive_integer(const std::string &keyword, const std::string &word) {
  char *end = nullptr;
  const long value = std::strtol(word.c_str(), &end, 10);
  grace::require(!word.empty() && *end == '\0' && value > 0 && value <= 1000000000L, "`", keyword,
                 "` must be a positive integer, got '", word, "'");
  return static_cast<int>(value);
}

// True for the first word, false for the second.
bool choice(const std::string &keyword, const std::string &word, const std::string &first, const std::string &second) {
  grace::require(word == first || word == second, "`", keyword, "` must be '", first, "' or '", second, "', got '",
                 word, "'");
  return word == first;
}

}  // namespace

GraceStyleOptions parse_style_options(int narg, char **arg) {
  GraceStyleOptions options;
  for (int k = 0; k < narg; ++k) {
    const std::string keyword = arg[k];
    const auto value = [&]() -> std::string {
      grace::require(k + 1 < narg, "keyword '", keyword, "' needs a value; known keywords: ", known_keywords);
      return arg[++k];
    };
    const auto without_effect = [&](const char *reason) {
      options.notes.push_back("keyword '" + keyword + "' is accepted without effect: " + reason);
    };
    if (keyword == "precision") {
      options.evaluator.precision = grace::parse_precision(value());
    } else if (keyword == "radial") {
      // "table" is the name of a pair style: pair_style hybrid would cut its line there.
      const std::string word = value();
      options.evaluator.radial = grace::parse_radial_mode(word == "tabulated" ? "table" : word);
    } else if (keyword == "device") {
      const std::string word = value();
      options.evaluator.device = grace::parse_device(word);
      options.any_gpu = word == "auto" || word == "cuda";
    } else if (keyword == "deterministic") {
      options.evaluator.deterministic = choice(keyword, value(), "yes", "no");
    } else if (keyword == "neighbors") {
      options.lammps_list = choice(keyword, value(), "lammps", "auto");
    } else if (keyword == "threads") {
      options.evaluator.n_threads = positive_integer(keyword, value());
      options.threads_given = true;
    } else if (keyword == "chunksize") {
      options.evaluator.chunk = positive_integer(keyword, value());
    } else if (keyword == "listcut") {
      const std::string word = value();
      grace::require(word == "uniform", "`listcut` must be 'uniform', got '", word, "'");
      options.uniform_list = true;
    } else if (keyword == "ghost2rc") {
      options.ghost_messages = true;
    } else if (keyword == "padding") {
      value();
      without_effect("nothing is padded here");
    } else if (keyword == "pad_verbose") {
      without_effect("nothing is padded here");
    } else if (keyword == "pair_forces") {
      without_effect("pair forces and per-atom virials are always available");
    } else {
      throw grace::Error("unknown keyword '" + keyword + "'; known keywords: " + known_keywords);
    }
  }
  return options;
}
