// Feeds damaged weight files to the reader: fuzz_npz FILE [mutations] [seed].
//
// Only grace::Error may escape, and no single allocation may exceed 16 times the file plus 1 MB. Half of the mutations
// repair the CRC-32 of the member they damage, so that the parsers behind it are reached.
#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "grace/error.hpp"
#include "grace/model/spec.hpp"
#include "npz_writer.hpp"

namespace {
std::size_t largest_allocation = 0;
}  // namespace

// Replaced to see the size of every allocation of the reader.
void* operator new(std::size_t size) {
  largest_allocation = std::max(largest_allocation, size);
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {  // temporary buffers of std::stable_sort
  largest_allocation = std::max(largest_allocation, size);
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using npz::Bytes;

std::uint64_t number_at(const Bytes& bytes, std::size_t at, int width) {
  std::uint64_t value = 0;
  for (int i = width - 1; i >= 0; --i) value = value << 8 | bytes[at + i];
  return value;
}

void put(Bytes& bytes, std::size_t at, std::uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes[at + i] = static_cast<unsigned char>(value >> (8 * i));
}

struct Member {
  std::size_t central = 0;  // of its directory entry
  std::size_t data = 0;     // of its npy bytes
  std::size_t size = 0;
  std::size_t header = 0;  // bytes of the npy header
};

class Mutator {
 public:
  Mutator(Bytes original, unsigned seed) : original_(std::move(original)), random_(seed) {
    const std::size_t end = original_.size() - 22;  // numpy writes no comment
    std::size_t at = number_at(original_, end + 16, 4);
    directory_ = at;
    for (std::uint64_t n = number_at(original_, end + 10, 2); n > 0; --n) {
      const std::size_t local = number_at(original_, at + 42, 4);
      Member member;
      member.central = at;
      member.data = local + 30 + number_at(original_, local + 26, 2) + number_at(original_, local + 28, 2);
      member.size = number_at(original_, at + 24, 4);
      member.header = 10 + number_at(original_, member.data + 8, 2);
      members_.push_back(member);
      at += 46 + number_at(original_, at + 28, 2) + number_at(original_, at + 30, 2) + number_at(original_, at + 32, 2);
    }
  }

  Bytes next() {
    Bytes bytes = original_;
    const std::size_t size = bytes.size();
    const Member& member = members_[below(members_.size())];
    bool is_repaired = true;
    switch (below(10)) {
      case 0:  // a bit anywhere
        flip(bytes, below(size));
        is_repaired = false;
        break;
      case 1:  // the end is missing
        bytes.resize(below(size));
        return bytes;
      case 2: {  // a piece copied over another place
        const std::size_t n = 1 + below(size / 4), from = below(size - n), to = below(size - n);
        std::copy_n(original_.begin() + from, n, bytes.begin() + to);
        return bytes;
      }
      case 3: {  // a piece cut out or inserted twice
        const std::size_t at = below(size), n = below(size - at);
        if (below(2)) {
          bytes.erase(bytes.begin() + at, bytes.begin() + at + n);
        } else {
          bytes.insert(bytes.begin() + at, original_.begin(), original_.begin() + below(4096));
        }
        return bytes;
      }
      case 4:  // a number of the zip directory
        put(bytes, directory_ + below(size - directory_ - 8), interesting(), 1 << below(4));
        is_repaired = false;
        break;
      case 5:  // a number of a local header
        put(bytes, member.data - 4 - below(std::min<std::size_t>(60, member.data - 4)), interesting(), 1 << below(3));
        is_repaired = false;
        break;
      case 6:  // a character of an npy header
        bytes[member.data + below(member.header)] = static_cast<unsigned char>(below(256));
        break;
      case 7:  // a digit of an npy header: another shape, type or width
        change_character(bytes, member, "0123456789", "0123456789");
        break;
      case 8:  // another type letter or byte order
        change_character(bytes, member, "<|fiSbuOU>", "<|fiSbuOU>=");
        break;
      default:  // data: indices, counts, weights
        if (member.size > member.header) {
          const std::size_t room = member.size - member.header;
          const std::size_t at = member.data + member.header + below(room);
          if (below(2)) {
            flip(bytes, at);
          } else {
            put(bytes, std::min(at, member.data + member.size - std::min<std::size_t>(8, room)), interesting(),
                static_cast<int>(std::min<std::size_t>(8, room)));
          }
        }
    }
    if (is_repaired) put(bytes, member.central + 16, npz::crc32(&bytes[member.data], member.size), 4);
    return bytes;
  }

 private:
  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }
  void flip(Bytes& bytes, std::size_t at) { bytes[at] ^= static_cast<unsigned char>(1U << below(8)); }
  std::uint64_t interesting() {
    static const std::uint64_t values[] = {0,
                                           1,
                                           2,
                                           7,
                                           0xFF,
                                           0xFFFF,
                                           0x7FFFFFFF,
                                           0x80000000,
                                           0xFFFFFFFF,
                                           1ULL << 40,
                                           0x7FFFFFFFFFFFFFFF,
                                           0x8000000000000000,
                                           0xFFFFFFFFFFFFFFFF,
                                           0x7FF8000000000000};
    return below(3) == 0 ? random_() : values[below(std::size(values))];
  }
  void change_character(Bytes& bytes, const Member& member, const std::string& from, const std::string& to) {
    std::vector<std::size_t> places;
    for (std::size_t at = member.data + 10; at < member.data + member.header; ++at) {
      if (from.find(static_cast<char>(bytes[at])) != std::string::npos) places.push_back(at);
    }
    if (!places.empty()) bytes[places[below(places.size())]] = static_cast<unsigned char>(to[below(to.size())]);
  }

  Bytes original_;
  std::mt19937_64 random_;
  std::size_t directory_ = 0;
  std::vector<Member> members_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: fuzz_npz FILE [mutations] [seed]\n";
    return 2;
  }
  const long n_mutations = argc > 2 ? std::atol(argv[2]) : 100000;
  const unsigned seed = argc > 3 ? static_cast<unsigned>(std::atol(argv[3])) : 1;
  std::ifstream stream(argv[1], std::ios::binary);
  const Bytes original{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (original.size() < 1000) {
    std::cerr << argv[1] << " is not a weight file\n";
    return 2;
  }
  Mutator mutator(original, seed);
  long refused_by_reader = 0, refused_by_model = 0, accepted = 0;
  for (long i = 0; i < n_mutations; ++i) {
    Bytes bytes = mutator.next();
    const std::size_t limit = 16 * bytes.size() + (1 << 20);
    largest_allocation = 0;
    try {
      const grace::NpzFile file = grace::NpzFile::from_bytes("mutated", std::move(bytes));
      long unreadable = 0;
      for (const std::string& key : file.keys()) {
        try {
          file.read(key);
        } catch (const grace::Error&) {
          ++unreadable;
        }
      }
      try {
        grace::load_model(file);
        ++accepted;
      } catch (const grace::Error&) {
        ++(unreadable > 0 ? refused_by_reader : refused_by_model);
      }
    } catch (const grace::Error&) {
      ++refused_by_reader;
    } catch (const std::exception& error) {
      std::cerr << "mutation " << i << " of seed " << seed << ": " << error.what() << "\n";
      return 1;
    }
    if (largest_allocation > limit) {
      std::cerr << "mutation " << i << " of seed " << seed << ": allocated " << largest_allocation
                << " bytes for a file of " << (limit - (1 << 20)) / 16 << "\n";
      return 1;
    }
  }
  std::cout << n_mutations << " mutations: " << refused_by_reader << " refused by the reader, " << refused_by_model
            << " by the model, " << accepted << " still a model\n";
  // A fuzz test that never gets past the first check tests nothing.
  return n_mutations < 1000 || (refused_by_reader > 0 && refused_by_model > 0 && accepted > 0) ? 0 : 1;
}
