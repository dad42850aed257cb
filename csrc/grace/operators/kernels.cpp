// The kernels of the operators. Compiled once per instruction set with -DGRACE_ISA=<namespace>; exports one function,
// operator_kernels(), in that namespace. Uses no std:: functions: an inline copy compiled for AVX-512 could otherwise
// be picked by the linker for every machine.
#include "grace/operators/bond_basis_kernels.hpp"
#include "grace/operators/geometry_kernels.hpp"
#include "grace/operators/linear_kernels.hpp"
#include "grace/operators/message_basis_kernels.hpp"
#include "grace/operators/product_kernels.hpp"
#include "grace/operators/radial_network_kernels.hpp"

namespace grace::ops {
inline namespace GRACE_ISA {
namespace {

template <class Real>
Kernels<Real> all() {
  Kernels<Real> k;
  k.basis_atoms = &basis_atoms<Real>;
  k.basis_radial = &basis_radial<Real>;
  k.basis_harmonics = &basis_harmonics<Real>;
  k.basis_chemical = &basis_chemical<Real>;
  k.message_atoms = &message_atoms<Real>;
  k.message_radial = &message_radial<Real>;
  k.message_harmonics = &message_harmonics<Real>;
  k.message_bonds = &message_bonds<Real>;
  k.add_to = &add_to<Real>;
  k.linear = &linear<Real>;
  k.outer = &outer<Real>;
  k.product = &product<Real>;
  k.network = &network<Real>;
  k.network_adjoint = &network_adjoint<Real>;
  k.harmonics = &harmonics<Real>;
  k.radial_basis = &radial_basis<Real>;
  return k;
}

}  // namespace

AllKernels operator_kernels() { return {all<double>(), all<float>()}; }

}  // namespace GRACE_ISA
}  // namespace grace::ops
