#include "grace/isa.hpp"

#include <cstdlib>
#include <string>

#include "grace/error.hpp"

namespace grace {

IsaLevel select_isa() {
  const char* wanted = std::getenv("GRACE_MD_ISA");
  const std::string word = wanted == nullptr ? "" : wanted;
#ifdef GRACE_HAVE_X86_LEVELS
  const bool has_v4 = __builtin_cpu_supports("x86-64-v4"), has_v3 = __builtin_cpu_supports("x86-64-v3");
  if (word.empty()) return has_v4 ? IsaLevel::v4 : has_v3 ? IsaLevel::v3 : IsaLevel::baseline;
  if (word == "v4" || word == "v3") {
    require(word == "v4" ? has_v4 : has_v3, "GRACE_MD_ISA=", word,
            " was set, but this processor does not support x86-64-", word);
    return word == "v4" ? IsaLevel::v4 : IsaLevel::v3;
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
  return IsaLevel::baseline;
}

}  // namespace grace
