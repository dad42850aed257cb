// From weight files to ModelSpec: wiring, layouts, folded factors, and every defect of a file named by its key.
#include <algorithm>
#include <limits>
#include <set>

#include "check.hpp"
#include "grace/model/spec.hpp"
#include "npz_writer.hpp"

namespace {

using namespace grace;
using npz::EditableSource;

constexpr double kRounding = 1e-14;  // a few products of numbers of order one

NpzFile model_file(const std::string& name) { return NpzFile(std::string(GRACE_TEST_DATA) + "/models/" + name); }
EditableSource editable(const std::string& name) { return EditableSource(model_file(name)); }

// Arrays that the evaluation does not need: other names, derived or redundant numbers, and those the format calls
// optional.
bool is_optional(const std::string& key) {
  static const std::set<std::string> keys = {"embedding_size", "rcut", "output_scale", "shift_values"};
  static const std::set<std::string> lists = {"mlp_rad_names", "spb_names",    "fc_names",
                                              "prod_names",    "reduce_names", "rms_names"};
  const auto ends_with = [&](const std::string& end) {
    return key.size() >= end.size() && key.compare(key.size() - end.size(), end.size(), end) == 0;
  };
  const bool is_product = key.rfind("prod_", 0) == 0;
  return keys.count(key) || lists.count(key) || ends_with("_norm_map") || ends_with("_n_funcs") ||
         ends_with("_only_invar") || key == "YI_Lmax" || (is_product && (ends_with("_lmax") || ends_with("_Lmax")));
}

template <class T>
const T& stage(const ModelSpec& model, const char* output) {
  for (const Stage& candidate : model.stages) {
    const T* found = std::get_if<T>(&candidate);
    if (found && found->output == output) return *found;
  }
  throw Error(std::string("no stage ") + output);
}

std::string wiring(const ModelSpec& model) {
  std::string text;
  const auto add = [&](const auto& s) {
    using T = std::decay_t<decltype(s)>;
    if constexpr (std::is_same_v<T, Readout>) {
      text += "e(";
      for (const std::string& input : s.inputs) text += input + ",";
    } else {
      text += s.output + "(";
      if constexpr (std::is_same_v<T, ChannelMix> || std::is_same_v<T, CouplingProduct>) text += s.left + "," + s.right;
      if constexpr (std::is_same_v<T, SingleParticleBasis>) text += s.radial;
      if constexpr (std::is_same_v<T, MessageBasis>) text += s.radial + "," + s.message;
      if constexpr (std::is_same_v<T, DensityNorm>) text += s.input;
      if constexpr (std::is_same_v<T, FunctionReduce>) {
        for (const FunctionReduce::Input& input : s.inputs) text += input.tensor + ",";
      }
    }
    text += ") ";
  };
  for (const Stage& s : model.stages) std::visit(add, s);
  return text;
}

}  // namespace

TEST(wiring_of_one_layer) {
  const ModelSpec model = load_model(model_file("tiny_1l.npz"));
  CHECK(wiring(model) ==
        "A(R) A1(A,A) AA(A1,A1) AA1(AA,A) AAA(AA1,A1) AA2(AA,A) AAAA(AA2,AA2) rho(A,AA,AAA,AAAA,) e(rho,) ");
  CHECK(model.n_layers == 1 && model.message.empty() && model.radials.size() == 1);
  CHECK(model.elements == std::vector<std::string>({"Mo", "Nb"}) && model.element_index("Nb") == 1);
  CHECK_THROWS(model.element_index("Fe"), "it knows Mo, Nb");
  CHECK(model.max_cutoff == 5.0 && model.pair_cutoffs == std::vector<double>(4, 5.0));
  CHECK(model.output_scale == 1.0 && model.shift == std::vector<double>(2, 0.0));
  CHECK(std::get<Readout>(model.stages.back()).activation == Activation::silu);
  CHECK(load_model(model_file("tiny_1l_pairs.npz")).output_scale == 1.7);
  CHECK(wiring(load_model(model_file("tiny_1l_order2.npz"))) == "A(R) A1(A,A) AA(A1,A1) rho(A,AA,) e(rho,) ");
}

