// grace_md._core: Evaluator, and the formulas of csrc/grace/math that the tests compare with the NumPy oracle.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
                                       const std::string& radial, const std::string& device, int n_threads, int chunk,
                                       bool deterministic) {
  grace::EvaluatorOptions options;
  options.precision = grace::parse_precision(precision);
  options.radial = grace::parse_radial_mode(radial);
  options.device = grace::parse_device(device);
  options.n_threads = n_threads;
  options.chunk = chunk;
  options.deterministic = deterministic;
  py::gil_scoped_release release;
  return grace::make_evaluator(model, options);
}

// Arrays of a call, and the dictionary that they are returned in.
struct Output {
  py::dict out;
  grace::Results results;
  std::vector<grace::StageTensor> tensors;
  py::ssize_t n_atoms;

  Output(py::ssize_t n, py::ssize_t n_structures, bool forces, bool atom_virial, bool stages) : n_atoms(n) {
    results.energies = keep("atomic_energies", {n});
    if (forces) {
      results.forces = keep("forces", {n, 3});
      results.virial = keep("virial", {n_structures, 3, 3});
      if (atom_virial) {
        results.atom_virial = keep("atom_virial", {n, 3, 3});
        results.centroid_virial = keep("centroid_virial", {n, 3, 3});
      }
    }
    if (stages) results.stages = &tensors;
  }

  double* keep(const char* name, std::initializer_list<py::ssize_t> shape) {
    py::array_t<double> array = zeros(shape);
    out[name] = array;
    return array.mutable_data();
  }

  py::dict finish() {
    if (results.stages != nullptr) {
      py::dict by_name;
      for (const grace::StageTensor& t : tensors) {
        const std::vector<py::ssize_t> shape{n_atoms, static_cast<py::ssize_t>(t.rows.size()), t.n_channels};
        by_name[t.name.c_str()] = py::make_tuple(t.rows, py::array_t<double>(shape, t.values.data()),
                                                 py::array_t<double>(shape, t.gradients.data()));
      }
      out["stages"] = by_name;
    }
    out["closest_distance"] = results.closest_distance;
    out["closest_pair"] = py::make_tuple(results.closest_pair[0], results.closest_pair[1]);
    return out;
  }
};

using Selection = std::optional<Array<std::int32_t>>;

void select(grace::Geometry& geometry, const Selection& selection) {
  if (!selection) return;
  static const std::int32_t none = 0;  // an empty array may have no address
  geometry.selection = selection->size() == 0 ? &none : selection->data();
  geometry.n_selected = selection->size();
}

py::dict compute(grace::Evaluator& evaluator, const grace::NeighborList& list, const Array<double>& positions,
                 const Array<double>& cells, const Array<std::int32_t>& species, bool forces, bool atom_virial,
                 const Selection& selection, bool stages) {
  const py::ssize_t n = static_cast<py::ssize_t>(list.n_atoms);
  const bool good_shapes = positions.ndim() == 2 && positions.shape(0) == n && positions.shape(1) == 3 &&
                           cells.ndim() == 3 && cells.shape(1) == 3 && cells.shape(2) == 3 && species.ndim() == 1 &&
                           species.shape(0) == n;
  grace::require(good_shapes, "`positions`, `cells` and `species` must have shapes [", n,
                 ", 3], [n_structures, 3, 3] and [", n, "], the atoms of the neighbour list");
  const py::ssize_t n_structures = cells.shape(0);
  grace::require(n == 0 || list.structure.back() < n_structures, "`cells` holds ", n_structures,
                 " cells, the neighbour list has ", n == 0 ? 0 : list.structure.back() + 1, " structures");

  Output output(n, n_structures, forces, atom_virial, stages);
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
    select(geometry, selection);
    evaluator.compute(geometry, output.results);
  }
  return output.finish();
}

grace::NeighborRequest::Reuse parse_reuse(const std::string& word) {
  using Reuse = grace::NeighborRequest::Reuse;
  if (word == "check") return Reuse::check;
  if (word == "rebuild") return Reuse::rebuild;
  grace::require(word == "keep", "`rebuild` must be check, rebuild or keep, got '", word, "'");
  return Reuse::keep;
}

