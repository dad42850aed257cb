#include "grace/evaluator_cpu/cpu_evaluator.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cpu/densities.hpp"
#include "grace/evaluator_cpu/evaluator_cpu.hpp"

namespace grace::cpu {
namespace {

constexpr int default_chunk = 1024;  // atoms sorted by species together

}  // namespace

template <class Real>
CpuEvaluator<Real>::CpuEvaluator(ModelSpec model, const EvaluatorOptions& options)
    : spec_(std::move(model)),
      options_(options),
      kernels_(select_kernels()),
      tile_atoms_(sizeof(Real) == 8 ? 12 : 16),  // measured, benchmarks/README.md
      compiled_(spec_, options.radial, tile_atoms_) {
  if constexpr (sizeof(Real) == 8)
    tile_kernels_ = kernels_.fp64;
  else
    tile_kernels_ = kernels_.fp32;
#ifdef _OPENMP
  n_threads_ = options.n_threads > 0 ? options.n_threads : omp_get_max_threads();
#endif
  workspaces_.resize(n_threads_);
}

template <class Real>
int CpuEvaluator<Real>::message_width() const {
  if (compiled_.layers.size() < 2) return 0;
  const LayerPlan<Real>& plan = compiled_.layers[1].plan;
  return plan.n_message_rows * plan.radial.stride;
}

template <class Real>
std::size_t CpuEvaluator<Real>::workspace_bytes() const {
  std::size_t total = (message_.capacity() + message_gradient_.capacity() + kept_.capacity()) * sizeof(Real) +
                      (density_.capacity() + density_gradient_.capacity()) * sizeof(double);
  for (const Workspace<Real>& w : workspaces_) total += w.bytes();
  return total;
}

template <class Real>
std::string CpuEvaluator<Real>::description() const {
  std::string isa = kernels_.name;
  isa = isa == "isa_baseline" ? "baseline" : "x86-64-" + isa.substr(4);
  const char* precision = options_.precision == Precision::fp64    ? "fp64"
                          : options_.precision == Precision::mixed ? "mixed"
                                                                   : "fp32";
  std::string radial = "exact radial network";
  if (options_.radial == RadialMode::table) {
    char text[160];
    std::snprintf(text, sizeof(text), "radial table (%d intervals of degree %d, relative error %.1e, slope %.1e)",
                  compiled_.radial_report.n_intervals, compiled_.radial_report.degree,
                  compiled_.radial_report.value_error, compiled_.radial_report.derivative_error);
    radial = text;
  }
  return "cpu " + isa + ", " + precision + ", " + radial + ", " + std::to_string(n_threads_) +
         (n_threads_ == 1 ? " thread" : " threads");
}

template <class Real>
void CpuEvaluator<Real>::compute(const Geometry& geometry, Results& results, MessageExchange* exchange) {
  check(geometry, results, exchange);
  geometry_ = &geometry;
  results_ = &results;
  inputs_ = {geometry.positions, geometry.species,   geometry.first,     geometry.neighbor,        geometry.shift,
             geometry.cells,     geometry.structure, spec_.n_elements(), spec_.pair_cutoffs.data()};
  results.closest_distance = std::numeric_limits<double>::infinity();
  results.closest_pair = {-1, -1};
  const std::vector<std::int32_t> wanted = selected_centers();
  prepare_stages();
  clear_sums();
  if (compiled_.layers.size() == 1) {
    set_schedule(wanted);
    prepare_threads();
    for_each_tile([this](Workspace<Real>& w, const TileRange& range) { one_layer_tile(w, range); });
  } else {
    two_layers(wanted, exchange);
  }
  fold_sums();
}

template <class Real>
void CpuEvaluator<Real>::check(const Geometry& g, const Results& r, const MessageExchange* exchange) const {
  require(g.n_centers >= 0 && g.n_atoms >= g.n_centers, "geometry: n_atoms = ", g.n_atoms,
          " must be at least n_centers = ", g.n_centers);
  require(g.n_atoms <= std::numeric_limits<std::int32_t>::max(), "geometry: n_atoms = ", g.n_atoms,
          " exceeds 2^31 - 1; use more ranks");
  require(g.n_centers == 0 || g.first != nullptr, "geometry: the CPU evaluator needs neighbour rows");
  require(g.space == MemorySpace::host, "geometry: the CPU evaluator reads host memory only");
  require(g.n_centers == 0 ||
              (g.positions != nullptr && g.species != nullptr && g.first != nullptr && r.energies != nullptr),
          "geometry: positions, species, neighbour rows and results.energies must be given");
  require(g.shift == nullptr || g.cells != nullptr, "geometry: neighbour shifts need cells");
  for (std::int64_t i = 0; i < 3 * g.n_atoms; ++i)
    require(std::isfinite(g.positions[i]), "position of atom ", i / 3, " is not finite (", g.positions[i],
            "); check the time step and the starting structure");
  for (std::int64_t i = 0; i < g.n_atoms; ++i)
    require(g.species[i] < spec_.n_elements(), "species of atom ", i, " is ", g.species[i], ", the model in use has ",
            spec_.n_elements(), " elements");
  require(compiled_.layers.size() == 1 || g.n_atoms == g.n_centers || g.owner != nullptr || exchange != nullptr,
          "a two-layer model with ghost atoms needs an owner map or a message exchange");
}

template <class Real>
std::vector<std::int32_t> CpuEvaluator<Real>::selected_centers() const {
  const Geometry& g = *geometry_;
  std::vector<std::int32_t> wanted;
  if (g.selection == nullptr) {
    wanted.resize(g.n_centers);
    std::iota(wanted.begin(), wanted.end(), 0);
  } else {
    wanted.assign(g.selection, g.selection + g.n_selected);
    for (std::int32_t i : wanted)
      require(i >= 0 && i < g.n_centers, "selection: atom ", i, " is outside [0, ", g.n_centers, ")");
    std::sort(wanted.begin(), wanted.end());
    require(std::adjacent_find(wanted.begin(), wanted.end()) == wanted.end(), "selection: an atom is listed twice");
  }
  wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](std::int32_t i) { return g.species[i] < 0; }),
               wanted.end());
  return wanted;
}

