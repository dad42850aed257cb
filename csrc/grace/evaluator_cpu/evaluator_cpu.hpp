// Factory of the CPU evaluator.
#pragma once

#include <memory>

#include "grace/evaluator.hpp"

namespace grace::cpu {

std::unique_ptr<Evaluator> make_cpu_evaluator(ModelSpec model, const EvaluatorOptions& options);

}  // namespace grace::cpu
