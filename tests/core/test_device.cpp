// The emulated device must see the mistakes that it exists for; and every reason for which a GPU cannot be used is one
// sentence.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "check.hpp"
#include "grace/device/atomics.hpp"
#include "grace/device/buffer.hpp"
#include "grace/device/call.hpp"
#include "grace/device/cuda_probe.hpp"
#include "grace/device/emulated_device.hpp"

using namespace grace::device;

namespace {

constexpr int n_threads = 32;
constexpr unsigned n_blocks = 5;
constexpr std::size_t n_numbers = n_threads * n_blocks;

// Sums of neighbours: thread t needs what thread t - 1 wrote. Without the second phase that holds only in natural
// order.
template <bool with_barrier>
struct ShiftedSum {
  static constexpr const char* name = "shifted_sum";
  static constexpr int threads = n_threads;
  struct Private {
    double value;
  };
  const double* in;
  double* out;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    double* values = block.template shared<double>(threads);
    const auto write = [&](int thread, Private& own) {
      own.value = in[block.x() * threads + thread];
      values[thread] = own.value;
    };
    const auto add = [&](int thread, Private& own) {
      out[block.x() * threads + thread] = own.value + (thread > 0 ? values[thread - 1] : 0.0);
    };
    if constexpr (with_barrier) {
      block.each_thread(write);
      block.each_thread(add);
    } else {
      block.each_thread([&](int thread, Private& own) {
        write(thread, own);
        add(thread, own);
      });
    }
  }
};

template <bool with_barrier>
std::vector<double> shifted_sum(std::uint64_t seed) {
  EmulatedDevice device(seed);
  Buffer<EmulatedDevice, double> in(device, "numbers"), out(device, "sums");
  std::vector<double> numbers;
  for (std::size_t i = 0; i < n_numbers; ++i) numbers.push_back(1.0 + 0.25 * static_cast<double>(i));
  in.upload(numbers);
  out.reserve(n_numbers);
  device.launch(ShiftedSum<with_barrier>{in.data(), out.data()}, Grid{n_blocks}, shared_size<double>(n_threads));
  out.download(numbers.data(), n_numbers);
  device.synchronize();
  return numbers;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i])) return false;
  return a.size() == b.size();
}

// Writes what it finds in memory that nobody wrote.
struct ReadsUndefined {
  static constexpr const char* name = "reads_undefined";
  static constexpr int threads = 4;
  struct Private {
    double real;
    int integer;
  };
  double* reals;
  int* integers;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    float* never_written = block.template shared<float>(threads);
    block.each_thread([&](int thread, Private& own) {
      reals[2 * thread] = own.real;
      reals[2 * thread + 1] = static_cast<double>(never_written[thread]);
      integers[thread] = own.integer;
    });
  }
};

// Every block and thread adds one.
struct Counts {
  static constexpr const char* name = "counts";
  static constexpr int threads = 64;
  using Private = NoPrivate;
  std::int64_t* sum;
  AtomicSum<double> fixed;

  template <class Block>
  GRACE_DEVICE void operator()(Block& block) const {
    block.each_thread([&](int thread, Private&) {
      atomic_add(sum, std::int64_t{1});
      fixed.add(0, 1e-3 * thread + 1e-6 * block.x() + block.y());
    });
  }
};

struct TooWide {
  static constexpr const char* name = "too_wide";
  static constexpr int threads = 2048;
  using Private = NoPrivate;
  template <class Block>
  GRACE_DEVICE void operator()(Block&) const {}
};

CudaFacts facts(int error, int driver, int runtime, std::vector<int> capabilities) {
  CudaFacts f;
  f.built = true;
  f.error = error;
  f.error_text = "the words of the runtime";
  f.driver_version = driver;
  f.runtime_version = runtime;
  f.n_devices = static_cast<int>(capabilities.size());
  f.capabilities = std::move(capabilities);
  f.architectures = {80, 90, 100, 120};
  return f;
}

}  // namespace

TEST(emulated_device_runs_phases_in_any_order) {
  const std::vector<double> expected = shifted_sum<true>(0);
  CHECK_NEAR(expected[1], 1.0 + 1.25, 0.0);
  CHECK_NEAR(expected[n_threads], 1.0 + 0.25 * n_threads, 0.0);
  for (std::uint64_t seed = 1; seed < 5; ++seed) CHECK(same(shifted_sum<true>(seed), expected));
}

