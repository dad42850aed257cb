#include "grace/evaluator_cpu/dispatch.hpp"

#include <cstdlib>
#include <string>

#include "grace/error.hpp"

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
  const char* wanted = std::getenv("GRACE_MD_ISA");
  const std::string word = wanted == nullptr ? "" : wanted;
#ifdef GRACE_HAVE_X86_LEVELS
  const bool has_v4 = __builtin_cpu_supports("x86-64-v4"), has_v3 = __builtin_cpu_supports("x86-64-v3");
  if (word.empty()) return has_v4 ? isa_v4::kernels() : has_v3 ? isa_v3::kernels() : isa_baseline::kernels();
  if (word == "v4" || word == "v3") {
    require(word == "v4" ? has_v4 : has_v3, "GRACE_MD_ISA=", word,
            " was set, but this processor does not support x86-64-", word);
    return word == "v4" ? isa_v4::kernels() : isa_v3::kernels();
  }
#endif
  require(word.empty() || word == "baseline", "GRACE_MD_ISA=", word,
          " is not an instruction set of this build; use baseline",
#ifdef GRACE_HAVE_X86_LEVELS
          ", v3 or v4"
#else
          ""
#endif
  );
  return isa_baseline::kernels();
}

}  // namespace grace::cpu
