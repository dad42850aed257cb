// The reader of npz files: every type it accepts, every defect it must name.
#include <cstdio>
#include <fstream>

#include "check.hpp"
#include "grace/model/sha256.hpp"
#include "grace/model/weights.hpp"
#include "grace/types.hpp"
#include "npz_writer.hpp"

namespace {

using grace::Array;
using grace::NpzFile;
using npz::Bytes;

const std::string kModels = std::string(GRACE_TEST_DATA) + "/models/";

Array read_one(const Bytes& npy) { return NpzFile::from_bytes("test.npz", npz::archive({{"X.npy", npy}})).read("X"); }

template <class T>
Array read_typed(const std::string& descr, const std::vector<T>& values) {
  return read_one(npz::npy(npz::header(descr, "(" + std::to_string(values.size()) + ",)"), npz::raw(values)));
}

}  // namespace

TEST(numbers_of_all_types) {
  CHECK(read_typed<double>("<f8", {1.5, -2.0}).floats == std::vector<double>({1.5, -2.0}));
  CHECK(read_typed<float>("<f4", {1.5F, -2.0F}).floats == std::vector<double>({1.5, -2.0}));
  // half precision: 1, -2, largest, smallest subnormal
  const Array half = read_typed<std::uint16_t>("<f2", {0x3C00, 0xC000, 0x7BFF, 0x0001});
  CHECK(half.floats == std::vector<double>({1.0, -2.0, 65504.0, 0x1p-24}));
  CHECK(std::isinf(read_typed<std::uint16_t>("<f2", {0x7C00}).floats[0]));
  CHECK(std::isnan(read_typed<std::uint16_t>("<f2", {0x7C01}).floats[0]));
  const std::vector<std::int64_t> expected = {3, -4};
  CHECK(read_typed<std::int64_t>("<i8", {3, -4}).integers == expected);
  CHECK(read_typed<std::int32_t>("<i4", {3, -4}).integers == expected);
  CHECK(read_typed<std::int16_t>("<i2", {3, -4}).integers == expected);
  CHECK(read_typed<std::int8_t>("|i1", {3, -4}).integers == expected);
  CHECK(read_typed<std::uint64_t>("<u8", {3}).integers == std::vector<std::int64_t>{3});
  CHECK(read_typed<std::uint32_t>("<u4", {4000000000U}).integers == std::vector<std::int64_t>{4000000000});
  CHECK(read_typed<std::uint16_t>("<u2", {60000}).integers == std::vector<std::int64_t>{60000});
  CHECK(read_typed<std::uint8_t>("|u1", {200}).integers == std::vector<std::int64_t>{200});
  CHECK(read_typed<std::uint8_t>("|b1", {1, 0}).integers == std::vector<std::int64_t>({1, 0}));
  CHECK_THROWS(read_typed<std::uint64_t>("<u8", {~0ULL}), "does not fit into int64");
}

TEST(texts) {
  const Array bytes = read_one(npz::npy(npz::header("|S2", "(2,)"), {'O', 0, 'S', 'i'}));
  CHECK(bytes.kind == Array::Kind::text);
  CHECK(bytes.texts == std::vector<std::string>({"O", "Si"}));
  const Array unicode = read_typed<std::uint32_t>("<U1", {'H', 0x3B1});
  CHECK(unicode.texts == std::vector<std::string>({"H", "?"}));
}

TEST(shapes) {
  const Array scalar = read_one(npz::npy(npz::header("<f8", "()"), npz::raw<double>({2.5})));
  CHECK(scalar.shape.empty() && scalar.size() == 1 && scalar.floats[0] == 2.5);
  const Array matrix = read_one(npz::npy(npz::header("<i4", "(2, 3)"), npz::raw<std::int32_t>({1, 2, 3, 4, 5, 6})));
  CHECK(matrix.shape == std::vector<std::int64_t>({2, 3}) && matrix.size() == 6 && matrix.integers[5] == 6);
  const Array empty = read_one(npz::npy(npz::header("<f8", "(0, 3)"), {}));
  CHECK(empty.size() == 0 && empty.floats.empty());
  for (const int version : {1, 2, 3}) {
    CHECK(read_one(npz::npy(npz::header("<f8", "(1,)"), npz::raw<double>({7.0}), version)).floats[0] == 7.0);
  }
}

