#include "grace/types.hpp"

#include "grace/error.hpp"

namespace grace {

Precision parse_precision(const std::string& word) {
  if (word == "auto") return Precision::automatic;
  if (word == "fp64") return Precision::fp64;
  if (word == "mixed") return Precision::mixed;
  if (word == "fp32") return Precision::fp32;
  throw Error("`precision` must be auto, fp64, mixed or fp32, got '" + word + "'.");
}

RadialMode parse_radial_mode(const std::string& word) {
  if (word == "table") return RadialMode::table;
  if (word == "exact") return RadialMode::exact;
  throw Error("`radial` must be table or exact, got '" + word + "'.");
}

Device parse_device(const std::string& word) {
  if (word == "auto") return {DeviceKind::automatic, 0};
  if (word == "cpu") return {DeviceKind::cpu, 0};
  if (word == "cuda") return {DeviceKind::cuda, 0};
  if (word == "emulated") return {DeviceKind::emulated, 0};
  const bool emulated = word.rfind("emulated:", 0) == 0;
  const std::string index = emulated ? word.substr(9) : word.rfind("cuda:", 0) == 0 ? word.substr(5) : word;
  const bool is_number =
      !index.empty() && index.size() <= 4 && index.find_first_not_of("0123456789") == std::string::npos;
  require(is_number, "`device` must be auto, cpu, cuda, cuda:N or the number N of a GPU, got '", word, "'.");
  return {emulated ? DeviceKind::emulated : DeviceKind::cuda, std::stoi(index)};
}

}  // namespace grace
