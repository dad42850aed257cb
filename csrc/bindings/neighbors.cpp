// grace_md._core: NeighborList, build_neighbors, pair_vectors, max_displacement_exceeds.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/neighbors.hpp"
#include "grace/neighbors_cuda/host_list.hpp"
#include "grace/types.hpp"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

std::string shape_text(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t k = 0; k < array.ndim(); ++k) text += (k > 0 ? ", " : "") + std::to_string(array.shape(k));
  return text + "]";
}

// rows x ... with the trailing sizes given.
void check_shape(const py::array& array, const char* name, py::ssize_t rows,
                 std::initializer_list<py::ssize_t> trailing) {
  bool good = array.ndim() == static_cast<py::ssize_t>(1 + trailing.size()) && array.shape(0) == rows;
  std::string wanted = "[" + std::to_string(rows);
  py::ssize_t axis = 1;
  for (py::ssize_t size : trailing) {
    good = good && array.shape(axis) == size;
    wanted += ", " + std::to_string(size);
    ++axis;
  }
  grace::require(good, "`", name, "` must have shape ", wanted, "], got ", shape_text(array));
}

// The arrays of a batch, checked against each other; keeps them alive.
struct BatchArrays {
  Array<double> positions, cells;
  Array<bool> periodic;
  Array<std::int64_t> first_atom;
  Array<std::int32_t> species;

  void check(bool with_species) const {
    grace::require(first_atom.ndim() == 1 && first_atom.shape(0) >= 1,
                   "`first_atom` must have shape [n_structures + 1], got ", shape_text(first_atom));
    const py::ssize_t n_structures = first_atom.shape(0) - 1;
    grace::require(first_atom.at(0) == 0, "`first_atom` must start with 0, got ", first_atom.at(0));
    for (py::ssize_t s = 0; s < n_structures; ++s)
      grace::require(first_atom.at(s) <= first_atom.at(s + 1), "`first_atom` must not decrease, got ", first_atom.at(s),
                     " then ", first_atom.at(s + 1));
    check_shape(positions, "positions", static_cast<py::ssize_t>(first_atom.at(n_structures)), {3});
    if (with_species) check_shape(species, "species", positions.shape(0), {});
    check_shape(cells, "cells", n_structures, {3, 3});
    check_shape(periodic, "periodic", n_structures, {3});
  }

  grace::StructureBatch view() const {
    grace::StructureBatch batch;
    batch.n_structures = static_cast<int>(first_atom.shape(0) - 1);
    batch.first_atom = first_atom.data();
    batch.positions = positions.data();
    batch.species = species.size() > 0 ? species.data() : nullptr;
    batch.cells = cells.data();
    batch.periodic = periodic.data();
    return batch;
  }
};

std::shared_ptr<grace::NeighborList> build(Array<double> positions, Array<std::int32_t> species, Array<double> cells,
                                           Array<bool> periodic, Array<std::int64_t> first_atom,
                                           Array<double> pair_cutoffs, double skin, int n_threads,
                                           const std::string& device) {
  const BatchArrays arrays{positions, cells, periodic, first_atom, species};
  arrays.check(true);
  grace::require(pair_cutoffs.ndim() == 2 && pair_cutoffs.shape(0) == pair_cutoffs.shape(1),
                 "`pair_cutoffs` must have shape [n_species, n_species], got ", shape_text(pair_cutoffs));
  grace::require(n_threads >= 0, "`n_threads` must be >= 0 (0: all), got ", n_threads);
  const grace::StructureBatch batch = arrays.view();
  const int n_species = static_cast<int>(pair_cutoffs.shape(0));
  const double* const cutoffs = pair_cutoffs.data();
  const grace::Device chosen = grace::parse_device(device);
  py::gil_scoped_release release;
  switch (chosen.kind) {
    case grace::DeviceKind::cuda:
      return std::make_shared<grace::NeighborList>(
          grace::gpu::build_neighbors_cuda(chosen.index, batch, n_species, cutoffs, skin));
    case grace::DeviceKind::emulated:
      return std::make_shared<grace::NeighborList>(
          grace::gpu::build_neighbors_emulated(chosen.index, batch, n_species, cutoffs, skin));
    default:
      return std::make_shared<grace::NeighborList>(grace::build_neighbors(batch, n_species, cutoffs, skin, n_threads));
  }
}

Array<double> vectors(const grace::NeighborList& list, Array<double> positions, Array<double> cells) {
  check_shape(positions, "positions", static_cast<py::ssize_t>(list.n_atoms), {3});
  const py::ssize_t n_structures = list.structure.empty() ? cells.shape(0) : list.structure.back() + 1;
  grace::require(cells.ndim() == 3 && cells.shape(0) >= n_structures && cells.shape(1) == 3 && cells.shape(2) == 3,
                 "`cells` must have shape [n_structures, 3, 3] with at least ", n_structures, " structures, got ",
                 shape_text(cells));
  Array<double> out({static_cast<py::ssize_t>(list.neighbor.size()), py::ssize_t{3}});
  grace::StructureBatch batch;
  batch.positions = positions.data();
  batch.cells = cells.data();
  double* const data = out.mutable_data();
  py::gil_scoped_release release;
  grace::pair_vectors(list, batch, data);
  return out;
}

