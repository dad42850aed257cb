// grace_md._core: the multilinear forms of csrc/grace/operators for callers that own the memory (torch). Arrays are
// addresses; grace_md.torch.ops checks dtype, device, layout and sizes before it passes them on.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/operators/operators.hpp"

namespace py = pybind11;

namespace {

using grace::ops::Index;
using Address = std::uintptr_t;

template <class T>
const T* read(Address address) {
  return reinterpret_cast<const T*>(address);
}

template <class T>
T* write(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class Slot>
Slot slot_of(int slot) {
  grace::require(slot >= 0 && slot < 4, "`slot` must be 0 .. 3, got ", slot);
  return static_cast<Slot>(slot);
}

// f(Real{}) with Real double or float.
template <class Function>
void with_real(bool is_double, Function f) {
  py::gil_scoped_release release;
  if (is_double)
    f(double{});
  else
    f(float{});
}

void bond_basis(int slot, bool is_double, Address atoms, Address radial, Address harmonics, Address chemical,
                Address out, Address first_bond, Address bond_species, Index n_atoms, Index n_bonds, Index n_elements,
                int lmax, Index n_channels, int n_threads) {
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    grace::ops::BondBasis<Real> form;
    form.n_atoms = n_atoms;
    form.n_bonds = n_bonds;
    form.n_elements = n_elements;
    form.n_channels = n_channels;
    form.lmax = lmax;
    form.first = read<Index>(first_bond);
    form.species = read<Index>(bond_species);
    form.atoms = read<Real>(atoms);
    form.radial = read<Real>(radial);
    form.harmonics = read<Real>(harmonics);
    form.chemical = read<Real>(chemical);
    grace::ops::bond_basis(slot_of<grace::ops::BondSlot>(slot), form, write<Real>(out), n_threads);
  });
}

void message_basis(int slot, bool is_double, Address atoms, Address radial, Address harmonics, Address message,
                   Address out, Address first_bond, Address neighbor, Address terms, Address coefficients,
                   Index n_terms, Index n_atoms, Index n_bonds, Index n_rows, Index n_message_rows, int lmax,
                   Index n_channels, int n_threads) {
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    grace::ops::MessageBasis<Real> form;
    form.n_atoms = n_atoms;
    form.n_bonds = n_bonds;
    form.n_channels = n_channels;
    form.n_rows = n_rows;
    form.n_message_rows = n_message_rows;
    form.n_terms = n_terms;
    form.lmax = lmax;
    form.first = read<Index>(first_bond);
    form.neighbor = read<Index>(neighbor);
    form.terms = read<std::int32_t>(terms);
    form.coefficients = read<double>(coefficients);
    form.atoms = read<Real>(atoms);
    form.radial = read<Real>(radial);
    form.harmonics = read<Real>(harmonics);
    form.message = read<Real>(message);
    grace::ops::message_basis(slot_of<grace::ops::MessageSlot>(slot), form, write<Real>(out), n_threads);
  });
}

void coupling_product(bool is_double, Address first, Address second, Address out, Address terms, Address coefficients,
                      Index n_terms, Index n_atoms, Index n_targets, Index n_first, Index n_second, Index n_channels,
                      int n_threads) {
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    grace::ops::CouplingProduct<Real> form;
    form.n_atoms = n_atoms;
    form.n_channels = n_channels;
    form.n_terms = n_terms;
    form.n_targets = n_targets;
    form.n_first = n_first;
    form.n_second = n_second;
    form.terms = read<std::int32_t>(terms);
    form.coefficients = read<double>(coefficients);
    form.first = read<Real>(first);
    form.second = read<Real>(second);
    grace::ops::coupling_product(form, write<Real>(out), n_threads);
  });
}