TEST(wiring_of_two_layers) {
  const ModelSpec model = load_model(model_file("tiny_2l.npz"));
  CHECK(wiring(model) ==
        "A(R) A1(A,A) AA(A1,A1) AA1(AA,A) AAA(AA1,A) AA2(AA,A) AAAA(AA2,AA2) rho(A,AA,AAA,AAAA,) rho_norm(rho) "
        "I1(A,AA,AAA,AAAA,) I(I1,) B0(R1) YI(R1,I) B(YI,B0,) B1(B,B) BB(B1,B1) BB1(BB,B) BBB(BB1,B) BB2(BB,B) "
        "BBBB(BB2,BB2) I2(B,BB,BBB,BBBB,) I2_norm(I2) e(rho_norm,I2_norm,) ");
  CHECK(model.n_layers == 2 && model.message == "I" && model.radials.size() == 2 && model.radials[1].name == "R1");
  CHECK(stage<DensityNorm>(model, "rho_norm").kind == DensityNorm::Kind::only_nonlinear);
  CHECK(stage<DensityNorm>(model, "rho_norm").scale.size() == 3);
  CHECK(stage<DensityNorm>(model, "I2_norm").kind == DensityNorm::Kind::full);
  CHECK(stage<DensityNorm>(model, "I2_norm").scale.size() == 4);
  CHECK(stage<FunctionReduce>(model, "I").n_rows == 4 && !stage<FunctionReduce>(model, "I").per_element);
  CHECK(std::get<Readout>(model.stages.back()).activation == Activation::tanh);
}

TEST(layouts_and_folded_factors) {
  const EditableSource file = editable("tiny_1l_pairs.npz");
  const ModelSpec model = load_model(file);
  const auto value = [&](const std::string& key, std::size_t index) { return file.arrays.at(key).floats.at(index); };

  const DenseLayer& layer = model.radials[0].layers[0];
  CHECK(layer.n_in == 4 && layer.n_out == 6);
  CHECK_NEAR(layer.weights[1 * 6 + 2], value("mlp_rad_W0", 1 * 6 + 2) * value("mlp_rad_norm0", 0), kRounding);

  const auto& basis = stage<SingleParticleBasis>(model, "A");
  double chemical = 0.0;  // element 2, channel 3
  for (int k = 0; k < 3; ++k) chemical += value("chem_embedding", 2 * 3 + k) * value("A_lin_transform_W", k * 4 + 3);
  CHECK_NEAR(basis.chemical[2 * 4 + 3], chemical * value("A_lin_transform_norm", 0), kRounding);
  CHECK(basis.inverse_neighbors == file.arrays.at("A_inv_avg_n_neigh").floats);

  const auto& mix = stage<ChannelMix>(model, "A1");  // file: [n_out = 6][n_in = 4][group = 3]
  CHECK(mix.n_left_groups == 3 && mix.n_right_groups == 3 && mix.n_out == 6 && mix.n_rows == 9);
  const double factor = std::sqrt(0.5) * value("fc_A1_norm_left", 0);
  CHECK_NEAR(mix.left_weights[(2 * 4 + 3) * 6 + 5], value("fc_A1_w_left", (5 * 4 + 3) * 3 + 2) * factor, kRounding);
  CHECK_NEAR(mix.right_weights[(1 * 4 + 0) * 6 + 4], value("fc_A1_w_right", (4 * 4 + 0) * 3 + 1) * factor, kRounding);
  CHECK(mix.left_group == std::vector<int>({0, 1, 1, 1, 2, 2, 2, 2, 2}) && mix.right_terms.size() == 9);

  const auto& rho = stage<FunctionReduce>(model, "rho");  // file: [element][n_out = 5][n_in = 6][group = 3]
  const FunctionReduce::Input& input = rho.inputs[1];
  CHECK(rho.per_element && rho.n_rows == 1 && rho.n_out == 5 && input.n_groups == 3 && input.n_channels == 6);
  CHECK_NEAR(input.weights[((2 * 3 + 1) * 5 + 4) * 6 + 5],
             value("rho_reduce_AA_W", ((2 * 5 + 4) * 6 + 5) * 3 + 1) * value("rho_reduce_AA_norm", 0), kRounding);

  const auto& product = stage<CouplingProduct>(model, "AA");
  CHECK(product.n_rows == 24 && product.terms.size() == 52 && product.terms.back().row == 23);
}