bool exceeds(Array<double> positions0, Array<double> cells0, Array<bool> periodic, Array<std::int64_t> first_atom,
             Array<double> positions, Array<double> cells, double smallest_cutoff, double largest_cutoff, double skin) {
  const BatchArrays built{positions0, cells0, periodic, first_atom, {}};
  built.check(false);
  check_shape(positions, "positions", positions0.shape(0), {3});
  check_shape(cells, "cells", cells0.shape(0), {3, 3});
  const grace::StructureBatch batch = built.view();
  const double *const new_positions = positions.data(), *const new_cells = cells.data();
  py::gil_scoped_release release;
  return grace::max_displacement_exceeds(batch, new_positions, new_cells, smallest_cutoff, largest_cutoff, skin);
}

// A vector of the list as a read-only array without a copy; the array keeps the list alive.
template <class T>
py::array_t<T> share(py::object self, const std::vector<T>& values) {
  py::array_t<T> array(static_cast<py::ssize_t>(values.size()), values.data(), self);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

template <class T>
auto shared(std::vector<T> grace::NeighborList::* member) {
  return [member](py::object self) { return share(self, self.cast<const grace::NeighborList&>().*member); };
}

}  // namespace

void bind_neighbors(py::module_& m) {
  using grace::NeighborList;
  py::class_<NeighborList, std::shared_ptr<NeighborList>>(m, "NeighborList",
                                                          "Directed neighbour pairs as compressed rows: the neighbours "
                                                          "of atom i are first[i] .. first[i + 1] - 1, sorted by\n"
                                                          "(neighbor, image). Arrays are read-only views.")
      .def_property_readonly("n_atoms", [](const NeighborList& list) { return list.n_atoms; })
      .def_property_readonly("n_pairs", [](const NeighborList& list) { return list.neighbor.size(); })
      .def_property_readonly("first", shared(&NeighborList::first), "int64 [n_atoms + 1]")
      .def_property_readonly("neighbor", shared(&NeighborList::neighbor),
                             "int32 [n_pairs], index in the concatenated atoms")
      .def_property_readonly("structure", shared(&NeighborList::structure), "int32 [n_atoms]")
      .def_property_readonly("packed_shift", shared(&NeighborList::shift),
                             "int32 [n_pairs], packed image relative to wrapped positions, for the evaluator")
      .def_property_readonly(
          "wrap",
          [](py::object self) { return share(self, self.cast<const NeighborList&>().wrap).attr("reshape")(-1, 3); },
          "int32 [n_atoms, 3]; wrapped position = position - wrap @ cell")
      .def_property_readonly(
          "shift",
          [](const NeighborList& list) {
            Array<std::int32_t> out({static_cast<py::ssize_t>(list.neighbor.size()), py::ssize_t{3}});
            std::int32_t* const data = out.mutable_data();
            py::gil_scoped_release release;
            grace::unwrapped_shifts(list, data);
            return out;
          },
          "int32 [n_pairs, 3], image relative to the positions given: r_ij = r_j - r_i + shift @ cell (a new array)")
      .def("vectors", &vectors, py::arg("positions"), py::arg("cells"),
           "float64 [n_pairs, 3], r_ij in A for positions [n_atoms, 3] and cells [n_structures, 3, 3]");

  m.def(
      "build_neighbors", &build, py::arg("positions"), py::arg("species"), py::arg("cells"), py::arg("periodic"),
      py::arg("first_atom"), py::arg("pair_cutoffs"), py::arg("skin") = 0.0, py::arg("n_threads") = 0,
      py::arg("device") = "cpu",
      "All pairs with |r_j - r_i + S @ cell| < pair_cutoffs[species_i, species_j] + skin.\n\n"
      "positions [n_atoms, 3] A; species [n_atoms]; cells [n_structures, 3, 3] A, rows are lattice vectors;\n"
      "periodic [n_structures, 3]; first_atom [n_structures + 1]; pair_cutoffs [n_species, n_species] A, <= 0: never.\n"
      "device: \"cpu\", or \"cuda:N\" and \"emulated:N\" for the list of the GPU evaluator, copied to the host.");
  m.def("max_displacement_exceeds", &exceeds, py::arg("positions0"), py::arg("cells0"), py::arg("periodic"),
        py::arg("first_atom"), py::arg("positions"), py::arg("cells"), py::arg("smallest_cutoff"),
        py::arg("largest_cutoff"), py::arg("skin"),
        "True when a list built with `skin` at (positions0, cells0) could miss a pair at (positions, cells).");
}
