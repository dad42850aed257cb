// What a device says when something does not fit, and that an evaluator goes on working afterwards. Python and LAMMPS
// have the same tests with the environment variables of the emulated device.
#include <cstdint>
#include <string>
#include <vector>

#include "crystal.hpp"
#include "grace/device/buffer.hpp"
#include "grace/device/ceilings.hpp"
#include "grace/device/emulated_device.hpp"
#include "grace/device/failure.hpp"
#include "grace/evaluator_cuda/schedule.hpp"

namespace {

using namespace crystal_tests;
using namespace grace::device;

}  // namespace

TEST(failures_are_sentences) {
  CHECK(gigabytes(3210000000u) == "3.21 GB");
  CHECK(out_of_memory("the forces", 24000000000u, "cuda:1", 1500000000u) ==
        "out of GPU memory: the forces need 24 GB, cuda:1 has 1.5 GB free; lower chunksize, or use more ranks or a GPU "
        "with more memory");
  CHECK(device_lost("cuda:0", "basis_forward", "waiting", "an illegal memory access was encountered") ==
        "GPU failure on cuda:0 in or before kernel basis_forward: an illegal memory access was encountered; this "
        "evaluator is lost, make it again in a new process and continue the run from its last restart file");
  CHECK(device_lost("cuda:0", nullptr, "creating a stream", "no").rfind("GPU failure on cuda:0 in creating a ", 0) ==
        0);
}

TEST(a_full_device_takes_what_fits) {
  EmulatedDevice device(0, 4096);
  Buffer<EmulatedDevice, double> numbers(device, "the numbers of the test");
  CHECK_THROWS(numbers.reserve(1000),
               "out of GPU memory: the numbers of the test need 8e-06 GB, emulated (order 0) has");
  CHECK(numbers.reserve(500));
  CHECK(device.free_bytes() == 96);
}

// Rows of 2^31 entries cannot be counted in the slots of a chunk; the rows are not read.
TEST(slots_of_a_chunk_do_not_overflow) {
  const std::int64_t half = std::int64_t{1} << 30;
  const std::vector<std::int64_t> rows{0, half, 2 * half, 3 * half};
  const std::vector<std::int32_t> centers{0, 1, 2}, species{0, 0, 0};
  CHECK_THROWS(gpu::make_schedule(centers, species, rows, 1, 4096), "or lower chunksize");
  CHECK(gpu::make_schedule(centers, species, rows, 1, 1).n_chunks() == 3);
}

TEST(numbers_of_atoms_do_not_overflow) {
  EvaluatorOptions options;
  options.device = parse_device("emulated");
  const auto one = make_evaluator(tiny("tiny_1l_pairs.npz"), options);
  const Crystal c = crystal(one->model());
  Answer answer(c.n);
  Results r = results_into(answer);
  Geometry g = with_image_shifts(c);
  g.n_atoms = std::int64_t{1} << 31;
  CHECK_THROWS(one->compute(g, r), "exceeds 2^31 - 1; use more ranks");
  one->compute(with_image_shifts(c), r);
}

TEST(chunks_larger_than_all_atoms) {
  EvaluatorOptions options;
  options.device = parse_device("emulated");
  options.chunk = 1000000000;
  const auto one = make_evaluator(tiny("tiny_2l.npz"), options);
  const Crystal c = crystal(one->model());
  CHECK(one->description().find("chunks of 1048576 atoms") != std::string::npos);
  options.chunk = 0;
  compare(with_shifts(*one, c), with_shifts(*make_evaluator(tiny("tiny_2l.npz"), options), c), kSummation);
}

TEST(ceilings_of_the_emulated_device) {
  const Ceilings found = measure_ceilings(parse_device("emulated:3"), 1e-6);
  CHECK(found.device == "emulated (order 3)");
  for (double rate : {found.copy_bytes, found.fma_float, found.fma_double, found.matrix_tf32, found.matrix_double})
    CHECK(rate > 0.0);
  CHECK_THROWS(measure_ceilings(parse_device("cpu"), 1.0), "must be a GPU");
  CHECK_THROWS(measure_ceilings(parse_device("emulated"), 0.0), "`seconds` must be > 0");
}
