// The parts of grace_md._core; each is defined in the file of its name, and core.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

void bind_neighbors(pybind11::module_& m);
void bind_model(pybind11::module_& m);
void bind_evaluator(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_operators(pybind11::module_& m);
void bind_row_linear(pybind11::module_& m);
void bind_snap(pybind11::module_& m);
