#include "grace/model/spec_reader.hpp"

#include <cmath>
#include <limits>

namespace grace {
namespace {

std::string in_words(const Shape& shape) {
  std::string words = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis > 0) words += ", ";
    words += shape[axis] == kAnySize ? "any" : std::to_string(shape[axis]);
  }
  return words + (shape.size() == 1 ? ",)" : ")");
}

bool matches(const Shape& shape, const Shape& expected) {
  if (shape.size() != expected.size()) return false;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] < 1 || shape[axis] > std::numeric_limits<int>::max()) return false;
    if (expected[axis] != kAnySize && shape[axis] != expected[axis]) return false;
  }
  return true;
}

}  // namespace

double SpecReader::number(const std::string& key) const {
  const Array array = source_.read(key);
  check(array.kind != Array::Kind::text && array.size() == 1, key, "has shape ", in_words(array.shape),
        ", but must be one number; export the model again.");
  const double value = array.kind == Array::Kind::integer ? static_cast<double>(array.integers[0]) : array.floats[0];
  check(std::isfinite(value), key, "is ", value, ", but must be finite; export the model again.");
  return value;
}

double SpecReader::norm(const std::string& key) const {
  const double value = number(key);
  check(value != 0.0, key, "is 0, which would switch off its weights; export the model again.");
  return value;
}

int SpecReader::integer(const std::string& key) const {
  const double value = number(key);
  const bool fits = std::abs(value) <= std::numeric_limits<int>::max() && value == std::floor(value);
  check(fits, key, "is ", value, ", but must be an integer; export the model again.");
  return static_cast<int>(value);
}

int SpecReader::count(const std::string& key) const {
  const int value = integer(key);
  check(value >= 1, key, "is ", value, ", but must be at least 1; export the model again.");
  return value;
}

bool SpecReader::flag(const std::string& key) const {
  const int value = integer(key);
  check(value == 0 || value == 1, key, "is ", value, ", but must be 0 or 1; export the model again.");
  return value == 1;
}

void SpecReader::require_value(const std::string& key, int expected, const std::string& feature) const {
  const int value = integer(key);
  check(value == expected, key, "is ", value, " (", feature, "), but only ", expected,
        " is supported; use a model without this feature.");
}

FloatArray SpecReader::floats(const std::string& key, const Shape& expected) const {
  Array array = source_.read(key);
  check(array.kind != Array::Kind::text && matches(array.shape, expected), key, "has shape ", in_words(array.shape),
        ", expected numbers of shape ", in_words(expected), "; export the model again.");
  FloatArray result{std::move(array.floats), std::move(array.shape)};
  if (array.kind == Array::Kind::integer) result.values.assign(array.integers.begin(), array.integers.end());
  for (const double value : result.values) {
    check(std::isfinite(value), key, "contains ", value, ", but all weights must be finite; use an undamaged model.");
  }
  return result;
}

std::vector<double> SpecReader::per_element(const std::string& key, std::int64_t n_elements) const {
  const Shape shape = source_.read(key).shape;
  const bool is_list = matches(shape, {n_elements, 1}) || matches(shape, {n_elements});
  if (is_list) return floats(key, shape).values;
  return std::vector<double>(static_cast<std::size_t>(n_elements), number(key));
}

FloatArray SpecReader::weights(const std::string& key, const Shape& expected) {
  FloatArray result = floats(key, expected);
  n_weights_ += static_cast<std::int64_t>(result.values.size());
  return result;
}

std::vector<int> SpecReader::indices(const std::string& key, std::int64_t size, std::int64_t bound) const {
  const Array array = source_.read(key);
  const auto found = static_cast<std::int64_t>(array.integers.size());
  check(array.kind == Array::Kind::integer && found > 0 && (size == kAnySize || found == size), key, "has shape ",
        in_words(array.shape), ", expected ", size == kAnySize ? std::string("some") : std::to_string(size),
        " integers; export the model again.");
  std::vector<int> values;
  values.reserve(array.integers.size());
  for (const std::int64_t value : array.integers) {
    check(value >= 0 && value < bound, key, "contains the index ", value, ", which must lie in 0 to ", bound - 1,
          "; export the model again.");
    values.push_back(static_cast<int>(value));
  }
  return values;
}

std::vector<std::string> SpecReader::texts(const std::string& key) const {
  Array array = source_.read(key);
  check(array.kind == Array::Kind::text && array.shape.size() <= 1 && !array.texts.empty(), key, "has shape ",
        in_words(array.shape), ", but must be a list of names; export the model again.");
  return std::move(array.texts);
}

}  // namespace grace