void bond_vectors(Address positions, Address cells, Address shift, Address pair_cutoffs, Address structure,
                  Address species, Address center, Address neighbor, Index n_atoms, Index n_bonds, Index n_structures,
                  Index n_elements, Address vector, Address distance, Address scaled, int n_threads) {
  grace::ops::BondGeometry bonds;
  bonds.n_atoms = n_atoms;
  bonds.n_bonds = n_bonds;
  bonds.n_structures = n_structures;
  bonds.n_elements = n_elements;
  bonds.positions = read<double>(positions);
  bonds.cells = read<double>(cells);
  bonds.shift = read<double>(shift);
  bonds.pair_cutoffs = read<double>(pair_cutoffs);
  bonds.structure = read<Index>(structure);
  bonds.species = read<Index>(species);
  bonds.center = read<Index>(center);
  bonds.neighbor = read<Index>(neighbor);
  py::gil_scoped_release release;
  grace::ops::bond_vectors(bonds, write<double>(vector), write<double>(distance), write<double>(scaled), n_threads);
}

void bond_harmonics(bool is_double, int lmax, Index n_bonds, Address vector, Address harmonics, Address gradient,
                    int n_threads) {
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    grace::ops::bond_harmonics(lmax, n_bonds, read<double>(vector), write<Real>(harmonics), write<Real>(gradient),
                               n_threads);
  });
}

void bond_radial_basis(bool is_double, int n_basis, int order, Index n_bonds, Address scaled, Address basis,
                       Address slope, int n_threads) {
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    grace::ops::bond_radial_basis(n_basis, order, n_bonds, read<double>(scaled), write<Real>(basis), write<Real>(slope),
                                  n_threads);
  });
}

// Arguments of both functions of a radial network.
struct NetworkArguments {
  std::vector<Index> widths;
  std::vector<Address> weights;
  bool is_tanh;
  Address basis, slope;
  Index n_bonds;

  template <class Real, class Function>
  void with_network(Function f) const {
    grace::require(weights.size() + 1 == widths.size(), "`weights` must be one fewer than `widths`, got ",
                   weights.size(), " and ", widths.size());
    std::vector<const Real*> matrices;
    for (Address address : weights) matrices.push_back(read<Real>(address));
    grace::ops::RadialNetwork<Real> network;
    network.n_bonds = n_bonds;
    network.n_layers = static_cast<int>(weights.size());
    network.widths = widths.data();
    network.weights = matrices.data();
    network.is_tanh = is_tanh;
    network.basis = read<Real>(basis);
    network.slope = read<Real>(slope);
    f(network);
  }
};

void radial_network(bool is_double, std::vector<Index> widths, std::vector<Address> weights, bool is_tanh,
                    Address basis, Address slope, Index n_bonds, Address value, Address derivative, int n_threads) {
  const NetworkArguments arguments{std::move(widths), std::move(weights), is_tanh, basis, slope, n_bonds};
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    arguments.with_network<Real>([&](const auto& network) {
      grace::ops::radial_network(network, write<Real>(value), write<Real>(derivative), n_threads);
    });
  });
}

void radial_network_adjoint(bool is_double, std::vector<Index> widths, std::vector<Address> weights, bool is_tanh,
                            Address basis, Address slope, Index n_bonds, Address value_gradient,
                            Address derivative_gradient, std::vector<Address> weight_gradients, int n_threads) {
  const NetworkArguments arguments{std::move(widths), std::move(weights), is_tanh, basis, slope, n_bonds};
  grace::require(weight_gradients.size() == arguments.weights.size(),
                 "`weight_gradients` must be as many as `weights`");
  with_real(is_double, [&](auto real) {
    using Real = decltype(real);
    std::vector<Real*> out;
    for (Address address : weight_gradients) out.push_back(write<Real>(address));
    arguments.with_network<Real>([&](const auto& network) {
      grace::ops::radial_network_adjoint(network, read<Real>(value_gradient), read<Real>(derivative_gradient),
                                         out.data(), n_threads);
    });
  });
}

}  // namespace

