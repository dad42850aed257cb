// The stages that are tables: channel mixes, products, the message basis, reductions (docs/theory.md).
#include <algorithm>
#include <map>
#include <utility>

#include "grace/error.hpp"
#include "grace/model/spec_reader_stages.hpp"

namespace grace {
namespace {

constexpr std::int64_t kMaxReducedRows = 1 << 20;  // far above any use, bounds the work on a damaged table

// Terms in the order of the rows they make; every row must be made by somebody.
std::vector<CouplingTerm> sorted_terms(const SpecReader& reader, const std::string& prefix, int n_rows,
                                       const std::vector<int>& left, const std::vector<int>& right) {
  const auto n_terms = static_cast<std::int64_t>(left.size());
  reader.require_value(prefix + "_n_cg_terms", static_cast<int>(n_terms), "other than the number of terms");
  const std::vector<int> row = reader.indices(prefix + "_m_sum_ind", n_terms, n_rows);
  const FloatArray coefficient = reader.floats(prefix + "_cg_coeff", {n_terms});
  std::vector<CouplingTerm> terms;
  terms.reserve(left.size());
  for (std::size_t t = 0; t < left.size(); ++t) terms.push_back({row[t], left[t], right[t], coefficient.values[t]});
  std::stable_sort(terms.begin(), terms.end(),
                   [](const CouplingTerm& a, const CouplingTerm& b) { return a.row < b.row; });
  int made = 0;
  for (const CouplingTerm& term : terms) made += term.row == made ? 1 : 0;
  reader.check(made == n_rows, prefix + "_m_sum_ind", "makes no row ", made, " of ", n_rows,
               "; export the model again.");
  return terms;
}

// One side of a channel mix: weights [n_out][n_in][file group] and, per slot (row or right term), its group and output
// factor. A factor belongs to a slot, so a group whose slots have several factors is split.
struct MixSide {
  std::vector<double> weights;  // [group][n_in][n_out]
  std::vector<int> group;       // per slot
  int n_groups = 0;

