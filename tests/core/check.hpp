// Unit tests without a framework: TEST(name) { CHECK(...); } in any file of the executable; main.cpp runs them all.
// Every comparison fails on NaN.
#pragma once

#include <cmath>
#include <exception>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "grace/error.hpp"

namespace check {

struct Case {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Registration {
  Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

inline void report(const char* file, int line, const std::string& what) {
  std::cerr << file << ":" << line << ": " << what << "\n";
  ++failures();
}

// Runs `action`, which must throw grace::Error with `needle` in its message.
template <class Action>
void throws(const char* file, int line, const char* expression, const std::string& needle, Action&& action) {
  try {
    action();
  } catch (const grace::Error& error) {
    const std::string message = error.what();
    if (message.find(needle) == std::string::npos) {
      report(file, line, std::string(expression) + " says \"" + message + "\" without \"" + needle + "\"");
    }
    return;
  } catch (const std::exception& error) {
    report(file, line, std::string(expression) + " threw another exception: " + error.what());
    return;
  }
  report(file, line, std::string(expression) + " did not throw; expected \"" + needle + "\"");
}

}  // namespace check

#define TEST(name)                                               \
  static void name();                                            \
  static const check::Registration register_##name(#name, name); \
  static void name()

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) check::report(__FILE__, __LINE__, "CHECK(" #condition ") is false"); \
  } while (false)

#define CHECK_NEAR(value, expected, tolerance)                                                   \
  do {                                                                                           \
    const double check_value = (value), check_expected = (expected);                             \
    if (!(std::abs(check_value - check_expected) <= (tolerance))) {                              \
      check::report(__FILE__, __LINE__,                                                          \
                    #value " = " + std::to_string(check_value) + ", expected " #expected " = " + \
                        std::to_string(check_expected));                                         \
    }                                                                                            \
  } while (false)

#define CHECK_THROWS(expression, needle) \
  check::throws(__FILE__, __LINE__, #expression, needle, [&] { static_cast<void>(expression); })
