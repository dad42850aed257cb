// The CUDA device itself: phases and shared memory of a block, copies of any size, recorded work, streams, failures.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/device/atomics.hpp"
#include "grace/device/buffer.hpp"
#include "grace/device/cuda_launch.cuh"

using namespace grace::device;

namespace {

// out[block][thread] = sum over the threads before and in[block][thread], through shared memory in log2 steps.
struct BlockSums {
  static constexpr const char* name = "block_sums";
  static constexpr int threads = 256;
  struct Private {
    double value;
  };
  const double* in;
  double* out;
  int unused;  // numbers of shared memory that nobody reads

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.template shared<double>(unused);
    double* values = block.template shared<double>(threads);
    const std::int64_t begin = (std::int64_t{block.y()} * 7 + block.x()) * threads;
    block.each_thread([&](int thread, Private& own) {
      own.value = in[begin + thread];
      values[thread] = own.value;
    });
    for (int step = 1; step < threads; step *= 2) {
      block.each_thread([&](int thread, Private& own) {
        if (thread >= step) own.value += values[thread - step];
      });
      block.each_thread([&](int thread, Private& own) { values[thread] = own.value; });
    }
    block.each_thread([&](int thread, Private& own) { out[begin + thread] = own.value; });
  }
  static std::size_t shared_bytes(int unused) { return shared_size<double>(unused) + shared_size<double>(threads); }
};

struct AddNumbers {
  static constexpr const char* name = "add_numbers";
  static constexpr int threads = 128;
  using Private = NoPrivate;
  AtomicSum<double> sum;
  std::int64_t* count;
  std::uint64_t* smallest;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      const std::int64_t i = std::int64_t{block.x()} * threads + thread;
      sum.add(i % 3, 1e-3 * static_cast<double>(i % 1009) - 0.4);
      atomic_add(count, std::int64_t{1});
      atomic_min(smallest, static_cast<std::uint64_t>(1000000 - i));
    });
  }
};

struct Scale {
  static constexpr const char* name = "scale";
  static constexpr int threads = 256;
  static constexpr int min_blocks = 2;
  using Private = NoPrivate;
  double* x;
  double factor;
  int repeats;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      double& mine = x[std::int64_t{block.x()} * threads + thread];
      for (int k = 0; k < repeats; ++k) mine = mine * factor;
    });
  }
};

std::vector<double> numbers(std::size_t n) {
  std::vector<double> list(n);
  for (std::size_t i = 0; i < n; ++i) list[i] = static_cast<double>(i % 4099) - 7.0;
  return list;
}

std::vector<double> read(CudaDevice& device, const Buffer<CudaDevice, double>& buffer, std::size_t n) {
  std::vector<double> list(n);
  buffer.download(list.data(), n);
  device.synchronize();
  return list;
}

}  // namespace

TEST(cuda_blocks_run_phases_one_after_the_other) {
  CudaDevice device(0);
  constexpr std::size_t n = std::size_t{7} * 5 * BlockSums::threads;
  Buffer<CudaDevice, double> in(device, "numbers"), out(device, "sums");
  const std::vector<double> list = numbers(n);
  std::vector<double> expected(n);
  for (std::size_t b = 0; b < n; b += BlockSums::threads)
    std::partial_sum(list.begin() + b, list.begin() + b + BlockSums::threads, expected.begin() + b);
  in.upload(list);
  for (int unused : {0, 1000, 11000}) {  // the last is more than a block has without asking
    out.upload(std::vector<double>(n, -1.0));
    device.launch(BlockSums{in.data(), out.data(), unused}, Grid{7, 5}, BlockSums::shared_bytes(unused));
    CHECK(read(device, out, n) == expected);
  }
  // Two objects of one GPU: what one asks for takes nothing from the other.
  CudaDevice other(0);
  for (CudaDevice* user : {&device, &other, &device}) {
    const int unused = user == &device ? 11000 : 8000;
    user->launch(BlockSums{in.data(), out.data(), unused}, Grid{7, 5}, BlockSums::shared_bytes(unused));
    user->synchronize();
    CHECK(read(device, out, n) == expected);
  }
  CHECK_THROWS(device.launch(BlockSums{in.data(), out.data(), 40000}, Grid{7, 5}, BlockSums::shared_bytes(40000)),
               "kernel block_sums needs 314 kB of shared memory");
  device.launch(BlockSums{in.data(), out.data(), 0}, Grid{0, 5}, BlockSums::shared_bytes(0));
  CHECK(read(device, out, n) == expected);
}

TEST(cuda_atomics_in_fixed_point_are_exact) {
  CudaDevice device(0);
  const double scale = std::ldexp(1.0, 40);
  constexpr std::int64_t n = 999 * AddNumbers::threads;
  std::int64_t expected[3] = {};
  for (std::int64_t i = 0; i < n; ++i)
    expected[i % 3] += std::llrint((1e-3 * static_cast<double>(i % 1009) - 0.4) * scale);
  Buffer<CudaDevice, std::int64_t> sums(device, "sums");
  Buffer<CudaDevice, std::uint64_t> smallest(device, "numbers");
  for (int round = 0; round < 3; ++round) {
    sums.upload(std::vector<std::int64_t>(4, 0));
    smallest.upload(std::vector<std::uint64_t>(1, ~std::uint64_t{0}));
    device.launch(AddNumbers{{sums.data(), true, scale}, sums.data() + 3, smallest.data()}, Grid{999});
    std::int64_t found[4];
    std::uint64_t least = 0;
    sums.download(found, 4);
    smallest.download(&least, 1);
    device.synchronize();
    // The compiler may contract the product and the difference: half a step for every number at most.
    for (int k = 0; k < 3; ++k)
      CHECK_NEAR(static_cast<double>(found[k]), static_cast<double>(expected[k]), 0.5 * n / 3);
    CHECK(found[3] == n && least == static_cast<std::uint64_t>(1000000 - (n - 1)));
    if (round == 0) std::copy(found, found + 3, expected);
    if (round > 0) CHECK(std::equal(found, found + 3, expected));
  }
}

