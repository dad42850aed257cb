#include "grace/evaluator.hpp"

#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cpu/evaluator_cpu.hpp"

namespace grace {

std::unique_ptr<Evaluator> make_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  require(options.device.kind == DeviceKind::cpu,
          "device cuda was requested, but this build of grace_md has no CUDA evaluator; use device cpu");
  require(options.n_threads >= 0, "`n_threads` must be >= 0 (0 = all available), got ", options.n_threads);
  require(options.chunk >= 0, "`chunk` must be >= 0 (0 = automatic), got ", options.chunk);
  return cpu::make_cpu_evaluator(std::move(model), options);
}

}  // namespace grace
