// Reads the stages of a model one by one and keeps account of the tensors they make.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "grace/model/spec.hpp"
#include "grace/model/spec_reader.hpp"

namespace grace {

// Appends stages to `model`. Each `add_*` reads the keys of one stage, checks them against the tensors made so far,
// folds the norms into the weights and keeps only the chosen elements. The layouts of the file are in
// docs/weight_file.md.
class StageReader {
 public:
  // Reads the globals: elements, cutoffs, chemical embedding, output scale and shifts.
  StageReader(SpecReader& reader, const std::vector<std::string>& elements, ModelSpec& model);

  void add_radial(const std::string& name, const std::string& prefix);
  void add_single_particle_basis(const std::string& output, const std::string& radial);
  void add_message_basis(const std::string& output, const std::string& radial, const std::string& message);
  void add_mix(const std::string& output, const std::string& left, const std::string& right);
  void add_product(const std::string& output, const std::string& left, const std::string& right);
  void add_reduce(const std::string& output);
  void add_norm(const std::string& output, const std::string& input, const std::string& prefix);
  void add_readout(const std::vector<std::string>& inputs);

  // Sizes of tensor `name`; `needed_by` is named in the message if no stage has made it.
  struct Size {
    int n_rows = 0;
    int n_channels = 0;
  };
  Size size(const std::string& name, const std::string& needed_by) const;
  void require_densities(const std::string& name) const;  // one row, at least two channels

 private:
  const RadialNetwork& radial(const std::string& name) const;
  std::vector<double> inverse_neighbors(const std::string& key) const;
  std::vector<DenseLayer> network(const std::string& prefix, int n_in, int n_out);
  FunctionReduce::Input reduce_input(const std::string& output, const std::string& tensor, int n_out, bool per_element);
  void read_elements(const std::vector<std::string>& elements);
  void read_cutoffs();
  void made(const std::string& tensor, int n_rows, int n_channels);

  SpecReader& reader_;
  ModelSpec& model_;
  std::vector<int> chosen_;  // index in the file of each element in use
  FloatArray embedding_;     // [elements of the file][embedding size]
  std::map<std::string, Size> tensors_;
};

}  // namespace grace
