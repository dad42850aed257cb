// Zip archives of stored members (PKWARE APPNOTE 4.3 to 4.5, with zip64) as written by numpy.savez. The arrays inside
// are parsed by npy.cpp. Every number read from the file is checked against the file size before it is used.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "grace/error.hpp"
#include "grace/model/npy.hpp"
#include "grace/model/sha256.hpp"
#include "grace/model/weights.hpp"

namespace grace {
namespace {

using Bytes = std::vector<unsigned char>;

std::uint64_t little_endian(const unsigned char* bytes, int n) {
  std::uint64_t value = 0;
  for (int i = n - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// CRC-32 of zip (polynomial 0xEDB88320), eight bytes per step: checking a 200 MB file must not be felt.
class Crc32 {
 public:
  Crc32() {
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t value = byte;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0u);
      table_[0][byte] = value;
    }
    for (int k = 1; k < 8; ++k) {
      for (int byte = 0; byte < 256; ++byte) {
        table_[k][byte] = (table_[k - 1][byte] >> 8) ^ table_[0][table_[k - 1][byte] & 255];
      }
    }
  }

  std::uint32_t operator()(const Bytes& data) const {
    std::uint32_t crc = 0xFFFFFFFFu;
    std::size_t i = 0;
    for (; i + 8 <= data.size(); i += 8) {
      const std::uint64_t block = little_endian(&data[i], 8) ^ crc;
      crc = 0;
      for (int k = 0; k < 8; ++k) crc ^= table_[7 - k][(block >> (8 * k)) & 255];
    }
    for (; i < data.size(); ++i) crc = (crc >> 8) ^ table_[0][(crc ^ data[i]) & 255];
    return ~crc;
  }

 private:
  std::array<std::array<std::uint32_t, 256>, 8> table_;
};

constexpr std::uint32_t kLocalHeader = 0x04034b50, kCentralEntry = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::uint64_t kEndSize = 22, kCentralSize = 46, kLocalSize = 30, kEnd64Size = 56, kLocatorSize = 20;
constexpr std::uint64_t kMaxComment = 0xFFFF, kIn64 = 0xFFFFFFFF;  // kIn64: the value stands in the zip64 field
constexpr int kStored = 0;

struct Member {
  std::uint64_t header_offset = 0;
  std::uint64_t stored_size = 0;
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
  int method = 0;
  int flags = 0;
};

}  // namespace

struct NpzFile::Directory {
  std::string name;
  bool in_memory = false;
  Bytes memory;
  std::uint64_t file_size = 0;
  std::map<std::string, Member> members;  // key: member name without ".npy"

  [[noreturn]] void damaged(const std::string& what) const {
    throw Error("`" + name + "` is not a readable npz file: " + what + "; copy or write it again.");
  }

  // Bytes [offset, offset + size); the caller may pass any numbers.
  Bytes bytes(std::uint64_t offset, std::uint64_t size) const {
    if (offset > file_size || size > file_size - offset) damaged("it is truncated or its directory points outside");
    if (in_memory) return Bytes(memory.begin() + offset, memory.begin() + offset + size);
    Bytes data(size);
    std::ifstream file(name, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(size));
    if (!file) damaged("reading it failed");
    return data;
  }

