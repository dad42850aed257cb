// grace_md._core: SnapKernel.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/snap/snap.hpp"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

void check_shape(const py::array& array, const char* name, std::initializer_list<py::ssize_t> shape) {
  bool good = array.ndim() == static_cast<py::ssize_t>(shape.size());
  std::string wanted, got;
  py::ssize_t axis = 0;
  for (py::ssize_t size : shape) {
    good = good && array.shape(axis) == size;
    wanted += (axis++ > 0 ? ", " : "") + std::to_string(size);
  }
  for (py::ssize_t k = 0; k < array.ndim(); ++k) got += (k > 0 ? ", " : "") + std::to_string(array.shape(k));
  grace::require(good, "`", name, "` must have shape [", wanted, "], got [", got, "]");
}

// Structures one after another, checked against each other; refers to the arrays that it is made of.
grace::StructureBatch batch_of(const Array<double>& positions, const Array<double>& cells, const Array<bool>& periodic,
                               const Array<std::int64_t>& first_atom, const Array<double>& cutoffs) {
  grace::require(first_atom.ndim() == 1 && first_atom.shape(0) >= 1,
                 "`first_atom` must have shape [n_structures + 1] and start with 0");
  const py::ssize_t n_structures = first_atom.shape(0) - 1, n_atoms = first_atom.at(n_structures);
  check_shape(positions, "positions", {n_atoms, 3});
  check_shape(cells, "cells", {n_structures, 3, 3});
  check_shape(periodic, "periodic", {n_structures, 3});
  check_shape(cutoffs, "cutoffs", {n_atoms});
  grace::StructureBatch batch;
  batch.n_structures = static_cast<int>(n_structures);
  batch.first_atom = first_atom.data();
  batch.positions = positions.data();
  batch.cells = cells.data();
  batch.periodic = periodic.data();
  return batch;
}

grace::snap::CutoffRule rule_of(bool pair_rule) {
  return pair_rule ? grace::snap::CutoffRule::pair : grace::snap::CutoffRule::centre;
}

py::array_t<double> descriptors(grace::snap::Snap& snap, const Array<double>& positions, const Array<double>& cells,
                                const Array<bool>& periodic, const Array<std::int64_t>& first_atom,
                                const Array<double>& cutoffs, bool pair_rule, int n_threads) {
  const auto batch = batch_of(positions, cells, periodic, first_atom, cutoffs);
  py::array_t<double> out({positions.shape(0), static_cast<py::ssize_t>(snap.n_features())});
  double* const features = out.mutable_data();
  const double* const radii = cutoffs.data();
  py::gil_scoped_release release;
  snap.descriptors(batch, radii, rule_of(pair_rule), features, n_threads);
  return out;
}

py::tuple cutoff_pairs(const Array<double>& positions, const Array<double>& cells, const Array<bool>& periodic,
                       const Array<std::int64_t>& first_atom, const Array<double>& cutoffs, bool pair_rule,
                       int n_threads) {
  const auto batch = batch_of(positions, cells, periodic, first_atom, cutoffs);
  std::vector<grace::snap::PairRows> rows;
  {
    const double* const radii = cutoffs.data();
    py::gil_scoped_release release;
    grace::snap::find_all_pairs(batch, radii, rule_of(pair_rule), 0.0, rows, n_threads);
  }
  py::ssize_t n_pairs = 0;
  for (const auto& structure : rows) n_pairs += static_cast<py::ssize_t>(structure.pairs.size());
  py::array_t<std::int64_t> first(positions.shape(0) + 1), neighbor(n_pairs);
  py::array_t<double> vector({n_pairs, py::ssize_t{3}}), cutoff(n_pairs);
  std::int64_t *f = first.mutable_data(), *j = neighbor.mutable_data();
  double *r = vector.mutable_data(), *rc = cutoff.mutable_data();
  *f = 0;
  for (const auto& structure : rows) {
    for (std::size_t i = 0; i + 1 < structure.first.size(); ++i, ++f)
      f[1] = f[0] + structure.first[i + 1] - structure.first[i];
    for (const auto& pair : structure.pairs) {
      *j++ = pair.neighbor;
      *rc++ = pair.cutoff;
      for (int x = 0; x < 3; ++x) *r++ = pair.length * pair.direction[x];
    }
  }
  return py::make_tuple(std::move(first), std::move(neighbor), std::move(vector), std::move(cutoff));
}

