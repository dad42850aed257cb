// grace_md._core: the C++ core for Python. Arrays are NumPy in and out; the GIL is released while the core works.
#include "bindings.hpp"

#include "grace/error.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of grace_md (see csrc/grace).";
  pybind11::register_exception<grace::Error>(m, "Error", PyExc_ValueError);
  bind_neighbors(m);
  bind_model(m);
  bind_evaluator(m);
  bind_device(m);
  bind_operators(m);
  bind_row_linear(m);
  bind_snap(m);
}
