// Where weights come from: a stored `.npz` file, or arrays that a caller already holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace grace {

// One array of a weight file. Exactly one of the three vectors is filled, in C order.
struct Array {
  enum class Kind { floating, integer, text };
  Kind kind = Kind::floating;
  std::vector<std::int64_t> shape;
  std::vector<double> floats;
  std::vector<std::int64_t> integers;
  std::vector<std::string> texts;

  std::int64_t size() const;  // product of shape (1 for 0-d)
};

// Named arrays. Implementations: NpzFile (below), and a dictionary of arrays in the Python bindings.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual std::string name() const = 0;  // file name or description, used in messages
  virtual std::vector<std::string> keys() const = 0;
  virtual bool has(const std::string& key) const = 0;
  virtual Array read(const std::string& key) const = 0;  // throws Error naming `key` if absent or unreadable
};

// Reader of numpy zip archives whose members are stored (numpy.savez). Members are read on demand; the constructor
// reads only the directory. Compressed members, truncated files, bad CRCs, Fortran order, big-endian and object arrays
// are errors.
class NpzFile final : public WeightSource {
 public:
  explicit NpzFile(const std::string& path);
  ~NpzFile() override;
  std::string name() const override;
  std::vector<std::string> keys() const override;
  bool has(const std::string& key) const override;
  Array read(const std::string& key) const override;
  std::string sha256() const;  // of the whole file, hexadecimal

  // The same archive held in memory; `name` stands for the file name in messages.
  static NpzFile from_bytes(std::string name, std::vector<unsigned char> bytes);

 private:
  struct Directory;
  explicit NpzFile(std::unique_ptr<Directory> directory);
  std::unique_ptr<Directory> directory_;
};

}  // namespace grace