TEST(npy_defects_are_named) {
  const Bytes two = npz::raw<double>({1.0, 2.0});
  CHECK_THROWS(read_one(npz::npy(npz::header(">f8", "(2,)"), two)), "big-endian");
  CHECK_THROWS(read_one(npz::npy(npz::header("|O", "(2,)"), two)), "Python objects");
  CHECK_THROWS(read_one(npz::npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,), }", two)),
               "structured");
  CHECK_THROWS(read_one(npz::npy("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 1), }", two)), "Fortran");
  for (const char* descr : {"<c16", "<f16", "<M8", "<f", "<f8x", "f8", "", "|S0", "<i3", "<f99999999999"}) {
    CHECK_THROWS(read_one(npz::npy(npz::header(descr, "(2,)"), two)), "array 'X' in test.npz");
  }
  for (const char* shape : {"(3,)", "(1,)", "(4611686018427387904, 4)", "(4294967296, 4294967296)", "(-2,)", "(2", "2",
                            "(99999999999999999999,)", "(0, 4611686018427387904, 4)"}) {
    CHECK_THROWS(read_one(npz::npy(npz::header("<f8", shape), two)), "array 'X' in test.npz");
  }
  for (const char* text :
       {"", "{", "{}", "{'descr': '<f8'}", "{'descr': '<f8', 'fortran_order': Maybe, 'shape': (2,), }",
        "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), } trailing"}) {
    CHECK_THROWS(read_one(npz::npy(text, two)), "damaged npy header");
  }
  CHECK_THROWS(read_one(npz::npy(npz::header("<f8", "(2,)"), two, 4)), "npy version 4");
  CHECK_THROWS(read_one({'P', 'K'}), "not a numpy array");
  Bytes long_header = npz::npy(npz::header("<f8", "(2,)"), two);
  long_header[9] = 0xFF;  // header length beyond the member
  CHECK_THROWS(read_one(long_header), "damaged npy header");
}

TEST(zip_defects_are_named) {
  const Bytes member = npz::npy(npz::header("<f8", "(2,)"), npz::raw<double>({1.0, 2.0}));
  const std::vector<std::pair<std::string, Bytes>> members = {{"X.npy", member}, {"Y.npy", member}, {"note.txt", {}}};
  const NpzFile good = NpzFile::from_bytes("f.npz", npz::archive(members));
  CHECK(good.keys() == std::vector<std::string>({"X", "Y"}));
  CHECK(good.has("X") && !good.has("Z") && !good.has("note.txt") && good.name() == "f.npz");
  CHECK_THROWS(good.read("Z"), "'Z' is missing in f.npz");

  npz::Options options;
  options.zip64 = true;
  CHECK(NpzFile::from_bytes("f.npz", npz::archive(members, options)).read("Y").floats[1] == 2.0);
  options = {};
  options.method = 8;
  CHECK_THROWS(NpzFile::from_bytes("f.npz", npz::archive(members, options)).read("X"),
               "rewrite it with numpy.savez (not savez_compressed) or run 'grace-md convert f.npz OUT'");
  options = {};
  options.flags = 1;
  CHECK_THROWS(NpzFile::from_bytes("f.npz", npz::archive(members, options)).read("X"), "encrypted");
  options = {};
  options.crc_change = 1;
  CHECK_THROWS(NpzFile::from_bytes("f.npz", npz::archive(members, options)).read("X"), "corrupted");
  CHECK_THROWS(NpzFile::from_bytes("f.npz", npz::archive({{"X.npy", member}, {"X.npy", member}})), "twice");

  const Bytes whole = npz::archive(members);
  for (std::size_t size = 0; size < whole.size(); ++size) {  // every truncation
    CHECK_THROWS(NpzFile::from_bytes("f.npz", Bytes(whole.begin(), whole.begin() + size)), "f.npz");
  }
}

TEST(files) {
  CHECK_THROWS(NpzFile("no/such/file.npz"), "does not exist");
  CHECK_THROWS(NpzFile(GRACE_TEST_DATA), "is not a file");
  CHECK_THROWS(NpzFile(__FILE__), "no zip directory");
  const std::string path = kModels + "tiny_1l.npz";
  const NpzFile file(path);
  CHECK(file.name() == path && file.has("rcut") && file.keys().size() > 100);
  CHECK(file.read("rcut").floats == std::vector<double>{5.0});
  CHECK(file.read("element_names").texts == std::vector<std::string>({"Mo", "Nb"}));
  std::ifstream stream(path, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const NpzFile memory = NpzFile::from_bytes("memory", bytes);
  CHECK(memory.keys() == file.keys());
  CHECK(memory.sha256() == file.sha256());
}

TEST(yaml_models_are_refused_by_name) {
  const std::string path = "grace_core_tests_model_fs.yaml";
  std::ofstream(path) << "elements: [W]\n";
  CHECK_THROWS(NpzFile{path}, "GRACE/FS models are not supported");
  std::remove(path.c_str());
}

TEST(sha256_of_the_standard) {  // FIPS 180-4 examples
  const auto digest = [](const std::string& text) {
    grace::Sha256 hash;
    hash.update(reinterpret_cast<const unsigned char*>(text.data()), text.size());
    return hash.hexadecimal();
  };
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(words_of_the_interface) {
  CHECK(grace::parse_precision("mixed") == grace::Precision::mixed);
  CHECK(grace::parse_radial_mode("exact") == grace::RadialMode::exact);
  CHECK(grace::parse_device("auto").kind == grace::DeviceKind::automatic);
  CHECK(grace::parse_device("cuda").kind == grace::DeviceKind::cuda);
  CHECK(grace::parse_device("cuda:3").index == 3);
  CHECK(grace::parse_device("2").kind == grace::DeviceKind::cuda && grace::parse_device("2").index == 2);
  CHECK_THROWS(grace::parse_precision("double"), "must be auto, fp64, mixed or fp32, got 'double'");
  CHECK_THROWS(grace::parse_radial_mode(""), "must be table or exact");
  for (const char* word : {"gpu", "cuda:", "cuda:x", "-1", "", "99999999999"}) {
    CHECK_THROWS(grace::parse_device(word), "`device` must be");
  }
}
