#include "grace/evaluator_cuda/row_gemm.hpp"

#include <cstdlib>
#include <string>

#include "grace/error.hpp"

namespace grace::gpu {

namespace {

GemmUnits wanted_units() {
  const char* word = std::getenv("GRACE_MD_GEMM");
  const std::string wanted = word == nullptr ? "" : word;
  require(wanted.empty() || wanted == "ffma" || wanted == "tensor", "GRACE_MD_GEMM must be ffma or tensor, got `",
          wanted, "`");
  return wanted == "ffma" ? GemmUnits::vector : GemmUnits::tensor;
}

}  // namespace

GemmUnits gemm_units() {
  static const GemmUnits units = wanted_units();
  return units;
}

}  // namespace grace::gpu
