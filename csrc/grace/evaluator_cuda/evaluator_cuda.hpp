// Factories of the evaluators that run device kernels.
#pragma once

#include <memory>

#include "grace/evaluator.hpp"

namespace grace::gpu {

// Throws Error with the reason when GPU `options.device.index` cannot be used (device/cuda_probe.hpp).
std::unique_ptr<Evaluator> make_cuda_evaluator(ModelSpec model, const EvaluatorOptions& options);

std::unique_ptr<Evaluator> make_emulated_evaluator(ModelSpec model, const EvaluatorOptions& options);

}  // namespace grace::gpu