TEST(emulated_device_detects_a_missing_barrier) {
  const std::vector<double> expected = shifted_sum<true>(0);
  CHECK(same(shifted_sum<false>(0), expected));  // natural order hides the mistake
  for (std::uint64_t seed = 1; seed < 5; ++seed) CHECK(!same(shifted_sum<false>(seed), expected));
}

TEST(emulated_device_poisons_memory) {
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    EmulatedDevice device(seed);
    Buffer<EmulatedDevice, double> reals(device, "reals");
    Buffer<EmulatedDevice, int> integers(device, "integers");
    reals.reserve(8);
    integers.reserve(4);
    for (int k = 0; k < 8; ++k) CHECK(std::isnan(reals.data()[k]));
    device.fill_zero(reals.data(), 8 * sizeof(double));
    device.launch(ReadsUndefined{reals.data(), integers.data()}, Grid{1}, shared_size<float>(4));
    for (int k = 0; k < 8; ++k) CHECK(std::isnan(reals.data()[k]));
    for (int k = 0; k < 4; ++k) CHECK(integers.data()[k] > 1000000);
  }
}

TEST(emulated_device_visits_every_block_once) {
  double first_sum = 0.0;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    EmulatedDevice device(seed);
    Buffer<EmulatedDevice, std::int64_t> numbers(device, "numbers");
    numbers.reserve(2);
    device.fill_zero(numbers.data(), 2 * sizeof(std::int64_t));
    const AtomicSum<double> fixed{numbers.data() + 1, true, 1099511627776.0};
    device.launch(Counts{numbers.data(), fixed}, Grid{7, 3});
    device.launch(Counts{numbers.data(), fixed}, Grid{0, 3});
    device.launch(Counts{numbers.data(), fixed}, Grid{7, 0});
    CHECK(numbers.data()[0] == 7 * 3 * 64);
    const double sum = static_cast<double>(numbers.data()[1]);
    if (seed == 0) first_sum = sum;
    CHECK_NEAR(sum, first_sum, 0.0);  // fixed point: the same in every order
  }
  CHECK_NEAR(first_sum / 1099511627776.0, 7 * 3 * 2.016 + 3 * 64 * 21e-6 + 7 * 64 * 3, 1e-8);
}

TEST(emulated_device_checks_launches) {
  EmulatedDevice device(1);
  std::int64_t sum = 0;
  const Counts counts{&sum, {}};
  CHECK_THROWS(device.launch(counts, Grid{1, 65536}), "launch limits exceeded by kernel counts");
  CHECK_THROWS(device.launch(counts, Grid{1}, 228 * 1024), "launch limits exceeded by kernel counts");
  CHECK_THROWS(device.launch(TooWide{}, Grid{1}), "launch limits exceeded by kernel too_wide");
  double numbers[2 * n_threads] = {};
  CHECK_THROWS(device.launch(ShiftedSum<true>{numbers, numbers}, Grid{1}, 64), "its launch gave 64");
  CHECK(sum == 0);
}

TEST(downloads_arrive_when_they_are_waited_for) {
  EmulatedDevice device(0);
  Buffer<EmulatedDevice, int> numbers(device, "numbers");
  numbers.upload(std::vector<int>{1, 2});
  std::vector<int> host(2, 0);
  const auto download = [&](bool fails) {
    const Call<EmulatedDevice> call(device, nullptr);
    numbers.download(host.data(), 2);
    if (fails) throw grace::Error("out of memory");
  };
  download(false);
  CHECK(host == std::vector<int>({0, 0}));
  device.synchronize();
  CHECK(host == std::vector<int>({1, 2}));
  host = {0, 0};
  CHECK_THROWS(download(true), "out of memory");
  device.synchronize();
  CHECK(host == std::vector<int>({0, 0}));
}

