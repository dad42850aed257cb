#include "grace/device/emulated_device.hpp"
#include "grace/evaluator_cuda/device_evaluator_results.hpp"
#include "grace/evaluator_cuda/evaluator_cuda.hpp"

namespace grace::gpu {

std::unique_ptr<Evaluator> make_emulated_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  using device::EmulatedDevice;
  if (options.precision == Precision::fp64)
    return std::make_unique<DeviceEvaluator<EmulatedDevice, double>>(std::move(model), options);
  return std::make_unique<DeviceEvaluator<EmulatedDevice, float>>(std::move(model), options);
}

}  // namespace grace::gpu
