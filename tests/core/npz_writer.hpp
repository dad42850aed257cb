// Weight files made in memory: a minimal zip/npy writer, and a source whose arrays a test can change.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "grace/error.hpp"
#include "grace/model/weights.hpp"

namespace npz {

using Bytes = std::vector<unsigned char>;

inline void append(Bytes& bytes, std::uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes.push_back(i < 8 ? static_cast<unsigned char>(value >> (8 * i)) : 0);
}
inline void append(Bytes& bytes, const std::string& text) {
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
}

inline std::uint32_t crc32(const unsigned char* data, std::size_t size) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

// An npy member with a header such as "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }".
inline Bytes npy(const std::string& header, const Bytes& data, int version = 1) {
  Bytes bytes;
  append(bytes, std::string("\x93NUMPY"));
  append(bytes, static_cast<std::uint64_t>(version), 1);
  append(bytes, 0, 1);
  append(bytes, header.size() + 1, version == 1 ? 2 : 4);
  append(bytes, header + "\n");
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

inline std::string header(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

template <class T>
Bytes raw(const std::vector<T>& values) {
  const auto* data = reinterpret_cast<const unsigned char*>(values.data());
  return Bytes(data, data + values.size() * sizeof(T));
}

struct Options {
  int method = 0;  // 8: deflate (only the number is written)
  int flags = 0;
  bool zip64 = false;  // 64-bit sizes, offsets and end record everywhere
  std::uint32_t crc_change = 0;
};

inline Bytes archive(const std::vector<std::pair<std::string, Bytes>>& members, const Options& options = {}) {
  Bytes file, central;
  for (const auto& [name, data] : members) {
    const std::uint32_t crc = crc32(data.data(), data.size()) ^ options.crc_change;
    const std::uint64_t offset = file.size();
    const std::uint64_t size32 = options.zip64 ? 0xFFFFFFFF : data.size();
    const std::uint64_t offset32 = options.zip64 ? 0xFFFFFFFF : offset;
    Bytes extra;
    if (options.zip64) {
      append(extra, 1, 2);
      append(extra, 24, 2);
      append(extra, data.size(), 8);
      append(extra, data.size(), 8);
      append(extra, offset, 8);
    }
    const auto common = [&](Bytes& bytes) {
      append(bytes, 20, 2);
      append(bytes, static_cast<std::uint64_t>(options.flags), 2);
      append(bytes, static_cast<std::uint64_t>(options.method), 2);
      append(bytes, 0, 4);  // time and date
      append(bytes, crc, 4);
      append(bytes, size32, 4);
      append(bytes, size32, 4);
      append(bytes, name.size(), 2);
      append(bytes, extra.size(), 2);
    };
    append(file, 0x04034b50, 4);
    common(file);
    append(file, name);
    file.insert(file.end(), extra.begin(), extra.end());
    file.insert(file.end(), data.begin(), data.end());
    append(central, 0x02014b50, 4);
    append(central, 20, 2);
    common(central);
    append(central, 0, 2 + 2 + 2 + 4);  // comment, disk, attributes
    append(central, offset32, 4);
    append(central, name);
    central.insert(central.end(), extra.begin(), extra.end());
  }
  const std::uint64_t offset = file.size(), size = central.size(), count = members.size();
  file.insert(file.end(), central.begin(), central.end());
  if (options.zip64) {
    const std::uint64_t end64 = file.size();
    append(file, 0x06064b50, 4);
    append(file, 44, 8);
    append(file, 45, 2);
    append(file, 45, 2);
    append(file, 0, 8);
    append(file, count, 8);
    append(file, count, 8);
    append(file, size, 8);
    append(file, offset, 8);
    append(file, 0x07064b50, 4);
    append(file, 0, 4);
    append(file, end64, 8);
    append(file, 1, 4);
  }
  append(file, 0x06054b50, 4);
  append(file, 0, 4);
  append(file, options.zip64 ? 0xFFFF : count, 2);
  append(file, options.zip64 ? 0xFFFF : count, 2);
  append(file, options.zip64 ? 0xFFFFFFFF : size, 4);
  append(file, options.zip64 ? 0xFFFFFFFF : offset, 4);
  append(file, 0, 2);
  return file;
}

// Arrays that a test may change before it loads them.
class EditableSource final : public grace::WeightSource {
 public:
  explicit EditableSource(const grace::WeightSource& original) {
    for (const std::string& key : original.keys()) arrays[key] = original.read(key);
  }
  std::string name() const override { return "edited"; }
  std::vector<std::string> keys() const override {
    std::vector<std::string> keys;
    for (const auto& item : arrays) keys.push_back(item.first);
    return keys;
  }
  bool has(const std::string& key) const override { return arrays.count(key) != 0; }
  grace::Array read(const std::string& key) const override {
    const auto found = arrays.find(key);
    grace::require(found != arrays.end(), "Array '", key, "' is missing.");
    return found->second;
  }
  void set(const std::string& key, double value) {
    grace::Array array;
    array.floats = {value};
    arrays[key] = array;
  }
  void set(const std::string& key, std::int64_t value) {
    grace::Array array;
    array.kind = grace::Array::Kind::integer;
    array.integers = {value};
    arrays[key] = array;
  }

  std::map<std::string, grace::Array> arrays;
};

}  // namespace npz
