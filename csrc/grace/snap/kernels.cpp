// The SNAP kernels. Compiled once per instruction set with -DGRACE_ISA=<namespace>; exports one function,
// snap_kernels(), in that namespace. Uses no std:: functions: an inline copy compiled for AVX-512 could otherwise be
// picked by the linker for every machine.
#include "grace/snap/kernels.hpp"

#include "grace/snap/tile_kernels.hpp"

namespace grace::snap {
inline namespace GRACE_ISA {

Kernels snap_kernels() { return {Lanes::width, &density_pass, &bispectrum_pass, &adjoint_pass, &gradient_pass}; }

}  // namespace GRACE_ISA
}  // namespace grace::snap
