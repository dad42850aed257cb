#include "grace/model/spec_reader_stages.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "grace/error.hpp"

namespace grace {
namespace {

constexpr int kMaxDegree = 1000;  // of harmonics and envelopes: far above any use, keeps squares within int

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

int n_harmonics(int lmax) { return (lmax + 1) * (lmax + 1); }

}  // namespace

// ------------------------------------------------------------------------------------------------- globals

StageReader::StageReader(SpecReader& reader, const std::vector<std::string>& elements, ModelSpec& model)
    : reader_(reader), model_(model) {
  reader_.require_value("nn_dtype", 0, "a network of another number type");
  read_elements(elements);
  read_cutoffs();
  const auto n_file = static_cast<std::int64_t>(model_.file_elements.size());
  embedding_ = reader_.weights("chem_embedding", {n_file, reader_.count("chem_embedding_size")});
  model_.output_scale = reader_.has("output_scale") ? reader_.norm("output_scale") : 1.0;
  model_.shift.assign(chosen_.size(), 0.0);
  if (reader_.has("shift_values")) {
    const FloatArray shift = reader_.weights("shift_values", {n_file});
    for (std::size_t e = 0; e < chosen_.size(); ++e) model_.shift[e] = shift.values[chosen_[e]];
  }
}

void StageReader::read_elements(const std::vector<std::string>& elements) {
  model_.file_elements = reader_.texts("element_names");
  const auto& known = model_.file_elements;
  reader_.check(std::set<std::string>(known.begin(), known.end()).size() == known.size(), "element_names",
                "names an element twice (", joined(known), "); export the model again.");
  reader_.require_value("n_elements", static_cast<int>(known.size()), "other than the number of `element_names`");

  model_.elements = elements.empty() ? known : elements;
  std::set<std::string> seen;
  for (const std::string& element : model_.elements) {
    const auto found = std::find(known.begin(), known.end(), element);
    require(found != known.end(), "Element `", element, "` is unknown to ", reader_.name(), "; it knows ",
            joined(known), ".");
    require(seen.insert(element).second, "Element `", element, "` is requested twice; name each element once.");
    chosen_.push_back(static_cast<int>(found - known.begin()));
  }
}

void StageReader::read_cutoffs() {
  const auto n_file = static_cast<std::int64_t>(model_.file_elements.size());
  std::vector<double> cutoffs;
  if (reader_.flag("has_bond_specific_cutoff")) {
    cutoffs = reader_.floats("bond_cutoff_map", {n_file, n_file}).values;
  } else {
    reader_.check(!reader_.has("bond_cutoff_map"), "bond_cutoff_map",
                  "is present although `has_bond_specific_cutoff` is 0; remove one of the two.");
    cutoffs.assign(static_cast<std::size_t>(n_file * n_file), reader_.number("rcut"));
  }
  for (const int a : chosen_) {
    for (const int b : chosen_) {
      const double cutoff = cutoffs[a * n_file + b];
      require(cutoff > 0.0, "The cutoff of ", model_.file_elements[a], "-", model_.file_elements[b], " in ",
              reader_.name(), " is ", cutoff, " A, but must be positive; export the model again.");
      model_.pair_cutoffs.push_back(cutoff);
      model_.max_cutoff = std::max(model_.max_cutoff, cutoff);
    }
  }
}

// ------------------------------------------------------------------------------------------------- tensors

void StageReader::made(const std::string& tensor, int n_rows, int n_channels) {
  require(tensors_.emplace(tensor, Size{n_rows, n_channels}).second, "Tensor `", tensor, "` is made twice by ",
          reader_.name(), "; export the model again.");
}

StageReader::Size StageReader::size(const std::string& name, const std::string& needed_by) const {
  const auto found = tensors_.find(name);
  require(found != tensors_.end(), "`", needed_by, "` of ", reader_.name(), " needs the tensor `", name,
          "`, which no earlier stage makes; this wiring is not supported.");
  return found->second;
}

void StageReader::require_densities(const std::string& name) const {
  const Size densities = size(name, "energy_mlp");
  require(densities.n_rows == 1 && densities.n_channels >= 2, "The densities `", name, "` of ", reader_.name(),
          " have ", densities.n_rows, " rows and ", densities.n_channels,
          " channels, but must have 1 row and at least 2 channels; export the model again.");
}

const RadialNetwork& StageReader::radial(const std::string& name) const {
  for (const RadialNetwork& network : model_.radials) {
    if (network.name == name) return network;
  }
  throw Error("The radial network `" + name + "` of " + reader_.name() + " is not read yet; this is likely a bug.");
}

// 1 / (average number of neighbours): one number, or [elements of the file][1].
std::vector<double> StageReader::inverse_neighbors(const std::string& key) const {
  const std::vector<double> values = reader_.per_element(key, static_cast<std::int64_t>(model_.file_elements.size()));
  std::vector<double> result;
  for (const int element : chosen_) {
    reader_.check(values[element] > 0.0, key, "contains ", values[element],
                  ", but inverse numbers of neighbours must be positive; export the model again.");
    result.push_back(values[element]);
  }
  return result;
}

// y = activation((x W) norm): `prefix`_W0, `prefix`_norm0, ... (docs/theory.md, Radial functions).
std::vector<DenseLayer> StageReader::network(const std::string& prefix, int n_in, int n_out) {
  std::vector<DenseLayer> layers;
  const int n_layers = reader_.count(prefix + "_n_layers");
  for (int i = 0; i < n_layers; ++i) {
    const std::string index = std::to_string(i);
    require(!reader_.has(prefix + "_b" + index), "`", prefix, "_b", index, "` of ", reader_.name(),
            " is a bias, but only networks without biases are supported; use a 1L or 2L model.");
    FloatArray weights = reader_.weights(prefix + "_W" + index, {n_in, i + 1 == n_layers ? n_out : kAnySize});
    const double norm = reader_.norm(prefix + "_norm" + index);
    DenseLayer layer;
    layer.n_in = n_in;
    layer.n_out = n_in = static_cast<int>(weights[1]);
    layer.weights = std::move(weights.values);
    for (double& weight : layer.weights) weight *= norm;
    layers.push_back(std::move(layer));
  }
  return layers;
}

// ------------------------------------------------------------------------------------------------- stages

void StageReader::add_radial(const std::string& name, const std::string& prefix) {
  for (const char* flag : {"_has_chem_emb", "_embed_i", "_embed_j"}) {
    reader_.require_value(prefix + flag, 0, "a radial network that sees the elements");
  }
  RadialNetwork network;
  network.name = name;
  network.n_basis = reader_.count("nradbase");
  network.envelope_order = reader_.count("radial_basis_p");
  network.activation = Activation::silu;
  network.n_channels = reader_.count(prefix + "_n_rad_max");
  network.lmax = reader_.integer(prefix + "_lmax");
  reader_.check(network.lmax >= 0 && network.lmax <= kMaxDegree, prefix + "_lmax", "is ", network.lmax,
                ", but must lie in 0 to ", kMaxDegree, "; export the model again.");
  reader_.check(network.envelope_order <= kMaxDegree, "radial_basis_p", "is ", network.envelope_order,
                ", but must lie in 1 to ", kMaxDegree, "; export the model again.");
  reader_.check(network.n_channels <= std::numeric_limits<int>::max() / (kMaxDegree + 1), prefix + "_n_rad_max", "is ",
                network.n_channels, ", which is absurd; export the model again.");
  network.layers = this->network(prefix, network.n_basis, network.n_channels * (network.lmax + 1));
  model_.radials.push_back(std::move(network));
}

void StageReader::add_single_particle_basis(const std::string& output, const std::string& radial_name) {
  reader_.require_value(output + "_indicator_l_depend", 0, "an indicator that depends on l");
  reader_.require_value(output + "_sum_neighbors", 1, "a basis that is not summed over the neighbours");
  SingleParticleBasis stage;
  stage.output = output;
  stage.radial = radial_name;
  stage.lmax = radial(radial_name).lmax;
  stage.n_channels = radial(radial_name).n_channels;
  const std::int64_t n_embedding = embedding_[1];
  const FloatArray transform = reader_.weights(output + "_lin_transform_W", {n_embedding, stage.n_channels});
  const double norm = reader_.norm(output + "_lin_transform_norm");
  for (const int element : chosen_) {
    for (int n = 0; n < stage.n_channels; ++n) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < n_embedding; ++k) {
        sum += embedding_.values[element * n_embedding + k] * transform.values[k * stage.n_channels + n];
      }
      stage.chemical.push_back(norm * sum);
    }
  }
  stage.inverse_neighbors = inverse_neighbors(output + "_inv_avg_n_neigh");
  made(output, n_harmonics(stage.lmax), stage.n_channels);
  model_.stages.push_back(std::move(stage));
}