TEST(device_memory_is_counted_and_bounded) {
  EmulatedDevice device(0, 1000);
  {
    Buffer<EmulatedDevice, double> numbers(device, "the numbers of the test");
    CHECK(!numbers.reserve(0));
    CHECK(numbers.reserve(10));
    CHECK(!numbers.reserve(10));
    CHECK(device.allocated_bytes() == 80);
    CHECK(numbers.reserve_roomy(11));
    CHECK(numbers.size() == 13);
    CHECK_THROWS(numbers.reserve(126), "the numbers of the test need");
    CHECK(numbers.size() == 0 && numbers.data() == nullptr);
    CHECK(numbers.reserve(125));  // what was there before was given back first
    Buffer<EmulatedDevice, double> moved = std::move(numbers);
    CHECK(moved.size() == 125 && numbers.size() == 0);
  }
  CHECK(device.allocated_bytes() == 0);
  {
    DeviceModelMemory<EmulatedDevice> memory(device);
    const double* kept = memory.keep(std::vector<double>{1.0, 2.0});
    CHECK(kept != nullptr && kept[1] == 2.0);
    CHECK(memory.keep(std::vector<int>{}) == nullptr);
    CHECK(device.allocated_bytes() == 16);
  }
  CHECK(device.free_bytes() == 1000);
}

TEST(usable_gpus_have_no_obstacle) {
  CHECK(cuda_obstacle(facts(0, 13000, 13000, {90}), 0).empty());
  CHECK(cuda_obstacle(facts(0, 13020, 13000, {80, 86, 89, 90, 100, 103, 110, 120, 121}), 8).empty());
  for (int device = 0; device < 9; ++device)
    CHECK(cuda_obstacle(facts(0, 13020, 13000, {80, 86, 89, 90, 100, 103, 110, 120, 121}), device).empty());
  CHECK(cuda_obstacle(facts(0, 13000, 13000, {130}), 0).empty());  // from the PTX
  CHECK(cuda_obstacle(facts(0, 12020, 12040, {90}), 0).empty());   // an older driver of the same major version
}

TEST(every_obstacle_is_a_sentence) {
  const auto says = [](const CudaFacts& f, int index, const std::string& words) {
    const std::string sentence = cuda_obstacle(f, index);
    if (sentence.rfind("device cuda", 0) != 0 || sentence.find(words) == std::string::npos)
      check::report(__FILE__, __LINE__, "\"" + sentence + "\" does not say \"" + words + "\"");
  };
  says(CudaFacts{}, 0, "was built without CUDA; reinstall with GRACE_CUDA=ON");
  says(facts(35, 0, 13000, {}), 0, "no NVIDIA driver found");
  says(facts(35, 12020, 13000, {}), 0,
       "the NVIDIA driver supports CUDA 12.2 but this build needs 13.0 (driver r580 or newer)");
  says(facts(35, 11080, 12040, {}), 0, "supports CUDA 11.8 but this build needs 12.4 (driver r525 or newer)");
  says(facts(35, 13000, 14000, {}), 0, "supports CUDA 13.0 but this build needs 14.0; update the driver");
  says(facts(100, 13000, 13000, {}), 0, "no GPU visible; check CUDA_VISIBLE_DEVICES");
  says(facts(0, 13000, 13000, {}), 0, "no GPU visible; check CUDA_VISIBLE_DEVICES");
  says(facts(999, 13000, 13000, {}), 0, "CUDA could not be started: the words of the runtime (error 999)");
  says(facts(0, 13000, 13000, {90, 90}), 2, "device cuda:2 requested, 2 visible; check CUDA_VISIBLE_DEVICES");
  says(facts(0, 13000, 13000, {90}), -1, "device cuda:-1 requested, 1 visible");
  says(facts(0, 12090, 12080, {80, 70}), 1,
       "device cuda:1 has compute capability 7.0, this build has code for 8.0, 9.0, 10.0, 12.0; GPUs from 8.0 "
       "on can be used, or device cpu");
  says(facts(0, 12090, 12080, {61}), 0, "GPUs from 8.0 on can be used");
  CudaFacts newer = facts(0, 13000, 13000, {80});
  newer.architectures = {90, 100};
  says(newer, 0, "has code for 9.0, 10.0; reinstall with GRACE_CUDA_ARCHITECTURES=80");
}

TEST(the_probe_never_throws) {
  const CudaProbe& probe = cuda_probe();
  CHECK(&probe == &cuda_probe());
  CHECK(probe.built == probe.facts.built);
  CHECK((probe.n_devices == 0) == !probe.reason.empty());
  CHECK(probe.built == !probe.architectures.empty());
  CHECK(static_cast<int>(probe.names.size()) == probe.facts.n_devices);
}
