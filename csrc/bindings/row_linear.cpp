// grace_md._core: the row linear maps of csrc/grace/operators; arrays are addresses, as in operators.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/operators/operators.hpp"

namespace py = pybind11;

namespace {

using grace::ops::Index;
using Address = std::uintptr_t;
using Runs = std::tuple<Index, Index, Address, Address>;                         // n_atoms, n_runs, order, run_first
using Part = std::tuple<Index, Address, Index, Index, Index, Address, Address>;  // n_terms, terms, n_sources, n_groups,
                                                                                 // n_in, inputs, matrices

grace::ops::RowRuns make_runs(const Runs& runs) {
  return {std::get<0>(runs), std::get<1>(runs), reinterpret_cast<const Index*>(std::get<2>(runs)),
          reinterpret_cast<const Index*>(std::get<3>(runs))};
}

template <class Real>
grace::ops::RowPart<Real> make_part(const Part& part) {
  grace::ops::RowPart<Real> out;
  out.rows.n_terms = std::get<0>(part);
  out.rows.terms = reinterpret_cast<const std::int32_t*>(std::get<1>(part));
  out.rows.n_sources = std::get<2>(part);
  out.rows.n_groups = std::get<3>(part);
  out.n_in = std::get<4>(part);
  out.inputs = reinterpret_cast<const Real*>(std::get<5>(part));
  out.matrices = reinterpret_cast<const Real*>(std::get<6>(part));
  return out;
}

template <class Real>
void run(int slot, const Runs& runs, Index n_targets, Index n_out, const std::vector<Part>& parts, Address gradient,
         Address out, int n_threads) {
  std::vector<grace::ops::RowPart<Real>> list;
  for (const Part& part : parts) list.push_back(make_part<Real>(part));
  Real* const result = reinterpret_cast<Real*>(out);
  const Real* const given = reinterpret_cast<const Real*>(gradient);
  if (slot == 0)
    grace::ops::row_linear(make_runs(runs), n_targets, n_out, static_cast<Index>(list.size()), list.data(), result,
                           n_threads);
  else if (slot == 1)
    grace::ops::row_linear_inputs(make_runs(runs), n_targets, n_out, list.at(0), given, result, n_threads);
  else
    grace::ops::row_linear_matrices(make_runs(runs), n_targets, n_out, list.at(0), given, result, n_threads);
}

void row_linear(int slot, bool is_double, const Runs& runs, Index n_targets, Index n_out,
                const std::vector<Part>& parts, Address gradient, Address out, int n_threads) {
  grace::require(slot >= 0 && slot < 3, "`slot` must be 0 .. 2, got ", slot);
  grace::require(slot == 0 || parts.size() == 1, "slot ", slot, " has one part, got ", parts.size());
  py::gil_scoped_release release;
  if (is_double)
    run<double>(slot, runs, n_targets, n_out, parts, gradient, out, n_threads);
  else
    run<float>(slot, runs, n_targets, n_out, parts, gradient, out, n_threads);
}

}  // namespace

void bind_row_linear(py::module_& m) {
  m.def("row_linear", &row_linear, py::arg("slot"), py::arg("is_double"), py::arg("runs"), py::arg("n_targets"),
        py::arg("n_out"), py::arg("parts"), py::arg("gradient"), py::arg("out"), py::arg("n_threads"),
        "One slot (0 O, 1 X, 2 M) of sum O[a, w] . X[a, s] M[e, g] (operators.hpp). runs: n_atoms, n_runs, order,\n"
        "run_first; parts: n_terms, terms, n_sources, n_groups, n_in, inputs, matrices; addresses.");
}
