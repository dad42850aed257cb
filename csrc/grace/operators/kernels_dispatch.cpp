#include "grace/operators/kernels.hpp"

namespace grace::ops {

namespace isa_baseline {
AllKernels operator_kernels();
}
#ifdef GRACE_HAVE_X86_LEVELS
namespace isa_v3 {
AllKernels operator_kernels();
}
namespace isa_v4 {
AllKernels operator_kernels();
}
#endif

const AllKernels& kernels_of(IsaLevel level) {
#ifdef GRACE_HAVE_X86_LEVELS
  if (level == IsaLevel::v4) {
    static const AllKernels v4 = isa_v4::operator_kernels();
    return v4;
  }
  if (level == IsaLevel::v3) {
    static const AllKernels v3 = isa_v3::operator_kernels();
    return v3;
  }
#endif
  (void)level;
  static const AllKernels baseline = isa_baseline::operator_kernels();
  return baseline;
}

template <>
const Kernels<double>& selected_kernels<double>() {
  return kernels_of(select_isa()).fp64;
}

template <>
const Kernels<float>& selected_kernels<float>() {
  return kernels_of(select_isa()).fp32;
}

}  // namespace grace::ops