TEST(elements_are_sliced_in_the_order_wanted) {
  const NpzFile file = model_file("tiny_1l_pairs.npz");
  const ModelSpec all = load_model(file), some = load_model(file, {"Fe", "O"});
  CHECK(some.elements == std::vector<std::string>({"Fe", "O"}) && some.file_elements == all.elements);
  CHECK(some.pair_cutoffs == std::vector<double>({5.2, 4.6, 4.6, 4.0}));
  CHECK(load_model(file, {"O"}).max_cutoff == 4.0);
  CHECK(some.shift == std::vector<double>({all.shift[2], all.shift[0]}));
  CHECK(some.n_parameters == all.n_parameters);
  const auto& basis = stage<SingleParticleBasis>(some, "A");
  const auto& full_basis = stage<SingleParticleBasis>(all, "A");
  CHECK(std::equal(basis.chemical.begin(), basis.chemical.begin() + 4, full_basis.chemical.begin() + 8));
  CHECK(basis.inverse_neighbors[0] == full_basis.inverse_neighbors[2]);
  const auto& weights = stage<FunctionReduce>(some, "rho").inputs[0].weights;
  const auto& full_weights = stage<FunctionReduce>(all, "rho").inputs[0].weights;
  const std::size_t block = full_weights.size() / 3;
  CHECK(weights.size() == 2 * block);
  CHECK(std::equal(weights.begin(), weights.begin() + block, full_weights.begin() + 2 * block));
  CHECK(std::equal(weights.begin() + block, weights.end(), full_weights.begin()));
  CHECK_THROWS(load_model(file, {"O", "Xx"}), "it knows O, Si, Fe");
  CHECK_THROWS(load_model(file, {"O", "O"}), "twice");
}

TEST(parameters_are_counted_once) {
  // Al, 3 channels: embedding 3, radial 4x6 + 6x6 + 6x9, basis 3x3, A1 2 x 3x3x3, rho 5 x 3 x (1 + 3), readout 4x6 + 6
  CHECK(load_model(model_file("tiny_1l_order2.npz")).n_parameters == 3 + 114 + 9 + 54 + 60 + 30);
}

TEST(groups_with_several_output_factors_are_split) {
  EditableSource file = editable("tiny_1l.npz");
  const ModelSpec before = load_model(file);
  file.arrays.at("fc_A1_norm_out_factor").floats[2] *= 3.0;  // one row of the group l = 1
  const ModelSpec after = load_model(file);
  const auto &old_mix = stage<ChannelMix>(before, "A1"), &mix = stage<ChannelMix>(after, "A1");
  CHECK(mix.n_left_groups == old_mix.n_left_groups + 1 && mix.n_right_groups == old_mix.n_right_groups + 1);
  const std::size_t block = static_cast<std::size_t>(mix.n_left) * mix.n_out;
  for (int row = 0; row < mix.n_rows; ++row) {
    const double factor = row == 2 ? 3.0 : 1.0;
    const double* weights = &mix.left_weights[mix.left_group[row] * block];
    const double* old_weights = &old_mix.left_weights[old_mix.left_group[row] * block];
    for (std::size_t k = 0; k < block; ++k) CHECK_NEAR(weights[k], factor * old_weights[k], kRounding);
  }
  for (std::size_t c = 0; c < mix.right_terms.size(); ++c) {
    const double factor = mix.right_terms[c].to == 2 ? 3.0 : 1.0;
    const double* weights = &mix.right_weights[mix.right_terms[c].group * block];
    const double* old_weights = &old_mix.right_weights[old_mix.right_terms[c].group * block];
    for (std::size_t k = 0; k < block; ++k) CHECK_NEAR(weights[k], factor * old_weights[k], kRounding);
  }
}

TEST(terms_are_sorted_and_every_row_is_made) {
  EditableSource file = editable("tiny_1l.npz");
  for (const char* key : {"left_ind", "right_ind", "m_sum_ind"}) {
    auto& column = file.arrays.at(std::string("prod_AA_") + key).integers;
    std::reverse(column.begin(), column.end());
  }
  auto& coefficients = file.arrays.at("prod_AA_cg_coeff").floats;
  std::reverse(coefficients.begin(), coefficients.end());
  const ModelSpec sorted = load_model(file);
  const auto& terms = stage<CouplingProduct>(sorted, "AA").terms;
  CHECK(std::is_sorted(terms.begin(), terms.end(), [](const auto& a, const auto& b) { return a.row < b.row; }));
  for (auto& row : file.arrays.at("prod_AA_m_sum_ind").integers) row = row == 5 ? 6 : row;
  CHECK_THROWS(load_model(file), "makes no row 5 of 24");
}

TEST(every_needed_key_is_required) {
  for (const char* name : {"tiny_1l.npz", "tiny_1l_pairs.npz", "tiny_2l.npz"}) {
    const EditableSource original = editable(name);
    for (const std::string& key : original.keys()) {
      EditableSource file = original;
      file.arrays.erase(key);
      if (is_optional(key) && !(key == "rcut" && std::string(name) == "tiny_1l.npz")) {
        load_model(file);
      } else {
        CHECK_THROWS(load_model(file), key);
      }
    }
  }
}

