#include "grace/evaluator.hpp"

#include <cstdlib>
#include <utility>

#include "grace/device/cuda_probe.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cpu/evaluator_cpu.hpp"
#include "grace/evaluator_cuda/evaluator_cuda.hpp"

namespace grace {

Device resolve_device(Device wanted) {
  if (wanted.kind != DeviceKind::automatic) return wanted;
  if (const char* word = std::getenv("GRACE_MD_DEVICE"); word != nullptr && *word != '\0') {
    Device device;
    try {
      device = parse_device(word);
    } catch (const Error& failure) {
      throw Error(std::string("environment variable GRACE_MD_DEVICE: ") + failure.what());
    }
    if (device.kind != DeviceKind::automatic) return device;
  }
  return {device::cuda_probe().n_devices > 0 ? DeviceKind::cuda : DeviceKind::cpu, 0};
}

std::unique_ptr<Evaluator> make_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  require(options.n_threads >= 0, "`n_threads` must be >= 0 (0 = all available), got ", options.n_threads);
  require(options.chunk >= 0, "`chunksize` must be >= 0 (0 = automatic), got ", options.chunk);
  EvaluatorOptions chosen = options;
  chosen.device = resolve_device(options.device);
  if (chosen.precision == Precision::automatic)
    chosen.precision = chosen.device.kind == DeviceKind::cuda ? Precision::mixed : Precision::fp64;
  switch (chosen.device.kind) {
    case DeviceKind::cuda:
      return gpu::make_cuda_evaluator(std::move(model), chosen);
    case DeviceKind::emulated:
      return gpu::make_emulated_evaluator(std::move(model), chosen);
    default:
      return cpu::make_cpu_evaluator(std::move(model), chosen);
  }
}

}  // namespace grace