TEST(cuda_copies_of_any_size) {
  CudaDevice device(0);
  for (std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{5000000}}) {
    Buffer<CudaDevice, double> a(device, "numbers"), b(device, "numbers");
    std::vector<double> list = numbers(n);
    const std::vector<double> expected = list;
    a.upload(list);
    for (double& x : list) x = -1.0;  // host memory of an upload may be used again at once
    b.reserve(n);
    device.copy(b.data(), a.data(), n * sizeof(double));
    device.fill_zero(a.data(), n * sizeof(double));
    CHECK(read(device, b, n) == expected);
    CHECK(read(device, a, n) == std::vector<double>(n, 0.0));
    // Many small ones, delivered by one wait.
    std::vector<double> pieces(n);
    for (std::size_t i = 0; i < n && n <= 1000; ++i) device.download(&pieces[i], b.data() + i, sizeof(double));
    device.synchronize();
    if (n <= 1000) CHECK(pieces == expected);
  }
}

TEST(cuda_replays_recorded_work) {
  CudaDevice device(0);
  constexpr std::size_t n = 64 * Scale::threads;
  Buffer<CudaDevice, double> x(device, "numbers"), y(device, "numbers");
  x.upload(std::vector<double>(n, 1.0));
  y.reserve(n);
  double expected = 1.0;
  for (int round = 0; round < 6; ++round) {
    const int key = round % 2;  // two records in turn
    device.replay(key, [&] {
      device.launch(Scale{x.data(), key == 0 ? 2.0 : 1.5, 1}, Grid{64});
      device.replay(17, [&] { device.copy(y.data(), x.data(), n * sizeof(double)); });  // replays may be nested
    });
    expected *= key == 0 ? 2.0 : 1.5;
    CHECK(read(device, y, n) == std::vector<double>(n, expected));
  }
  // Memory that goes takes the records with it; work that cannot be recorded says so and does no harm.
  {
    Buffer<CudaDevice, double> gone(device, "numbers");
    gone.reserve(100);
  }
  device.replay(0, [&] { device.launch(Scale{x.data(), 0.5, 1}, Grid{64}); });
  expected *= 0.5;
  CHECK(read(device, x, n) == std::vector<double>(n, expected));
  const auto upload = [&] { device.replay(99, [&] { x.upload(std::vector<double>(n, 3.0)); }); };
  upload();
  CHECK_THROWS(upload(), "an upload in recorded work");
  device.launch(Scale{x.data(), 2.0, 1}, Grid{64});
  CHECK(read(device, x, n) == std::vector<double>(n, 6.0));
}

TEST(cuda_streams_hand_work_over) {
  CudaDevice device(0);
  constexpr std::size_t n = 1024 * Scale::threads;
  Buffer<CudaDevice, double> x(device, "numbers");
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  for (int round = 0; round < 3; ++round) {
    x.upload(std::vector<double>(n, 1.0));
    double expected = 1.0;
    for (void* stream : {static_cast<void*>(streams[0]), static_cast<void*>(streams[1]), static_cast<void*>(nullptr)}) {
      device.use_stream(stream);
      device.launch(Scale{x.data(), -1.0, 20001}, Grid{1024});  // long enough to be overtaken, were it not waited for
      device.launch(Scale{x.data(), 2.0, 1}, Grid{1024});
      expected *= -2.0;
    }
    CHECK(read(device, x, n) == std::vector<double>(n, expected));
  }
  for (cudaStream_t stream : streams) CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST(cuda_memory_that_does_not_fit_is_named) {
  CudaDevice device(0);
  Buffer<CudaDevice, double> all(device, "the numbers of the test");
  CHECK_THROWS(all.reserve(std::size_t{1} << 44), "the numbers of the test need");
  CHECK(device.allocated_bytes() == 0 && device.free_bytes() > 0);
  all.upload(numbers(10));
  CHECK(device.allocated_bytes() == 80);
  CHECK(read(device, all, 10) == numbers(10));
}

TEST(cuda_profiles_measure_kernels) {
  CudaDevice device(0);
  Buffer<CudaDevice, double> x(device, "numbers");
  x.upload(numbers(1024 * Scale::threads));
  device.launch(Scale{x.data(), 1.0, 1}, Grid{1024});
  device.start_profile();
  for (int k = 0; k < 3; ++k) device.launch(Scale{x.data(), 1.0, 10000}, Grid{1024});
  const std::vector<grace::KernelTime> times = device.profile();
  CHECK(times.size() == 1 && times[0].name == "scale" && times[0].launches == 3);
  CHECK(!times.empty() && times[0].seconds > 0.0 && times[0].seconds < 10.0);
}

TEST(cuda_devices_that_are_not_there) {
  CHECK_THROWS(CudaDevice(4096), "device cuda:4096 requested");
  CHECK_THROWS(CudaDevice(-1), "device cuda:-1 requested");
}
