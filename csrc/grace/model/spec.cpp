#include "grace/model/spec.hpp"

#include <algorithm>
#include <initializer_list>
#include <set>

#include "grace/error.hpp"
#include "grace/model/spec_reader.hpp"
#include "grace/model/spec_reader_stages.hpp"

namespace grace {
namespace {

bool starts_with(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

// The file does not store who feeds whom: the wiring below is that of docs/theory.md, fixed by the names.
class Wiring {
 public:
  Wiring(SpecReader& reader, StageReader& stages) : reader_(reader), stages_(stages) {}

  // Products of body order 2 to 4 of the basis `a` ("A" or "B"). The right operand of the third order is `third`.
  // Orders that the file neither stores nor reduces are left out (max_order 2 or 3).
  void add_products(const std::string& a, const std::string& third, std::initializer_list<const char*> reduces) {
    for (const char* reduce : reduces) {
      if (!reader_.has(std::string(reduce) + "_instruction_names")) continue;  // reported when it is read
      for (const std::string& name : reader_.texts(std::string(reduce) + "_instruction_names")) reduced_.insert(name);
    }
    const std::string aa = a + a, aaa = aa + a, aaaa = aa + aa;
    if (is_used(aa) || is_used(aaa) || is_used(aaaa)) {
      stages_.add_mix(a + "1", a, a);
      stages_.add_product(aa, a + "1", a + "1");
    }
    if (is_used(aaa)) {
      stages_.add_mix(aa + "1", aa, a);
      stages_.add_product(aaa, aa + "1", third);
    }
    if (is_used(aaaa)) {
      stages_.add_mix(aa + "2", aa, a);
      stages_.add_product(aaaa, aa + "2", aa + "2");
    }
  }

  // Names of instructions in the file must be those of the wiring: anything else would be left out silently.
  void require_known(const std::string& key, const std::set<std::string>& known) const {
    if (!reader_.has(key)) return;
    for (const std::string& name : reader_.texts(key)) {
      reader_.check(known.count(name) != 0, key, "names the instruction `", name,
                    "`, which two-layer models of this kind do not have; this architecture is not supported.");
    }
  }

 private:
  bool is_used(const std::string& product) const {
    return reader_.has("prod_" + product + "_cg_coeff") || reduced_.count(product) != 0;
  }

  SpecReader& reader_;
  StageReader& stages_;
  std::set<std::string> reduced_;
};

void read_one_layer(SpecReader& reader, StageReader& stages, const ModelSpec& model) {
  stages.add_radial("R", "mlp_rad");
  const RadialNetwork& radial = model.radials.front();
  reader.require_value("lmax", radial.lmax, "other than `mlp_rad_lmax`");
  reader.require_value("nradmax", radial.n_channels, "other than `mlp_rad_n_rad_max`");
  stages.add_single_particle_basis("A", "R");
  Wiring(reader, stages).add_products("A", "A1", {"rho"});
  stages.add_reduce("rho");
  stages.add_readout({"rho"});
}

void read_two_layers(SpecReader& reader, StageReader& stages, ModelSpec& model) {
  Wiring wiring(reader, stages);
  wiring.require_known("mlp_rad_names", {"R", "R1"});
  wiring.require_known("spb_names", {"A", "B0"});
  wiring.require_known("fc_names", {"A1", "AA1", "AA2", "B1", "BB1", "BB2"});
  wiring.require_known("prod_names", {"AA", "AAA", "AAAA", "BB", "BBB", "BBBB"});

  stages.add_radial("R", "mlp_rad_R");
  reader.require_value("lmax", model.radials.front().lmax, "other than `mlp_rad_R_lmax`");
  stages.add_single_particle_basis("A", "R");
  wiring.add_products("A", "A", {"rho", "I1"});
  // The readout blocks are stored under names of their own, too; the aliases rho and I2 are the fixed ones.
  stages.add_reduce("rho");
  stages.add_norm("rho_norm", "rho", "I_nl_LN");
  stages.add_reduce("I1");
  stages.add_reduce("I");
  model.message = "I";

  stages.add_radial("R1", "mlp_rad_R1");
  stages.add_single_particle_basis("B0", "R1");
  stages.add_message_basis("YI", "R1", "I");
  stages.add_reduce("B");
  wiring.add_products("B", "B", {"I2"});
  stages.add_reduce("I2");
  stages.add_norm("I2_norm", "I2", "I_0_LN");
  stages.add_readout({"rho_norm", "I2_norm"});
}

}  // namespace

int ModelSpec::element_index(const std::string& symbol) const {
  const auto found = std::find(elements.begin(), elements.end(), symbol);
  if (found == elements.end()) {
    std::string known;
    for (const std::string& element : elements) known += (known.empty() ? "" : ", ") + element;
    throw Error("Element `" + symbol + "` is unknown to " + source + "; it knows " + known + ".");
  }
  return static_cast<int>(found - elements.begin());
}

ModelSpec load_model(const WeightSource& source, const std::vector<std::string>& elements) {
  SpecReader reader(source);
  ModelSpec model;
  model.source = source.name();
  bool is_one_layer = false, is_two_layers = false;
  for (const std::string& key : source.keys()) {
    require(key != "spbf_names", "`", source.name(),
            "` is a three-layer model (it has `spbf_names`), which is not supported; use a one- or two-layer model.");
    if (starts_with(key, "uq_")) model.unused_keys.push_back(key);
    is_two_layers = is_two_layers || starts_with(key, "YI_") || starts_with(key, "mlp_rad_R_");
    is_one_layer = is_one_layer || starts_with(key, "mlp_rad_W") || starts_with(key, "prod_");
  }
  require(is_one_layer || is_two_layers, "`", source.name(),
          "` has no arrays of a GRACE model of one or two layers; give a file written by `grace_utils export_kokkos`.");
  std::sort(model.unused_keys.begin(), model.unused_keys.end());

  StageReader stages(reader, elements, model);
  model.n_layers = is_two_layers ? 2 : 1;
  if (is_two_layers) {
    read_two_layers(reader, stages, model);
  } else {
    read_one_layer(reader, stages, model);
  }
  model.n_parameters = reader.n_weights();
  return model;
}

}  // namespace grace
