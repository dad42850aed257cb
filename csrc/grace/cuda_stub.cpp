// Stands in for what runs on CUDA devices in builds without nvcc: the same symbols, and one sentence.
#include "grace/device/ceilings.hpp"
#include "grace/device/cuda_probe.hpp"
#include "grace/error.hpp"
#include "grace/evaluator_cuda/evaluator_cuda.hpp"
#include "grace/neighbors_cuda/host_list.hpp"
#include "grace/snap_cuda/snap_cuda.hpp"

namespace grace {

const device::CudaProbe& device::cuda_probe() {
  static const CudaProbe probe{false, 0, cuda_obstacle({}, 0), "", {}, {}, {}};
  return probe;
}

device::Ceilings device::measure_cuda_ceilings(int, double) { throw Error(cuda_probe().reason); }

std::unique_ptr<Evaluator> gpu::make_cuda_evaluator(ModelSpec, const EvaluatorOptions&) {
  throw Error(device::cuda_probe().reason);
}

NeighborList gpu::build_neighbors_cuda(int, const StructureBatch&, int, const double*, double) {
  throw Error(device::cuda_probe().reason);
}

std::unique_ptr<snap::Snap> snap::make_cuda_snap(const SnapOptions&) { throw Error(device::cuda_probe().reason); }

}  // namespace grace