TEST(every_number_must_be_finite) {
  for (const char* name : {"tiny_1l_pairs.npz", "tiny_2l.npz"}) {
    const EditableSource original = editable(name);
    for (const auto& [key, array] : original.arrays) {
      if (array.kind != Array::Kind::floating || key == "rcut") continue;
      for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        EditableSource file = original;
        file.arrays.at(key).floats.back() = bad;
        CHECK_THROWS(load_model(file), key);
      }
    }
  }
}

TEST(shapes_and_indices_are_checked) {
  const EditableSource original = editable("tiny_2l.npz");
  for (const auto& [key, array] : original.arrays) {
    if (is_optional(key) || key == "YI_inv_avg_n_neigh") continue;  // of two elements: a number or a list of two
    EditableSource longer = original;                               // an extra dimension of two: wrong for every array
    Array& changed = longer.arrays.at(key);
    changed.shape.push_back(2);
    changed.floats.insert(changed.floats.end(), array.floats.begin(), array.floats.end());
    changed.integers.insert(changed.integers.end(), array.integers.begin(), array.integers.end());
    changed.texts.insert(changed.texts.end(), array.texts.begin(), array.texts.end());
    CHECK_THROWS(load_model(longer), "of edited");
    if (array.kind != Array::Kind::integer) continue;
    for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{1} << 40}) {
      EditableSource file = original;
      file.arrays.at(key).integers.back() = bad;
      CHECK_THROWS(load_model(file), "of edited");
    }
  }
}

TEST(zero_norms_are_refused) {
  for (const char* key : {"mlp_rad_norm1", "energy_mlp_norm0", "A_lin_transform_norm", "fc_AA1_norm_left",
                          "fc_AA1_norm_right", "rho_reduce_AA_norm", "output_scale"}) {
    EditableSource file = editable("tiny_1l_pairs.npz");
    file.set(key, 0.0);
    CHECK_THROWS(load_model(file), key);
  }
  EditableSource file = editable("tiny_2l.npz");
  for (double& scale : file.arrays.at("I_0_LN_scale").floats) scale = 0.0;
  CHECK_THROWS(load_model(file), "`I_0_LN_scale` of edited is all zero");
}

TEST(unsupported_features_are_refused_by_name) {
  const auto refuses = [](const std::string& model, const std::string& key, std::int64_t value,
                          const std::string& words) {
    EditableSource file = editable(model);
    file.set(key, value);
    CHECK_THROWS(load_model(file), words);
  };
  refuses("tiny_1l.npz", "spbf_names", 0, "three-layer model");
  refuses("tiny_1l.npz", "mlp_rad_has_chem_emb", 1, "sees the elements");
  refuses("tiny_2l.npz", "mlp_rad_R1_embed_j", 1, "sees the elements");
  refuses("tiny_1l.npz", "mlp_rad_b0", 0, "without biases");
  refuses("tiny_1l.npz", "A_indicator_l_depend", 1, "depends on l");
  refuses("tiny_1l.npz", "A_sum_neighbors", 0, "not summed over the neighbours");
  refuses("tiny_1l.npz", "fc_AA2_left_coefs", 0, "without weights of its left operand");
  refuses("tiny_1l.npz", "nn_dtype", 1, "`nn_dtype`");
  refuses("tiny_1l.npz", "energy_mlp_activation", 2, "only 0 (silu) and 1 (tanh)");
  refuses("tiny_2l.npz", "I_nl_LN_type", 2, "separate linear gate");
  refuses("tiny_2l.npz", "B_norm_map", 2, "`B_norm_map`");
  refuses("tiny_1l.npz", "bond_cutoff_map", 0, "has_bond_specific_cutoff");

  EditableSource wired = editable("tiny_2l.npz");
  wired.arrays.at("prod_names").texts.push_back("BBBBB");
  CHECK_THROWS(load_model(wired), "`BBBBB`");
  EditableSource empty = editable("tiny_1l.npz");
  empty.arrays.clear();
  CHECK_THROWS(load_model(empty), "no arrays of a GRACE model");
}

TEST(scalars_and_uncertainty_keys) {
  EditableSource file = editable("tiny_1l.npz");
  file.set("lmax", 2.0);  // integers stored as floating point, 0-d instead of (1,)
  file.set("uq_schema_version", std::int64_t{6});
  file.set("grace_md_comment", std::int64_t{0});
  file.set("output_scale", std::int64_t{2});
  const ModelSpec model = load_model(file);
  CHECK(model.unused_keys == std::vector<std::string>{"uq_schema_version"} && model.output_scale == 2.0);
}