template <class Real>
void CpuEvaluator<Real>::set_schedule(const std::vector<std::int32_t>& centers) {
  schedule_ = make_tile_schedule(centers, geometry_->species, n_threads_,
                                 options_.chunk > 0 ? options_.chunk : default_chunk, tile_atoms_);
}

template <class Real>
void CpuEvaluator<Real>::prepare_threads() {
  for (int t = 0; t < n_threads_; ++t) {
    std::int64_t largest = 0;
    for (const TileRange& range : schedule_.tiles[t]) {
      std::int64_t entries = 0;
      for (int i = range.begin; i < range.end; ++i)
        entries += geometry_->first[schedule_.order[i] + 1] - geometry_->first[schedule_.order[i]];
      largest = std::max(largest, entries);
    }
    require(largest < (1 << 26), "the neighbour rows of ", tile_atoms_, " atoms hold ", largest,
            " entries; check the cell and the cutoff");
    workspaces_[t].reserve(compiled_, tile_atoms_, largest);
  }
}

template <class Real>
void CpuEvaluator<Real>::clear_sums() {
  for (int t = 1; t < n_threads_; ++t) {
    Workspace<Real>& w = workspaces_[t];
    auto clear = [](auto& v, bool wanted, std::size_t n) { v.assign(wanted ? n : 0, 0.0); };
    const std::size_t n = geometry_->n_atoms;
    clear(w.forces, results_->forces != nullptr, 3 * n);
    clear(w.virial, results_->virial != nullptr, 9 * geometry_->n_structures);
    clear(w.atom_virial, results_->atom_virial != nullptr, 9 * n);
    clear(w.centroid_virial, results_->centroid_virial != nullptr, 9 * n);
  }
}