void bind_operators(py::module_& m) {
  m.def("bond_basis", &bond_basis, py::arg("slot"), py::arg("is_double"), py::arg("atoms"), py::arg("radial"),
        py::arg("harmonics"), py::arg("chemical"), py::arg("out"), py::arg("first_bond"), py::arg("bond_species"),
        py::arg("n_atoms"), py::arg("n_bonds"), py::arg("n_elements"), py::arg("lmax"), py::arg("n_channels"),
        py::arg("n_threads"), "One slot (0 A, 1 R, 2 Y, 3 z) of sum A R Y z over bonds (operators.hpp); addresses.");
  m.def(
      "message_basis", &message_basis, py::arg("slot"), py::arg("is_double"), py::arg("atoms"), py::arg("radial"),
      py::arg("harmonics"), py::arg("message"), py::arg("out"), py::arg("first_bond"), py::arg("neighbor"),
      py::arg("terms"), py::arg("coefficients"), py::arg("n_terms"), py::arg("n_atoms"), py::arg("n_bonds"),
      py::arg("n_rows"), py::arg("n_message_rows"), py::arg("lmax"), py::arg("n_channels"), py::arg("n_threads"),
      "One slot (0 YI, 1 R, 2 Y, 3 I) of sum c YI R Y I over bonds and terms (row, harmonic, message row); addresses.");
  m.def("coupling_product", &coupling_product, py::arg("is_double"), py::arg("first"), py::arg("second"),
        py::arg("out"), py::arg("terms"), py::arg("coefficients"), py::arg("n_terms"), py::arg("n_atoms"),
        py::arg("n_targets"), py::arg("n_first"), py::arg("n_second"), py::arg("n_channels"), py::arg("n_threads"),
        "out[a, target, n] = sum of c first[a, ., n] second[a, ., n] over terms sorted by target; addresses.");
  m.def("bond_vectors", &bond_vectors, py::arg("positions"), py::arg("cells"), py::arg("shift"),
        py::arg("pair_cutoffs"), py::arg("structure"), py::arg("species"), py::arg("center"), py::arg("neighbor"),
        py::arg("n_atoms"), py::arg("n_bonds"), py::arg("n_structures"), py::arg("n_elements"), py::arg("vector"),
        py::arg("distance"), py::arg("scaled"), py::arg("n_threads"),
        "Bond vectors r, lengths d = sqrt(|r|^2 + 1e-10) in A and x = d / rc; addresses of float64 and int64 arrays.");
  m.def("bond_harmonics", &bond_harmonics, py::arg("is_double"), py::arg("lmax"), py::arg("n_bonds"), py::arg("vector"),
        py::arg("harmonics"), py::arg("gradient"), py::arg("n_threads"),
        "Harmonics Y(u) of bonds and dY/dr in 1/A (address 0: not wanted); addresses.");
  m.def("bond_radial_basis", &bond_radial_basis, py::arg("is_double"), py::arg("n_basis"), py::arg("order"),
        py::arg("n_bonds"), py::arg("scaled"), py::arg("basis"), py::arg("slope"), py::arg("n_threads"),
        "Radial basis g_k(x) and dg_k/dx, 0 from x = 1 on; addresses.");
  m.def("radial_network", &radial_network, py::arg("is_double"), py::arg("widths"), py::arg("weights"),
        py::arg("is_tanh"), py::arg("basis"), py::arg("slope"), py::arg("n_bonds"), py::arg("value"),
        py::arg("derivative"), py::arg("n_threads"),
        "Radial functions R of g and dR/dx along dg/dx, layers of `widths` without biases; addresses.");
  m.def("radial_network_adjoint", &radial_network_adjoint, py::arg("is_double"), py::arg("widths"), py::arg("weights"),
        py::arg("is_tanh"), py::arg("basis"), py::arg("slope"), py::arg("n_bonds"), py::arg("value_gradient"),
        py::arg("derivative_gradient"), py::arg("weight_gradients"), py::arg("n_threads"),
        "Gradients of the weights of a radial network for those of R and dR/dx; addresses.");
}