py::tuple gradients(grace::snap::Snap& snap, const Array<double>& beta, int n_threads) {
  const auto n_atoms = static_cast<py::ssize_t>(snap.n_atoms());
  check_shape(beta, "beta", {n_atoms, static_cast<py::ssize_t>(snap.n_features())});
  py::array_t<double> positions({n_atoms, py::ssize_t{3}});
  py::array_t<double> strain({static_cast<py::ssize_t>(snap.n_structures()), py::ssize_t{3}, py::ssize_t{3}});
  double *const dx = positions.mutable_data(), *const de = strain.mutable_data();
  {
    const double* const weights = beta.data();
    py::gil_scoped_release release;
    snap.gradients(weights, dx, de, n_threads);
  }
  return py::make_tuple(std::move(positions), std::move(strain));
}

py::list profile(grace::snap::Snap& snap) {
  py::list out;
  for (const grace::KernelTime& kernel : snap.profile())
    out.append(py::make_tuple(kernel.name, kernel.launches, kernel.seconds));
  return out;
}

}  // namespace

void bind_snap(py::module_& m) {
  using grace::snap::Snap;
  py::class_<Snap>(
      m, "SnapKernel",
      "SNAP bispectrum components of atoms with a cutoff radius each, and their adjoint. One object serves "
      "one thread at a time.")
      .def(py::init([](int twojmax, double rfac0, double rmin0, const std::string& device) {
             const grace::snap::SnapOptions options{twojmax, rfac0, rmin0, grace::parse_device(device)};
             py::gil_scoped_release release;  // starting a GPU takes a while
             return grace::snap::make_snap(options);
           }),
           py::arg("twojmax") = 8, py::arg("rfac0") = 0.99363, py::arg("rmin0") = 0.0, py::arg("device") = "cpu")
      .def_property_readonly("twojmax", &Snap::twojmax)
      .def_property_readonly("n_features", &Snap::n_features, "55 for twojmax 8")
      .def_property_readonly("device", &Snap::device_name, "\"cpu\", or the number and name of the GPU")
      .def_property_readonly("n_pairs", &Snap::n_pairs, "directed pairs within cutoffs of the last descriptors()")
      .def(
          "descriptors", &descriptors, py::arg("positions"), py::arg("cells"), py::arg("periodic"),
          py::arg("first_atom"), py::arg("cutoffs"), py::arg("pair_rule") = false, py::arg("n_threads") = 0,
          "[n_atoms, n_features] of structures one after another: positions [n_atoms, 3] A, cells [n_structures, 3, 3] "
          "A (rows), periodic [n_structures, 3], first_atom [n_structures + 1], cutoffs [n_atoms] A; a pair is seen "
          "within cutoffs[i], with pair_rule within (cutoffs[i] + cutoffs[j])/2.")
      .def("gradients", &gradients, py::arg("beta"), py::arg("n_threads") = 0,
           "(dx [n_atoms, 3] in 1/A, strain [n_structures, 3, 3]): gradients of sum_i beta_i . B_i of the last "
           "descriptors(), beta [n_atoms, n_features]; strain is the derivative by e of x -> x (1 + e).")
      .def("start_profile", &Snap::start_profile, "Time every kernel from now on.")
      .def("profile", &profile, "[(kernel, launches, seconds), ...] since start_profile(); of a CPU nothing.");
  m.def("cutoff_pairs", &cutoff_pairs, py::arg("positions"), py::arg("cells"), py::arg("periodic"),
        py::arg("first_atom"), py::arg("cutoffs"), py::arg("pair_rule") = false, py::arg("n_threads") = 0,
        "(first [n_atoms + 1], neighbor [n_pairs], vector [n_pairs, 3] A, cutoff [n_pairs] A): the pairs that "
        "SnapKernel.descriptors sees, as compressed rows.");
}
