// What LAMMPS calls when it opens graceplugin.so: checks that both fit together and registers the pair style.
//
// SPDX-License-Identifier: GPL-2.0-or-later

#include <cstdlib>
#include <string>

#include "comm.h"
#include "force.h"
#include "lammps.h"
#include "pair_grace.h"
#include "plugin_abi.h"
#include "utils.h"

using namespace LAMMPS_NS;

namespace {

#define GRACE_TEXT_OF(number) #number
#define GRACE_TEXT(number) GRACE_TEXT_OF(number)

// Kept as text so that `strings graceplugin.so` tells for which LAMMPS the file is.
const char built_for[] = "LAMMPS_VERSION=" GRACE_TEXT(GRACE_LAMMPS_VERSION);

const char *built_for_number() { return built_for + sizeof("LAMMPS_VERSION=") - 1; }

void *create_pair_grace(void *lammps) {
  Pair *pair = new PairGrace(static_cast<LAMMPS *>(lammps));
  return pair;
}

bool is_set(const char *variable) {
  const char *value = std::getenv(variable);
  return value && *value && std::string(value) != "0";
}

void say(LAMMPS *lammps, const std::string &line) {
  if (lammps->comm->me == 0) utils::logmesg(lammps, line + "\n");
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lammps_pointer, void *handle,
                                                                         void *register_pointer) {
  LAMMPS *lammps = static_cast<LAMMPS *>(lammps_pointer);
  const auto register_style = reinterpret_cast<lammpsplugin_regfunc>(register_pointer);

  // Classes of LAMMPS are used directly: another version may place their members elsewhere.
  const bool same_version = std::atoi(built_for_number()) == lammps->num_ver;
  if (!same_version && !is_set("GRACE_LAMMPS_ABI_OK")) {
    say(lammps, std::string("grace: plugin was built for LAMMPS ") + built_for_number() + ", this LAMMPS is " +
                    std::to_string(lammps->num_ver) +
                    ". Install lammps[mpi]==2025.7.22.* or rebuild from lammps_plugin/ (set GRACE_LAMMPS_ABI_OK=1 to "
                    "try anyway)");
    return;
  }

  lammpsplugin_t plugin{};
  plugin.version = same_version ? lammps->version : built_for_number();
  plugin.style = "pair";
  plugin.info = "GRACE interatomic potentials, pair style grace";
  plugin.author = "The grace_md authors";
  plugin.creator.v1 = &create_pair_grace;
  plugin.handle = handle;

  plugin.name = "grace/md";
  register_style(&plugin, lammps);

  // The list of plugins belongs to the process: in a second LAMMPS the style `grace` found here may be our own.
  const auto found = lammps->force->pair_map->find("grace");
  const bool host_has_grace = found != lammps->force->pair_map->end() &&
                              reinterpret_cast<void *>(found->second) != reinterpret_cast<void *>(&create_pair_grace);
  if (host_has_grace && !is_set("GRACE_MD_OVERRIDE")) {
    say(lammps, "grace: this LAMMPS already provides pair_style grace; use pair_style grace/md for this plugin");
    return;
  }
  plugin.name = "grace";
  register_style(&plugin, lammps);
}
