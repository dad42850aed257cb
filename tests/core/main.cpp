// Runs every TEST of the executable, or those whose name contains the first argument.
#include "check.hpp"

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
  const std::string filter = argc > 1 ? argv[1] : "";
  int run = 0;
  for (const check::Case& test : check::cases()) {
    if (test.name.find(filter) == std::string::npos) continue;
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
