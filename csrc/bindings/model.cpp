// grace_md._core: ModelSpec, a checked model made from arrays or from a stored .npz file.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "grace/error.hpp"
#include "grace/model/spec.hpp"

namespace py = pybind11;

namespace {

// A dictionary of NumPy arrays as a weight source. Used with the GIL held.
class DictSource final : public grace::WeightSource {
 public:
  DictSource(py::dict arrays, std::string name) : arrays_(std::move(arrays)), name_(std::move(name)) {}

  std::string name() const override { return name_; }

  std::vector<std::string> keys() const override {
    std::vector<std::string> keys;
    for (const auto& item : arrays_) keys.push_back(py::str(item.first));
    return keys;
  }

  bool has(const std::string& key) const override { return arrays_.contains(key.c_str()); }

  grace::Array read(const std::string& key) const override {
    grace::require(has(key), name_, ": missing weight '", key, "'; export the model again");
    const py::array array = py::array::ensure(arrays_[key.c_str()]);
    grace::require(static_cast<bool>(array), name_, ": '", key, "' is not an array");
    grace::Array out;
    for (py::ssize_t k = 0; k < array.ndim(); ++k) out.shape.push_back(array.shape(k));
    const char kind = array.dtype().kind();
    if (kind == 'f') {
      out.kind = grace::Array::Kind::floating;
      fill<double>(array, out.floats);
    } else if (kind == 'i' || kind == 'u' || kind == 'b') {
      out.kind = grace::Array::Kind::integer;
      fill<std::int64_t>(array, out.integers);
    } else if (kind == 'S' || kind == 'U') {
      out.kind = grace::Array::Kind::text;
      const py::object as_text = array.attr("astype")(kind == 'S' ? "S" : "U").attr("ravel")();
      for (const py::handle item : as_text) {
        const py::object text = kind == 'S' ? item.attr("decode")("ascii") : py::reinterpret_borrow<py::object>(item);
        out.texts.push_back(text.cast<std::string>());
      }
    } else {
      throw grace::Error(name_ + ": '" + key + "' has a data type that weight files do not use (" + kind + ")");
    }
    return out;
  }

 private:
  template <class T>
  static void fill(const py::array& array, std::vector<T>& out) {
    const auto converted = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(array);
    if (!converted) throw py::error_already_set();
    out.assign(converted.data(), converted.data() + converted.size());
  }

  py::dict arrays_;
  std::string name_;
};

py::array_t<double> matrix(const std::vector<double>& values, int rows) {
  py::array_t<double> out({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(rows)});
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

py::list radial_networks(const grace::ModelSpec& spec) {
  py::list out;
  for (const grace::RadialNetwork& network : spec.radials) {
    py::dict d;
    d["name"] = network.name;
    d["n_basis"] = network.n_basis;
    d["envelope_order"] = network.envelope_order;
    d["n_channels"] = network.n_channels;
    d["lmax"] = network.lmax;
    py::list widths;
    for (const grace::DenseLayer& layer : network.layers) widths.append(layer.n_out);
    d["layers"] = widths;
    out.append(d);
  }
  return out;
}

py::list stages(const grace::ModelSpec& spec) {
  py::list out;
  for (const grace::Stage& stage : spec.stages)
    std::visit(
        [&](const auto& s) {
          using S = std::decay_t<decltype(s)>;
          if constexpr (std::is_same_v<S, grace::SingleParticleBasis>)
            out.append(py::make_tuple("single-particle basis", s.output));
          if constexpr (std::is_same_v<S, grace::MessageBasis>) out.append(py::make_tuple("message basis", s.output));
          if constexpr (std::is_same_v<S, grace::ChannelMix>) out.append(py::make_tuple("channel mix", s.output));
          if constexpr (std::is_same_v<S, grace::CouplingProduct>)
            out.append(py::make_tuple("coupling product", s.output));
          if constexpr (std::is_same_v<S, grace::FunctionReduce>)
            out.append(py::make_tuple("function reduce", s.output));
          if constexpr (std::is_same_v<S, grace::DensityNorm>) out.append(py::make_tuple("density norm", s.output));
          if constexpr (std::is_same_v<S, grace::Readout>) out.append(py::make_tuple("readout", "energy"));
        },
        stage);
  return out;
}

}  // namespace

void bind_model(py::module_& m) {
  using grace::ModelSpec;
  py::class_<ModelSpec, std::shared_ptr<ModelSpec>>(m, "ModelSpec",
                                                    "A checked GRACE model: an ordered list of typed stages.")
      .def(py::init([](py::dict arrays, std::string name, std::vector<std::string> elements) {
             return std::make_shared<ModelSpec>(
                 grace::load_model(DictSource(std::move(arrays), std::move(name)), elements));
           }),
           py::arg("arrays"), py::arg("name") = "<arrays>", py::arg("elements") = std::vector<std::string>{})
      .def_static(
          "from_file",
          [](const std::string& path, const std::vector<std::string>& elements) {
            py::gil_scoped_release release;
            return std::make_shared<ModelSpec>(grace::load_model(grace::NpzFile(path), elements));
          },
          py::arg("path"), py::arg("elements") = std::vector<std::string>{},
          "Read a stored .npz with the reader that the LAMMPS plugin uses.")
      .def_readonly("source", &ModelSpec::source)
      .def_readonly("n_layers", &ModelSpec::n_layers)
      .def_readonly("elements", &ModelSpec::elements)
      .def_readonly("file_elements", &ModelSpec::file_elements)
      .def_readonly("max_cutoff", &ModelSpec::max_cutoff)
      .def_property_readonly(
          "pair_cutoffs", [](const ModelSpec& s) { return matrix(s.pair_cutoffs, s.n_elements()); },
          "float64 [n_elements, n_elements], A; row = centre")
      .def_readonly("output_scale", &ModelSpec::output_scale)
      .def_property_readonly(
          "shift", [](const ModelSpec& s) { return py::array_t<double>(s.shift.size(), s.shift.data()); },
          "float64 [n_elements], eV")
      .def_readonly("n_parameters", &ModelSpec::n_parameters)
      .def_readonly("unused_keys", &ModelSpec::unused_keys)
      .def_property_readonly("radial", &radial_networks)
      .def_property_readonly("stages", &stages, "list of (kind, name), in order of evaluation");
}