void StageReader::add_readout(const std::vector<std::string>& inputs) {
  Readout stage;
  stage.inputs = inputs;
  for (const std::string& input : inputs) require_densities(input);
  const int n_densities = size(inputs.front(), "energy_mlp").n_channels;
  for (const std::string& input : inputs) {
    const int n = size(input, "energy_mlp").n_channels;
    require(n == n_densities, "The densities `", input, "` of ", reader_.name(), " have ", n, " channels, but `",
            inputs.front(), "` has ", n_densities, "; export the model again.");
  }
  const int activation = reader_.integer("energy_mlp_activation");
  reader_.check(activation == 0 || activation == 1, "energy_mlp_activation", "is ", activation,
                ", but only 0 (silu) and 1 (tanh) are supported; use a model with one of these.");
  stage.activation = activation == 0 ? Activation::silu : Activation::tanh;
  stage.layers = network("energy_mlp", n_densities - 1, 1);
  model_.stages.push_back(std::move(stage));
}

void StageReader::add_norm(const std::string& output, const std::string& input, const std::string& prefix) {
  const Size densities = size(input, prefix);
  const int type = reader_.integer(prefix + "_type");
  reader_.check(type == 0 || type == 1, prefix + "_type", "is ", type, type == 2 ? " (separate linear gate)" : "",
                ", but only 0 (full) and 1 (only_nonlin) are supported; use a model with one of these.");
  reader_.require_value(prefix + "_n_out", densities.n_channels, "other than the number of densities");
  DensityNorm stage;
  stage.input = input;
  stage.output = output;
  stage.kind = type == 0 ? DensityNorm::Kind::full : DensityNorm::Kind::only_nonlinear;
  stage.scale = reader_.weights(prefix + "_scale", {densities.n_channels - type}).values;
  const bool is_flat = std::all_of(stage.scale.begin(), stage.scale.end(), [](double s) { return s == 0.0; });
  reader_.check(!is_flat, prefix + "_scale", "is all zero, so the model would ignore these densities; train it first.");
  made(output, densities.n_rows, densities.n_channels);
  model_.stages.push_back(std::move(stage));
}

}  // namespace grace
