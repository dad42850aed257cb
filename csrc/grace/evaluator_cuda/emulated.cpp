#include "grace/error.hpp"
#include "grace/evaluator_cuda/evaluator_cuda.hpp"

namespace grace::gpu {

std::unique_ptr<Evaluator> make_emulated_evaluator(ModelSpec, const EvaluatorOptions&) {
  throw Error("in preparation");
}

}  // namespace grace::gpu
