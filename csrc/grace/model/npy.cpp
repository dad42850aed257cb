#include "grace/model/npy.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "grace/error.hpp"

namespace grace {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicSize = 6;
constexpr std::size_t kMaxDimensions = 32;
// Text arrays are lists of names. A std::string is much larger than a short name, so a damaged header that turns a
// large array into one-byte texts must not multiply the memory.
constexpr std::int64_t kMaxTexts = 1 << 15;

struct Header {
  std::string descr;  // for example "<f8"
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// The Python dictionary {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderParser {
 public:
  HeaderParser(const std::string& text, const std::string& what) : text_(text), what_(what) {}

  Header parse() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !has_descr) {
        skip_spaces();
        require(at_ < text_.size() && text_[at_] != '[', what_,
                " is a structured array; store each field as an array of its own.");
        header.descr = quoted();
        has_descr = true;
      } else if (key == "fortran_order" && !has_order) {
        header.fortran_order = boolean();
        has_order = true;
      } else if (key == "shape" && !has_shape) {
        header.shape = tuple();
        has_shape = true;
      } else {
        fail();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!has_descr || !has_order || !has_shape || at_ != text_.size()) fail();
    return header;
  }

 private:
  [[noreturn]] void fail() const { throw Error(what_ + " has a damaged npy header; write the file again."); }

  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail();
  }
  std::string quoted() {
    skip_spaces();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) fail();
    const std::size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string::npos) fail();
    const std::string content = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return content;
  }
  bool boolean() {
    skip_spaces();
    for (const bool value : {false, true}) {
      const std::string word = value ? "True" : "False";
      if (text_.compare(at_, word.size(), word) == 0) {
        at_ += word.size();
        return value;
      }
    }
    fail();
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      skip_spaces();
      std::int64_t value = 0;
      const std::size_t start = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        if (value > (std::numeric_limits<std::int64_t>::max() - 9) / 10) fail();
        value = 10 * value + (text_[at_] - '0');
      }
      if (at_ == start || values.size() == kMaxDimensions) fail();
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // long integers of Python 2
      values.push_back(value);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }

  const std::string& text_;
  const std::string& what_;
  std::size_t at_ = 0;
};

template <class T>
T load(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

double half_to_double(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  double magnitude = 0.0;
  if (exponent == 31) {
    magnitude = mantissa ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  } else {
    magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  }
  return half & 0x8000 ? -magnitude : magnitude;
}

double load_float(const unsigned char* bytes, std::int64_t width) {
  if (width == 8) return load<double>(bytes);
  if (width == 4) return load<float>(bytes);
  return half_to_double(load<std::uint16_t>(bytes));
}

std::int64_t load_signed(const unsigned char* bytes, std::int64_t width) {
  if (width == 8) return load<std::int64_t>(bytes);
  if (width == 4) return load<std::int32_t>(bytes);
  if (width == 2) return load<std::int16_t>(bytes);
  return load<std::int8_t>(bytes);
}

std::uint64_t load_unsigned(const unsigned char* bytes, std::int64_t width) {
  if (width == 8) return load<std::uint64_t>(bytes);
  if (width == 4) return load<std::uint32_t>(bytes);
  if (width == 2) return load<std::uint16_t>(bytes);
  return *bytes;
}

std::string load_utf8(const unsigned char* bytes, std::int64_t n_characters) {
  std::string text;
  for (std::int64_t i = 0; i < n_characters; ++i) {
    const auto point = load<std::uint32_t>(bytes + 4 * i);
    // numpy pads with zeros; the names of a model are ASCII, anything else shows as '?'
    text += point < 128 ? static_cast<char>(point) : '?';
  }
  return text;
}

std::int64_t product(const std::vector<std::int64_t>& shape, const std::string& what) {
  std::int64_t count = 1;
  for (const std::int64_t n : shape) {
    // zero-sized dimensions count as one here, so that no product of a part of the shape can overflow either
    require(n == 0 || count <= std::numeric_limits<std::int64_t>::max() / n, what,
            " has an absurd shape; write the file again.");
    count *= n == 0 ? 1 : n;
  }
  for (const std::int64_t n : shape) count = n == 0 ? 0 : count;
  return count;
}

}  // namespace