  MixSide(const FloatArray& file, double norm, const std::vector<int>& tile, const std::vector<double>& factor) {
    std::map<std::pair<int, double>, int> groups;
    for (std::size_t slot = 0; slot < tile.size(); ++slot) groups.emplace(std::pair(tile[slot], factor[slot]), 0);
    const std::int64_t n_out = file[0], n_in = file[1], n_file_groups = file[2];
    weights.reserve(groups.size() * static_cast<std::size_t>(n_in * n_out));
    for (auto& [key, index] : groups) {
      index = n_groups++;
      for (std::int64_t n = 0; n < n_in; ++n) {
        for (std::int64_t k = 0; k < n_out; ++k) {
          weights.push_back(file.values[(k * n_in + n) * n_file_groups + key.first] * norm * key.second);
        }
      }
    }
    for (std::size_t slot = 0; slot < tile.size(); ++slot) group.push_back(groups.at({tile[slot], factor[slot]}));
  }
};

}  // namespace

void StageReader::add_mix(const std::string& output, const std::string& left, const std::string& right) {
  const std::string prefix = "fc_" + output;
  const Size left_size = size(left, prefix), right_size = size(right, prefix);
  reader_.require_value(prefix + "_left_coefs", 1, "a mix without weights of its left operand");
  ChannelMix stage;
  stage.output = output;
  stage.left = left;
  stage.right = right;
  stage.n_left = left_size.n_channels;
  stage.n_right = right_size.n_channels;
  stage.n_out = reader_.count(prefix + "_n_out");
  stage.n_rows = left_size.n_rows;

  const FloatArray left_weights = reader_.weights(prefix + "_w_left", {stage.n_out, stage.n_left, kAnySize});
  const FloatArray right_weights = reader_.weights(prefix + "_w_right", {stage.n_out, stage.n_right, kAnySize});
  const FloatArray factor = reader_.floats(prefix + "_norm_out_factor", {stage.n_rows, 1, 1});
  for (const double q : factor.values) {
    reader_.check(q != 0.0, prefix + "_norm_out_factor", "contains 0, which would switch off a row; export it again.");
  }
  const std::vector<int> left_tile = reader_.indices(prefix + "_w_tile_left", stage.n_rows, left_weights[2]);
  const std::vector<int> right_tile = reader_.indices(prefix + "_w_tile_right", kAnySize, right_weights[2]);
  const auto n_terms = static_cast<std::int64_t>(right_tile.size());
  const std::vector<int> to = reader_.indices(prefix + "_collect_to", n_terms, stage.n_rows);
  const std::vector<int> from = reader_.indices(prefix + "_collect_from", n_terms, right_size.n_rows);
  std::vector<double> right_factor;
  for (const int row : to) right_factor.push_back(factor.values[row]);

  MixSide left_side(left_weights, reader_.norm(prefix + "_norm_left"), left_tile, factor.values);
  MixSide right_side(right_weights, reader_.norm(prefix + "_norm_right"), right_tile, right_factor);
  stage.n_left_groups = left_side.n_groups;
  stage.left_weights = std::move(left_side.weights);
  stage.left_group = std::move(left_side.group);
  stage.n_right_groups = right_side.n_groups;
  stage.right_weights = std::move(right_side.weights);
  for (std::size_t c = 0; c < to.size(); ++c) stage.right_terms.push_back({to[c], from[c], right_side.group[c]});
  made(output, stage.n_rows, stage.n_out);
  model_.stages.push_back(std::move(stage));
}

void StageReader::add_product(const std::string& output, const std::string& left, const std::string& right) {
  const std::string prefix = "prod_" + output;
  const Size left_size = size(left, prefix), right_size = size(right, prefix);
  require(left_size.n_channels == right_size.n_channels, "The product `", output, "` of ", reader_.name(), " joins ",
          left, " with ", left_size.n_channels, " channels and ", right, " with ", right_size.n_channels,
          ", but both must have the same number; export the model again.");
  CouplingProduct stage;
  stage.output = output;
  stage.left = left;
  stage.right = right;
  stage.n_channels = left_size.n_channels;
  stage.n_rows = reader_.count(prefix + "_n_output_funcs");
  const std::vector<int> left_row = reader_.indices(prefix + "_left_ind", kAnySize, left_size.n_rows);
  const auto n_terms = static_cast<std::int64_t>(left_row.size());
  const std::vector<int> right_row = reader_.indices(prefix + "_right_ind", n_terms, right_size.n_rows);
  stage.terms = sorted_terms(reader_, prefix, stage.n_rows, left_row, right_row);
  made(output, stage.n_rows, stage.n_channels);
  model_.stages.push_back(std::move(stage));
}

void StageReader::add_message_basis(const std::string& output, const std::string& radial_name,
                                    const std::string& message) {
  const Size message_size = size(message, output);
  MessageBasis stage;
  stage.output = output;
  stage.radial = radial_name;
  stage.message = message;
  stage.lmax = radial(radial_name).lmax;
  stage.n_channels = radial(radial_name).n_channels;
  reader_.require_value(output + "_n_rad_max", stage.n_channels, "other than the channels of its radial network");
  require(message_size.n_channels == stage.n_channels, "The message `", message, "` of ", reader_.name(), " has ",
          message_size.n_channels, " channels, but the radial network `", radial_name, "` has ", stage.n_channels,
          "; export the model again.");
  stage.n_rows = reader_.count(output + "_n_output_funcs");
  const int n_harmonics = (stage.lmax + 1) * (stage.lmax + 1);
  const std::vector<int> pairs =
      reader_.indices(output + "_lr_inds", kAnySize, std::max(n_harmonics, message_size.n_rows));
  reader_.check(pairs.size() % 2 == 0, output + "_lr_inds", "must hold pairs of indices; export the model again.");
  std::vector<int> left, right;
  for (std::size_t t = 0; t < pairs.size(); t += 2) {
    reader_.check(pairs[t] < n_harmonics && pairs[t + 1] < message_size.n_rows, output + "_lr_inds",
                  "couples harmonic ", pairs[t], " of ", n_harmonics, " with message row ", pairs[t + 1], " of ",
                  message_size.n_rows, "; export the model again.");
    left.push_back(pairs[t]);
    right.push_back(pairs[t + 1]);
  }
  stage.terms = sorted_terms(reader_, output, stage.n_rows, left, right);
  stage.inverse_neighbors = inverse_neighbors(output + "_inv_avg_n_neigh");
  made(output, stage.n_rows, stage.n_channels);
  model_.stages.push_back(std::move(stage));
}

// W [elements of the file,] [n_out][n_in][group] -> [elements in use or 1][group][n_out][n_in], norm folded in.
FunctionReduce::Input StageReader::reduce_input(const std::string& output, const std::string& tensor, int n_out,
                                                bool per_element) {
  const Size tensor_size = size(tensor, output);
  FunctionReduce::Input input;
  input.tensor = tensor;
  input.n_channels = tensor_size.n_channels;
  reader_.require_value(output + "_n_in_" + tensor, input.n_channels, "other than the channels of " + tensor);
  input.n_groups = reader_.count(output + "_w_shape_" + tensor);
  Shape shape{n_out, input.n_channels, input.n_groups};
  if (per_element) shape.insert(shape.begin(), static_cast<std::int64_t>(model_.file_elements.size()));
  const FloatArray weights = reader_.weights(output + "_reduce_" + tensor + "_W", shape);
  const double norm = reader_.norm(output + "_reduce_" + tensor + "_norm");
  const std::int64_t n_in = input.n_channels, n_groups = input.n_groups;
  const std::vector<int> blocks = per_element ? chosen_ : std::vector<int>{0};
  input.weights.reserve(blocks.size() * static_cast<std::size_t>(n_out * n_in * n_groups));
  for (const int block : blocks) {
    for (std::int64_t g = 0; g < n_groups; ++g) {
      for (std::int64_t kn = 0; kn < n_out * n_in; ++kn) {
        input.weights.push_back(weights.values[(block * n_out * n_in + kn) * n_groups + g] * norm);
      }
    }
  }

  const std::vector<int> source = reader_.indices(output + "_collect_ind_" + tensor, kAnySize, tensor_size.n_rows);
  const auto n_rows = static_cast<std::int64_t>(source.size());
  const std::vector<int> group = reader_.indices(output + "_w_l_tile_" + tensor, n_rows, n_groups);
  const std::vector<int> target = reader_.indices(output + "_total_sum_ind_" + tensor, n_rows, kMaxReducedRows);
  for (std::size_t c = 0; c < source.size(); ++c) input.rows.push_back({source[c], group[c], target[c]});
  return input;
}

void StageReader::add_reduce(const std::string& output) {
  FunctionReduce stage;
  stage.output = output;
  stage.n_out = reader_.count(output + "_n_out");
  stage.per_element = reader_.flag(output + "_is_central_atom_type_dependent");
  if (stage.per_element) {
    reader_.require_value(output + "_number_of_atom_types", static_cast<int>(model_.file_elements.size()),
                          "other than the number of elements");
  }
  if (reader_.has(output + "_norm_map")) {
    const double norm = reader_.number(output + "_norm_map");
    reader_.check(norm == 1.0, output + "_norm_map", "is ", norm,
                  " (a reduction divided by its number of terms), but only 1 is supported; use another model.");
  }
  std::vector<bool> is_fed;
  for (const std::string& tensor : reader_.texts(output + "_instruction_names")) {
    FunctionReduce::Input input = reduce_input(output, tensor, stage.n_out, stage.per_element);
    for (const FunctionReduce::Row& row : input.rows) {
      if (is_fed.size() <= static_cast<std::size_t>(row.target)) is_fed.resize(row.target + 1, false);
      is_fed[row.target] = true;
    }
    stage.inputs.push_back(std::move(input));
  }
  stage.n_rows = static_cast<int>(is_fed.size());
  const auto unfed = std::find(is_fed.begin(), is_fed.end(), false);
  require(unfed == is_fed.end(), "Row ", unfed - is_fed.begin(), " of the reduction `", output, "` of ", reader_.name(),
          " gets no contribution; export the model again.");
  if (reader_.has(output + "_n_funcs")) {
    reader_.require_value(output + "_n_funcs", stage.n_rows, "other than the number of rows that are made");
  }
  made(output, stage.n_rows, stage.n_out);
  model_.stages.push_back(std::move(stage));
}

}  // namespace grace
