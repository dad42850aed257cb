// SHA-256 (FIPS 180-4): the fingerprint printed wherever a weight file is used.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace grace {

class Sha256 {
 public:
  void update(const unsigned char* data, std::size_t size);
  std::string hexadecimal();  // 64 digits; ends the message, call once

 private:
  void compress(const unsigned char* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> buffer_{};
  std::size_t buffered_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace grace
