#include "grace/snap/kernels.hpp"

namespace grace::snap {

namespace isa_baseline {
Kernels snap_kernels();
}
#ifdef GRACE_HAVE_X86_LEVELS
namespace isa_v3 {
Kernels snap_kernels();
}
namespace isa_v4 {
Kernels snap_kernels();
}
#endif

const Kernels& kernels_of(IsaLevel level) {
#ifdef GRACE_HAVE_X86_LEVELS
  if (level == IsaLevel::v4) {
    static const Kernels v4 = isa_v4::snap_kernels();
    return v4;
  }
  if (level == IsaLevel::v3) {
    static const Kernels v3 = isa_v3::snap_kernels();
    return v3;
  }
#endif
  (void)level;
  static const Kernels baseline = isa_baseline::snap_kernels();
  return baseline;
}

}  // namespace grace::snap