std::int64_t Array::size() const {
  std::int64_t count = 1;
  for (const std::int64_t n : shape) count *= n;
  return count;
}

Array parse_npy(const std::vector<unsigned char>& bytes, const std::string& what) {
  const std::string damaged = what + " has a damaged npy header; write the file again.";
  require(bytes.size() >= 10 && std::memcmp(bytes.data(), kMagic, kMagicSize) == 0, what,
          " is not a numpy array; write the file with numpy.savez.");
  const int version = bytes[kMagicSize];
  require(version >= 1 && version <= 3, what, " uses npy version ", version, "; versions 1 to 3 can be read.");
  const std::size_t start = version == 1 ? 10 : 12;
  require(bytes.size() >= start, damaged);
  const std::size_t header_size = version == 1 ? load<std::uint16_t>(&bytes[8]) : load<std::uint32_t>(&bytes[8]);
  require(header_size <= bytes.size() - start, damaged);
  const std::string text(bytes.begin() + start, bytes.begin() + start + header_size);
  const Header header = HeaderParser(text, what).parse();

  require(header.descr.size() >= 2, damaged);
  const char order = header.descr[0], type = header.descr[1];
  require(type != 'O', what, " holds Python objects; store plain numbers or texts.");
  require(order != '>', what, " is big-endian; rewrite it on a little-endian machine or run 'grace-md convert'.");
  const std::string digits = header.descr.substr(2);
  require((order == '<' || order == '|' || order == '=') && !digits.empty() && digits.size() <= 6 &&
              digits.find_first_not_of("0123456789") == std::string::npos,
          what, " has the unknown type '", header.descr, "'; store float64, int64 or text arrays.");
  const std::int64_t width = std::stoi(digits);
  const bool is_integer = (type == 'i' || type == 'u') && (width == 1 || width == 2 || width == 4 || width == 8);
  const bool is_float = type == 'f' && (width == 2 || width == 4 || width == 8);
  const bool is_text = (type == 'S' || type == 'U') && width > 0;
  require(is_integer || is_float || is_text || (type == 'b' && width == 1), what, " has the unsupported type '",
          header.descr, "'; store float64, int64 or text arrays.");
  require(!header.fortran_order, what,
          " is stored in Fortran order; store numpy.ascontiguousarray of it or run 'grace-md convert'.");

  Array array;
  array.shape = header.shape;
  const std::int64_t count = product(array.shape, what);
  const std::int64_t item = type == 'U' ? 4 * width : width;
  const std::size_t data_size = bytes.size() - start - header_size;
  require(count <= static_cast<std::int64_t>(data_size) / item && static_cast<std::size_t>(count * item) == data_size,
          what, " has ", data_size, " bytes of data, but its shape and type need ", count, " x ", item,
          "; the file is damaged, write it again.");
  const unsigned char* data = bytes.data() + start + header_size;

  if (is_float) {
    array.kind = Array::Kind::floating;
    array.floats.resize(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) array.floats[i] = load_float(data + i * width, width);
  } else if (is_text) {
    require(count <= kMaxTexts, what, " has ", count, " texts, more than any list of names; the file is damaged.");
    array.kind = Array::Kind::text;
    array.texts.reserve(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
      const unsigned char* start_of_text = data + i * item;
      std::string value =
          type == 'U' ? load_utf8(start_of_text, width) : std::string(start_of_text, start_of_text + width);
      value.erase(value.find_last_not_of('\0') + 1);  // padding
      array.texts.push_back(std::move(value));
    }
  } else {
    array.kind = Array::Kind::integer;
    array.integers.resize(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
      const unsigned char* at = data + i * width;
      if (type == 'i') {
        array.integers[i] = load_signed(at, width);
        continue;
      }
      const std::uint64_t value = load_unsigned(at, width);
      require(value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), what, " holds ", value,
              ", which does not fit into int64; store it as int64.");
      array.integers[i] = static_cast<std::int64_t>(value);
    }
  }
  return array;
}

}  // namespace grace