// Structures whose neighbours the evaluator lists itself; positions and species are still missing.
grace::Geometry structures(const grace::Evaluator& evaluator, std::int64_t n_atoms, const Array<double>& cells,
                           const Array<bool>& periodic, const Array<std::int64_t>& first_atom, double skin,
                           const std::string& rebuild) {
  grace::require(evaluator.lists_neighbors(),
                 "this evaluator lists no neighbours itself; pass build_neighbors(...) to compute, or use a GPU");
  const bool good_shapes = cells.ndim() == 3 && cells.shape(1) == 3 && cells.shape(2) == 3 && periodic.ndim() == 2 &&
                           periodic.shape(0) == cells.shape(0) && periodic.shape(1) == 3 && first_atom.ndim() == 1 &&
                           first_atom.shape(0) == cells.shape(0) + 1;
  grace::require(good_shapes, "`cells`, `periodic` and `first_atom` must have shapes [n_structures, 3, 3], ",
                 "[n_structures, 3] and [n_structures + 1]");
  const std::int64_t n_structures = cells.shape(0);
  for (std::int64_t s = 0; s < n_structures; ++s)
    grace::require(first_atom.at(s) <= first_atom.at(s + 1), "`first_atom` must not decrease, got ", first_atom.at(s),
                   " before ", first_atom.at(s + 1));
  grace::require(first_atom.at(0) == 0 && first_atom.at(n_structures) == n_atoms, "`first_atom` must run from 0 to ",
                 n_atoms, ", the number of atoms");
  grace::Geometry geometry;
  geometry.n_centers = geometry.n_atoms = n_atoms;
  geometry.n_structures = n_structures;
  geometry.cells = cells.data();
  geometry.neighbors.reuse = parse_reuse(rebuild);
  geometry.neighbors.skin = skin;
  geometry.neighbors.periodic = periodic.data();
  geometry.neighbors.first_atom = first_atom.data();
  return geometry;
}

py::dict compute_structures(grace::Evaluator& evaluator, const Array<double>& positions, const Array<double>& cells,
                            const Array<bool>& periodic, const Array<std::int32_t>& species,
                            const Array<std::int64_t>& first_atom, double skin, const std::string& rebuild, bool forces,
                            bool atom_virial, const Selection& selection, bool stages) {
  const py::ssize_t n = species.size();
  grace::require(species.ndim() == 1 && positions.ndim() == 2 && positions.shape(0) == n && positions.shape(1) == 3,
                 "`positions` and `species` must have shapes [n_atoms, 3] and [n_atoms]");
  grace::Geometry geometry = structures(evaluator, n, cells, periodic, first_atom, skin, rebuild);
  geometry.positions = positions.data();
  geometry.species = species.data();
  select(geometry, selection);
  Output output(n, cells.shape(0), forces, atom_virial, stages);
  {
    py::gil_scoped_release release;
    evaluator.compute(geometry, output.results);
  }
  return output.finish();
}

// Memory of the device: address and number of entries; address 0: not wanted.
using Memory = std::pair<std::uintptr_t, std::int64_t>;

template <class T>
T* checked(const char* name, const Memory& memory, std::int64_t size, bool required) {
  if (memory.first == 0 && (!required || size == 0)) return nullptr;
  grace::require(memory.first != 0 && memory.second == size, "`", name, "` holds ",
                 memory.first == 0 ? 0 : memory.second, " numbers, ", size, " are needed");
  grace::require(memory.first % alignof(T) == 0, "`", name, "` is not aligned to ", alignof(T), " bytes");
  return reinterpret_cast<T*>(memory.first);
}

py::dict compute_pointers(grace::Evaluator& evaluator, const Memory& positions, const Memory& species,
                          const Array<double>& cells, const Array<bool>& periodic,
                          const Array<std::int64_t>& first_atom, const Memory& energies, const Memory& forces,
                          const Memory& virial, const Memory& atom_virial, const Memory& centroid_virial,
                          std::uintptr_t stream, double skin, const std::string& rebuild) {
  const std::int64_t n = species.second, n_structures = cells.ndim() == 3 ? cells.shape(0) : 0;
  grace::Geometry geometry = structures(evaluator, n, cells, periodic, first_atom, skin, rebuild);
  geometry.space = grace::MemorySpace::device;
  geometry.stream = reinterpret_cast<void*>(stream);
  geometry.positions = checked<const double>("positions", positions, 3 * n, true);
  geometry.species = checked<const std::int32_t>("species", species, n, true);
  grace::Results results;
  double nowhere = 0.0;  // no atoms: nothing is written, but forces are wanted
  results.energies = checked<double>("energies", energies, n, true);
  results.forces = checked<double>("forces", forces, 3 * n, false);
  results.virial = checked<double>("virial", virial, 9 * n_structures, false);
  results.atom_virial = checked<double>("atom_virial", atom_virial, 9 * n, false);
  results.centroid_virial = checked<double>("centroid_virial", centroid_virial, 9 * n, false);
  const bool sums = results.virial || results.atom_virial || results.centroid_virial;
  grace::require(!sums || results.forces || n == 0, "virials are computed together with forces; pass `forces` too");
  if (n == 0 && sums) results.forces = &nowhere;
  {
    py::gil_scoped_release release;
    evaluator.compute(geometry, results);
  }
  py::dict out;
  out["closest_distance"] = results.closest_distance;
  out["closest_pair"] = py::make_tuple(results.closest_pair[0], results.closest_pair[1]);
  return out;
}

