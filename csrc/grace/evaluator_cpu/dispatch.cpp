#include "grace/evaluator_cpu/dispatch.hpp"

#include "grace/isa.hpp"

namespace grace::cpu {

namespace isa_baseline {
Kernels kernels();
}
#ifdef GRACE_HAVE_X86_LEVELS
namespace isa_v3 {
Kernels kernels();  // AVX2 and FMA
}
namespace isa_v4 {
Kernels kernels();  // AVX-512
}
#endif

Kernels select_kernels() {
  switch (select_isa()) {
#ifdef GRACE_HAVE_X86_LEVELS
    case IsaLevel::v4:
      return isa_v4::kernels();
    case IsaLevel::v3:
      return isa_v3::kernels();
#endif
    default:
      return isa_baseline::kernels();
  }
}

}  // namespace grace::cpu