  void parse();
  void parse_entries(const Bytes& central, std::uint64_t central_offset, std::uint64_t n_entries);
  Bytes member_bytes(const std::string& key, const Member& member) const;
};

void NpzFile::Directory::parse() {
  if (file_size < kEndSize) damaged("it has only " + std::to_string(file_size) + " bytes");
  const std::uint64_t tail_size = std::min(file_size, kEndSize + kMaxComment);
  const Bytes tail = bytes(file_size - tail_size, tail_size);
  std::uint64_t end = tail_size;  // of the end record in `tail`
  for (std::uint64_t at = tail_size - kEndSize + 1; at-- > 0;) {
    if (little_endian(&tail[at], 4) == kEnd && little_endian(&tail[at + 20], 2) == tail_size - at - kEndSize) {
      end = at;
      break;
    }
  }
  if (end == tail_size) damaged("it has no zip directory, so it is truncated or of another kind");

  std::uint64_t limit = file_size - tail_size + end;  // the central directory ends here
  std::uint64_t n_entries = little_endian(&tail[end + 10], 2);
  std::uint64_t central_size = little_endian(&tail[end + 12], 4);
  std::uint64_t central_offset = little_endian(&tail[end + 16], 4);
  if (n_entries == 0xFFFF || central_size == kIn64 || central_offset == kIn64) {
    if (limit < kLocatorSize) damaged("its zip64 directory is missing");
    const Bytes locator = bytes(limit - kLocatorSize, kLocatorSize);
    if (little_endian(&locator[0], 4) != kEnd64Locator) damaged("its zip64 directory is missing");
    limit = little_endian(&locator[8], 8);
    const Bytes end64 = bytes(limit, kEnd64Size);
    if (little_endian(&end64[0], 4) != kEnd64) damaged("its zip64 directory is damaged");
    n_entries = little_endian(&end64[32], 8);
    central_size = little_endian(&end64[40], 8);
    central_offset = little_endian(&end64[48], 8);
  }
  if (central_offset > limit || central_size > limit - central_offset || n_entries > central_size / kCentralSize) {
    damaged("its zip directory is truncated or damaged");
  }
  parse_entries(bytes(central_offset, central_size), central_offset, n_entries);
}

void NpzFile::Directory::parse_entries(const Bytes& central, std::uint64_t central_offset, std::uint64_t n_entries) {
  std::uint64_t at = 0;
  for (std::uint64_t entry = 0; entry < n_entries; ++entry) {
    if (central.size() - at < kCentralSize || little_endian(&central[at], 4) != kCentralEntry) {
      damaged("entry " + std::to_string(entry) + " of its zip directory is damaged");
    }
    const unsigned char* fields = &central[at];
    Member member;
    member.flags = static_cast<int>(little_endian(fields + 8, 2));
    member.method = static_cast<int>(little_endian(fields + 10, 2));
    member.crc = static_cast<std::uint32_t>(little_endian(fields + 16, 4));
    member.stored_size = little_endian(fields + 20, 4);
    member.size = little_endian(fields + 24, 4);
    member.header_offset = little_endian(fields + 42, 4);
    const std::uint64_t name_size = little_endian(fields + 28, 2), extra_size = little_endian(fields + 30, 2);
    const std::uint64_t comment_size = little_endian(fields + 32, 2);
    at += kCentralSize;
    if (name_size + extra_size + comment_size > central.size() - at) {
      damaged("entry " + std::to_string(entry) + " of its zip directory is truncated");
    }
    std::string member_name(central.begin() + at, central.begin() + at + name_size);

    // Extra fields are (id, size, data); id 1 holds, in this order, those 64-bit numbers that did not fit above.
    std::uint64_t extra = at + name_size;
    const std::uint64_t extra_end = extra + extra_size;
    while (extra_end - extra >= 4) {
      const std::uint64_t id = little_endian(&central[extra], 2), size = little_endian(&central[extra + 2], 2);
      extra += 4;
      if (size > extra_end - extra) break;
      std::uint64_t field = extra;
      for (std::uint64_t* number : {&member.size, &member.stored_size, &member.header_offset}) {
        if (id != 1 || *number != kIn64 || extra + size - field < 8) continue;
        *number = little_endian(&central[field], 8);
        field += 8;
      }
      extra += size;
    }
    at += name_size + extra_size + comment_size;

    if (member.header_offset > central_offset || member.stored_size > central_offset - member.header_offset) {
      damaged("member '" + member_name + "' lies outside the file");
    }
    constexpr std::size_t kSuffix = 4;
    if (member_name.size() <= kSuffix || member_name.substr(member_name.size() - kSuffix) != ".npy") continue;
    member_name.resize(member_name.size() - kSuffix);
    if (!members.emplace(member_name, member).second) damaged("array '" + member_name + "' is there twice");
  }
}

Bytes NpzFile::Directory::member_bytes(const std::string& key, const Member& member) const {
  require((member.flags & 1) == 0, "Array '", key, "' in ", name, " is encrypted; rewrite it with numpy.savez.");
  require(member.method == kStored, "Array '", key, "' in ", name,
          " is compressed; rewrite it with numpy.savez (not savez_compressed) or run 'grace-md convert ", name,
          " OUT'.");
  if (member.size != member.stored_size) damaged("the sizes of array '" + key + "' contradict each other");
  const Bytes header = bytes(member.header_offset, kLocalSize);
  if (little_endian(&header[0], 4) != kLocalHeader) damaged("the header of array '" + key + "' is damaged");
  const std::uint64_t skip = kLocalSize + little_endian(&header[26], 2) + little_endian(&header[28], 2);
  Bytes data = bytes(member.header_offset + skip, member.size);
  static const Crc32 crc32;
  if (crc32(data) != member.crc) damaged("array '" + key + "' is corrupted (its CRC-32 does not match)");
  return data;
}

NpzFile::NpzFile(std::unique_ptr<Directory> directory) : directory_(std::move(directory)) { directory_->parse(); }

NpzFile::NpzFile(const std::string& path) : directory_(std::make_unique<Directory>()) {
  std::error_code status;
  require(std::filesystem::exists(path, status), "Weight file `", path, "` does not exist; check the path.");
  require(std::filesystem::is_regular_file(path, status), "Weight file `", path, "` is not a file; give an .npz file.");
  const std::string suffix = std::filesystem::path(path).extension().string();
  require(suffix != ".yaml" && suffix != ".yml", "`", path,
          "` is a YAML file: GRACE/FS models are not supported; give the .npz of a one- or two-layer model.");
  const std::uintmax_t size = std::filesystem::file_size(path, status);
  require(!status && std::ifstream(path, std::ios::binary).good(), "Weight file `", path,
          "` cannot be opened for reading; check its permissions.");
  directory_->name = path;
  directory_->file_size = size;
  directory_->parse();
}

NpzFile::~NpzFile() = default;

NpzFile NpzFile::from_bytes(std::string name, std::vector<unsigned char> bytes) {
  auto directory = std::make_unique<Directory>();
  directory->name = std::move(name);
  directory->in_memory = true;
  directory->file_size = bytes.size();
  directory->memory = std::move(bytes);
  return NpzFile(std::move(directory));
}

std::string NpzFile::name() const { return directory_->name; }

std::vector<std::string> NpzFile::keys() const {
  std::vector<std::string> keys;
  for (const auto& item : directory_->members) keys.push_back(item.first);
  return keys;
}

bool NpzFile::has(const std::string& key) const { return directory_->members.count(key) != 0; }

Array NpzFile::read(const std::string& key) const {
  const auto found = directory_->members.find(key);
  require(found != directory_->members.end(), "Array '", key, "' is missing in ", name(),
          "; the file is not a complete model, export it again.");
  return parse_npy(directory_->member_bytes(key, found->second), "array '" + key + "' in " + name());
}

std::string NpzFile::sha256() const {
  Sha256 hash;
  constexpr std::uint64_t kChunk = 1 << 20;
  for (std::uint64_t offset = 0; offset < directory_->file_size; offset += kChunk) {
    const Bytes chunk = directory_->bytes(offset, std::min(kChunk, directory_->file_size - offset));
    hash.update(chunk.data(), chunk.size());
  }
  return hash.hexadecimal();
}

}  // namespace grace
