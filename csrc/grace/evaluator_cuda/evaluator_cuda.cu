#include "grace/device/cuda_launch.cuh"
#include "grace/device/cuda_probe.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/device_evaluator_results.hpp"
#include "grace/evaluator_cuda/evaluator_cuda.hpp"

namespace grace::gpu {

std::unique_ptr<Evaluator> make_cuda_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  using device::CudaDevice;
  const std::string obstacle = device::cuda_obstacle(device::cuda_probe().facts, options.device.index);
  require(obstacle.empty(), obstacle);
  if (options.precision == Precision::fp64)
    return std::make_unique<DeviceEvaluator<CudaDevice, double>>(std::move(model), options);
  return std::make_unique<DeviceEvaluator<CudaDevice, float>>(std::move(model), options);
}

}  // namespace grace::gpu
