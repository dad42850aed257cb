// grace_md._core: Evaluator, and the formulas of csrc/grace/math that the tests compare with the NumPy oracle.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/evaluator.hpp"
#include "grace/neighbors.hpp"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

py::array_t<double> zeros(std::initializer_list<py::ssize_t> shape) {
  py::array_t<double> array{std::vector<py::ssize_t>(shape)};
  std::fill(array.mutable_data(), array.mutable_data() + array.size(), 0.0);
  return array;
}

std::unique_ptr<grace::Evaluator> make(const grace::ModelSpec& model, const std::string& precision,
                                       const std::string& radial, const std::string& device, int n_threads, int chunk) {
  grace::EvaluatorOptions options;
  options.precision = grace::parse_precision(precision);
  options.radial = grace::parse_radial_mode(radial);
  options.device = grace::parse_device(device);
  options.n_threads = n_threads;
  options.chunk = chunk;
  py::gil_scoped_release release;
  return grace::make_evaluator(model, options);
}

py::dict compute(grace::Evaluator& evaluator, const grace::NeighborList& list, const Array<double>& positions,
                 const Array<double>& cells, const Array<std::int32_t>& species, bool forces, bool atom_virial,
                 std::optional<Array<std::int32_t>> selection, bool stages) {
  const py::ssize_t n = static_cast<py::ssize_t>(list.n_atoms);
  const bool good_shapes = positions.ndim() == 2 && positions.shape(0) == n && positions.shape(1) == 3 &&
                           cells.ndim() == 3 && cells.shape(1) == 3 && cells.shape(2) == 3 && species.ndim() == 1 &&
                           species.shape(0) == n;
  grace::require(good_shapes, "`positions`, `cells` and `species` must have shapes [", n,
                 ", 3], [n_structures, 3, 3] and [", n, "], the atoms of the neighbour list");
  const py::ssize_t n_structures = cells.shape(0);
  grace::require(n == 0 || list.structure.back() < n_structures, "`cells` holds ", n_structures,
                 " cells, the neighbour list has ", n == 0 ? 0 : list.structure.back() + 1, " structures");

  py::dict out;
  auto keep = [&](const char* name, py::array_t<double> array) {
    out[name] = array;
    return array.mutable_data();
  };
  grace::Results results;
  results.energies = keep("atomic_energies", zeros({n}));
  if (forces) {
    results.forces = keep("forces", zeros({n, 3}));
    results.virial = keep("virial", zeros({n_structures, 3, 3}));
    if (atom_virial) {
      results.atom_virial = keep("atom_virial", zeros({n, 3, 3}));
      results.centroid_virial = keep("centroid_virial", zeros({n, 3, 3}));
    }
  }
  std::vector<grace::StageTensor> tensors;
  if (stages) results.stages = &tensors;
  std::vector<double> wrapped(positions.data(), positions.data() + positions.size());
  {
    py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < n; ++i) {
      const double* cell = cells.data() + 9 * list.structure[i];
      for (int a = 0; a < 3; ++a)
        for (int k = 0; k < 3; ++k) wrapped[3 * i + k] -= list.wrap[3 * i + a] * cell[3 * a + k];
    }
    grace::Geometry geometry;
    geometry.n_centers = geometry.n_atoms = n;
    geometry.positions = wrapped.data();
    geometry.species = species.data();
    geometry.first = list.first.data();
    geometry.neighbor = list.neighbor.data();
    geometry.shift = list.shift.data();
    geometry.n_structures = n_structures;
    geometry.cells = cells.data();
    geometry.structure = list.structure.data();
    if (selection) {
      geometry.selection = selection->data();
      geometry.n_selected = selection->size();
    }
    evaluator.compute(geometry, results);
  }
  if (stages) {
    py::dict by_name;
    for (const grace::StageTensor& t : tensors) {
      const std::vector<py::ssize_t> shape{n, static_cast<py::ssize_t>(t.rows.size()), t.n_channels};
      by_name[t.name.c_str()] = py::make_tuple(t.rows, py::array_t<double>(shape, t.values.data()),
                                               py::array_t<double>(shape, t.gradients.data()));
    }
    out["stages"] = by_name;
  }
  out["closest_distance"] = results.closest_distance;
  out["closest_pair"] = py::make_tuple(results.closest_pair[0], results.closest_pair[1]);
  return out;
}

py::dict report(const grace::Evaluator& evaluator) {
  const grace::RadialTableReport r = evaluator.radial_report();
  py::dict out;
  out["n_intervals"] = r.n_intervals;
  out["degree"] = r.degree;
  out["value_error"] = r.value_error;
  out["derivative_error"] = r.derivative_error;
  return out;
}

}  // namespace

void bind_evaluator(py::module_& m) {
  using grace::Evaluator;
  py::class_<Evaluator>(m, "Evaluator", "Energies, forces and virials of a model on one device.")
      .def(py::init(&make), py::arg("model"), py::arg("precision") = "fp64", py::arg("radial") = "table",
           py::arg("device") = "auto", py::arg("n_threads") = 0, py::arg("chunk") = 0)
      .def("compute", &compute, py::arg("neighbors"), py::arg("positions"), py::arg("cells"), py::arg("species"),
           py::arg("forces") = true, py::arg("atom_virial") = false, py::arg("selection") = py::none(),
           py::arg("stages") = false,
           "Evaluate the atoms of a neighbour list.\n\n"
           "positions [n_atoms, 3] A as given to build_neighbors (moved since by less than the skin allows); cells\n"
           "[n_structures, 3, 3]; species [n_atoms] indices into model.elements; selection: atoms whose energies are "
           "wanted.\n"
           "Returns atomic_energies [n_atoms] eV, forces [n_atoms, 3] eV/A, virial [n_structures, 3, 3] eV (sum r_a "
           "f_b),\n"
           "atom_virial and centroid_virial [n_atoms, 3, 3], closest_distance A, closest_pair; with stages=True also a "
           "dictionary\n"
           "name -> (stored rows, values, gradients), both [n_atoms, n_rows, n_channels], for tests.")
      .def_property_readonly("radial_report", &report)
      .def_property_readonly("message_width", &Evaluator::message_width)
      .def_property_readonly("workspace_bytes", &Evaluator::workspace_bytes)
      .def_property_readonly("description", &Evaluator::description);
}