const char* device_kind(grace::DeviceKind kind) {
  switch (kind) {
    case grace::DeviceKind::cuda:
      return "cuda";
    case grace::DeviceKind::emulated:
      return "emulated";
    default:
      return "cpu";
  }
}

std::string resolve_device(const std::string& word) {
  const grace::Device device = grace::resolve_device(grace::parse_device(word));
  const std::string kind = device_kind(device.kind);
  return device.kind == grace::DeviceKind::cpu ? kind : kind + ":" + std::to_string(device.index);
}

py::list profile(grace::Evaluator& evaluator) {
  py::list out;
  for (const grace::KernelTime& kernel : evaluator.profile())
    out.append(py::make_tuple(kernel.name, kernel.launches, kernel.seconds));
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
      .def(py::init(&make), py::arg("model"), py::arg("precision") = "auto", py::arg("radial") = "table",
           py::arg("device") = "auto", py::arg("n_threads") = 0, py::arg("chunk") = 0, py::arg("deterministic") = false)
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
      .def("compute_structures", &compute_structures, py::arg("positions"), py::arg("cells"), py::arg("periodic"),
           py::arg("species"), py::arg("first_atom"), py::arg("skin") = 0.0, py::arg("rebuild") = "check",
           py::arg("forces") = true, py::arg("atom_virial") = false, py::arg("selection") = py::none(),
           py::arg("stages") = false,
           "Evaluate structures whose neighbours are listed on the device (where lists_neighbors is true).\n\n"
           "positions [n_atoms, 3] A, anywhere; cells [n_structures, 3, 3]; periodic [n_structures, 3]; species "
           "[n_atoms];\n"
           "first_atom [n_structures + 1]: atoms of a structure follow one another. The list reaches `skin` (A) beyond "
           "the\n"
           "cutoffs and is kept: rebuild = \"check\" makes a new one when it could miss a pair, \"rebuild\" always, "
           "\"keep\" only\n"
           "if the numbers of atoms differ. Other arguments and results as compute.")
      .def("compute_pointers", &compute_pointers, py::arg("positions"), py::arg("species"), py::arg("cells"),
           py::arg("periodic"), py::arg("first_atom"), py::arg("energies"), py::arg("forces") = Memory{0, 0},
           py::arg("virial") = Memory{0, 0}, py::arg("atom_virial") = Memory{0, 0},
           py::arg("centroid_virial") = Memory{0, 0}, py::arg("stream") = 0, py::arg("skin") = 0.0,
           py::arg("rebuild") = "check",
           "compute_structures on memory of the device, without copies; grace_md.tensors has the checks.\n\n"
           "positions (double), species (int32), energies, forces, virial, ... (double) are pairs (address, number of "
           "entries).\n"
           "Energies are written; the others are added to, or left out: (0, 0). The work is ordered on `stream` (a\n"
           "cudaStream_t; 0: a stream of the evaluator). Returns closest_distance and closest_pair.")
      .def("start_profile", &Evaluator::start_profile, "Time every kernel from now on; slows small systems down.")
      .def("profile", &profile, "(name, launches, seconds) of each kernel since start_profile, the longest first.")
      .def_property_readonly("lists_neighbors", &Evaluator::lists_neighbors)
      .def_property_readonly("device_kind",
                             [](const Evaluator& evaluator) { return device_kind(evaluator.device_kind()); })
      .def_property_readonly("radial_report", &report)
      .def_property_readonly("message_width", &Evaluator::message_width)
      .def_property_readonly("workspace_bytes", &Evaluator::workspace_bytes)
      .def_property_readonly("description", &Evaluator::description);
  m.def("resolve_device", &resolve_device, py::arg("device") = "auto",
        "The device that a word stands for here: \"cpu\", \"cuda:N\" or \"emulated:N\".");
}