template <class Real>
void CpuEvaluator<Real>::fold_sums() {
  for (int t = 0; t < n_threads_; ++t) {
    Workspace<Real>& w = workspaces_[t];
    auto fold = [](double* to, const AlignedVector<double>& from) {
      for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
    };
    if (t > 0) {
      fold(results_->forces, w.forces);
      fold(results_->virial, w.virial);
      fold(results_->atom_virial, w.atom_virial);
      fold(results_->centroid_virial, w.centroid_virial);
    }
    if (w.tile.closest[0] >= 0) {
      const double d = std::sqrt(w.tile.closest2);
      if (d < results_->closest_distance) {
        results_->closest_distance = d;
        results_->closest_pair = {w.tile.closest[0], w.tile.closest[1]};
      }
      w.tile.closest[0] = -1;
      w.tile.closest2 = std::numeric_limits<double>::infinity();
    }
  }
}

template <class Real>
void CpuEvaluator<Real>::start_tile(Workspace<Real>& w, const TileRange& range, const LayerPlan<Real>& plan) {
  w.set_tile(schedule_.order.data() + range.begin, schedule_.species.data() + range.begin, range.end - range.begin);
  tile_kernels_.collect_bonds(inputs_, w.tile);
  tile_kernels_.prepare_bonds(plan, w.tile);
}

// Energies of the tile from summed densities y; gradient gy scaled to eV, or nullptr.
template <class Real>
void CpuEvaluator<Real>::finish_energies(Workspace<Real>& w, const double* y, double* gy) {
  const Tile<Real>& tile = w.tile;
  const int stride = density_stride();
  kernels_.readout(compiled_.readout, tile.n_atoms, y, stride, w.energies(), gy, w.readout_scratch());
  for (int a = 0; a < tile.n_atoms; ++a)
    results_->energies[tile.atoms[a]] = w.energies()[a] * spec_.output_scale + spec_.shift[tile.species[a]];
  if (gy != nullptr)
    for (int i = 0; i < tile.n_atoms * stride; ++i) gy[i] *= spec_.output_scale;
}

template <class Real>
void CpuEvaluator<Real>::scatter(Workspace<Real>& w) {
  const Tile<Real>& tile = w.tile;
  const Bonds<Real>& bonds = tile.bonds;
  const bool direct = &w == &workspaces_[0];
  double* forces = direct ? results_->forces : w.forces.data();
  double* virial = results_->virial == nullptr ? nullptr : direct ? results_->virial : w.virial.data();
  double* atom_virial = results_->atom_virial == nullptr ? nullptr
                        : direct                         ? results_->atom_virial
                                                         : w.atom_virial.data();
  double* centroid = results_->centroid_virial == nullptr ? nullptr
                     : direct                             ? results_->centroid_virial
                                                          : w.centroid_virial.data();
  const std::int64_t c = bonds.capacity;
  for (int a = 0; a < tile.n_atoms; ++a) {
    const std::int64_t i = tile.atoms[a];
    double own[3] = {0.0, 0.0, 0.0};
    double sum[9] = {};
    for (int b = bonds.first[a]; b < bonds.first[a + 1]; ++b) {
      const std::int64_t j = bonds.neighbor[b];
      const double f[3] = {-bonds.gradient[b], -bonds.gradient[c + b], -bonds.gradient[2 * c + b]};
      for (int k = 0; k < 3; ++k) {
        own[k] -= f[k];
        forces[3 * j + k] += f[k];
      }
      if (virial == nullptr && atom_virial == nullptr && centroid == nullptr) continue;
      for (int k = 0; k < 3; ++k)
        for (int m = 0; m < 3; ++m) {
          const double v = bonds.vector[k * c + b] * f[m];
          sum[3 * k + m] += v;
          if (atom_virial != nullptr) atom_virial[9 * j + 3 * k + m] += 0.5 * v;
          if (centroid != nullptr) centroid[9 * j + 3 * k + m] += v;
        }
    }
    for (int k = 0; k < 3; ++k) forces[3 * i + k] += own[k];
    const std::int64_t structure = geometry_->structure == nullptr ? 0 : geometry_->structure[i];
    if (virial != nullptr)
      for (int k = 0; k < 9; ++k) virial[9 * structure + k] += sum[k];
    if (atom_virial != nullptr)
      for (int k = 0; k < 9; ++k) atom_virial[9 * i + k] += 0.5 * sum[k];
  }
}

