// Checked access to a weight file: every number that leaves here has the right shape and range and is finite.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grace/error.hpp"
#include "grace/model/weights.hpp"

namespace grace {

using Shape = std::vector<std::int64_t>;
constexpr std::int64_t kAnySize = -1;  // in an expected shape

struct FloatArray {
  std::vector<double> values;  // C order
  Shape shape;
  std::int64_t operator[](std::size_t axis) const { return shape[axis]; }  // extent
};

class SpecReader {
 public:
  explicit SpecReader(const WeightSource& source) : source_(source) {}

  std::string name() const { return source_.name(); }
  std::vector<std::string> keys() const { return source_.keys(); }
  bool has(const std::string& key) const { return source_.has(key); }

  // Scalars, stored 0-d or as [1], of any numeric type.
  double number(const std::string& key) const;  // finite
  double norm(const std::string& key) const;    // finite and not zero
  int integer(const std::string& key) const;
  int count(const std::string& key) const;  // integer >= 1
  bool flag(const std::string& key) const;  // 0 or 1

  // Throws unless integer `key` equals `expected`; `feature` says in words what another value would mean.
  void require_value(const std::string& key, int expected, const std::string& feature) const;

  // Finite numbers. `expected` may hold kAnySize. `weights` are those that training changes: they are counted.
  FloatArray floats(const std::string& key, const Shape& expected) const;
  FloatArray weights(const std::string& key, const Shape& expected);
  std::int64_t n_weights() const { return n_weights_; }

  // One finite number for all elements, or a column [n_elements][1] or list [n_elements].
  std::vector<double> per_element(const std::string& key, std::int64_t n_elements) const;

  // Indices 0 <= value < bound of any shape with `size` entries (kAnySize: not checked, but not empty).
  std::vector<int> indices(const std::string& key, std::int64_t size, std::int64_t bound) const;

  std::vector<std::string> texts(const std::string& key) const;

  // Throws Error("`key` of FILE " + pieces).
  template <class... Pieces>
  void check(bool condition, const std::string& key, const Pieces&... pieces) const {
    if (!condition) require(false, "`", key, "` of ", source_.name(), " ", pieces...);
  }

 private:
  const WeightSource& source_;
  std::int64_t n_weights_ = 0;
};

}  // namespace grace
