// Runs every TEST of the executable, or those whose name contains one of the arguments; "2/3": the second, fifth, ...
// of all. Exit status 77 where the device of the tests (test_target.hpp) cannot be used.
#include <algorithm>
#include <cstdio>

#include "check.hpp"
#ifdef GRACE_TEST_CUDA
#include "grace/device/cuda_probe.hpp"
#endif

// The comparisons themselves: NaN must fail, or every other test is worth nothing.
TEST(nan_fails_every_comparison) {
  const int before = check::failures();
  std::cerr << "(the next two messages are wanted)\n";
  CHECK_NEAR(std::nan(""), 0.0, 1.0);
  CHECK_NEAR(0.0, 0.0, std::nan(""));
  const bool both_failed = check::failures() == before + 2;
  check::failures() = before;
  CHECK(both_failed);
}

int main(int argc, char** argv) {
#ifdef GRACE_TEST_CUDA
  const std::string obstacle = grace::device::cuda_obstacle(grace::device::cuda_probe().facts, 0);
  if (!obstacle.empty()) {
    std::cout << "skipped: " << obstacle << "\n";
    return 77;
  }
#endif
  std::vector<std::string> wanted(argv + 1, argv + argc);
  int part = 1, parts = 1;
  if (argc == 2 && std::sscanf(argv[1], "%d/%d", &part, &parts) == 2 && parts > 0) wanted.clear();
  int run = 0, number = 0;
  for (const check::Case& test : check::cases()) {
    if (number++ % parts != part - 1) continue;
    const auto named = [&](const std::string& words) { return test.name.find(words) != std::string::npos; };
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(), named)) continue;
    ++run;
    const int before = check::failures();
    try {
      test.body();
    } catch (const std::exception& error) {
      check::report(test.name.c_str(), 0, std::string("unexpected exception: ") + error.what());
    }
    std::cout << (check::failures() == before ? "passed " : "FAILED ") << test.name << "\n";
  }
  std::cout << run << " tests, " << check::failures() << " failures\n";
  return check::failures() == 0 && run > 0 ? 0 : 1;
}