template <class Real>
void CpuEvaluator<Real>::prepare_stages() {
  if (results_->stages == nullptr) return;
  results_->stages->clear();
  for (const CompiledLayer<Real>& layer : compiled_.layers)
    for (int k = 0; k < layer.plan.n_slots; ++k) {
      StageTensor tensor;
      tensor.name = layer.slot_names[k];
      tensor.n_channels = layer.plan.slots[k].n_channels;
      tensor.rows = layer.slot_rows[k];
      tensor.values.assign(static_cast<std::size_t>(geometry_->n_centers) * tensor.rows.size() * tensor.n_channels,
                           0.0);
      tensor.gradients = tensor.values;
      results_->stages->push_back(std::move(tensor));
    }
}

template <class Real>
void CpuEvaluator<Real>::copy_stages(int layer_index, const Tile<Real>& tile) {
  if (results_->stages == nullptr) return;
  const LayerPlan<Real>& plan = compiled_.layers[layer_index].plan;
  const std::size_t offset = layer_index == 0 ? 0 : compiled_.layers[0].plan.n_slots;
  for (int k = 0; k < plan.n_slots; ++k) {
    const Slot& slot = plan.slots[k];
    StageTensor& tensor = (*results_->stages)[offset + k];
    for (int a = 0; a < tile.n_atoms; ++a)
      for (int r = 0; r < slot.n_rows; ++r)
        for (int n = 0; n < slot.n_channels; ++n) {
          const std::size_t from =
              slot.offset * tile.n_atoms + (static_cast<std::size_t>(r) * tile.n_atoms + a) * slot.stride + n;
          const std::size_t to = (static_cast<std::size_t>(tile.atoms[a]) * slot.n_rows + r) * slot.n_channels + n;
          tensor.values[to] = tile.values[from];
          tensor.gradients[to] = tile.gradients[from];
        }
  }
}

template <class Real>
void CpuEvaluator<Real>::one_layer_tile(Workspace<Real>& w, const TileRange& range) {
  const CompiledLayer<Real>& layer = compiled_.layers[0];
  start_tile(w, range, layer.plan);
  tile_kernels_.layer_forward(layer.plan, w.tile);
  const int stride = density_stride(), n = compiled_.readout.n_densities;
  const std::size_t plane = static_cast<std::size_t>(tile_atoms_) * stride;
  double* x = w.densities();
  double *y = x + plane, *gy = y + plane, *gx = gy + plane;
  read_densities(layer.plan, w.tile, stride, x);
  apply_norm(layer.norm, w.tile.n_atoms, n, stride, x, y);
  finish_energies(w, y, results_->forces == nullptr ? nullptr : gy);
  if (results_->forces == nullptr) return;
  apply_norm_adjoint(layer.norm, w.tile.n_atoms, n, stride, x, gy, gx);
  write_density_gradient(layer.plan, w.tile, stride, gx);
  tile_kernels_.layer_backward(layer.plan, w.tile);
  copy_stages(0, w.tile);
  scatter(w);
}

template class CpuEvaluator<double>;
template class CpuEvaluator<float>;

std::unique_ptr<Evaluator> make_cpu_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  if (options.precision == Precision::fp64) return std::make_unique<CpuEvaluator<double>>(std::move(model), options);
  return std::make_unique<CpuEvaluator<float>>(std::move(model), options);
}

}  // namespace grace::cpu
