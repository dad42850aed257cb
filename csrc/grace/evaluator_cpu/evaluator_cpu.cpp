// Driver of the CPU evaluator: orders atoms, deals tiles to threads, runs the passes of one- and two-layer models.
//
// One layer:  per tile, forward and adjoint.
// Two layers: (1) layer-1 forward of all tiles -> message, densities; (2) message of ghosts; (3) layer-2 forward and
// adjoint -> dE/dI, dE/d(densities of layer 1); (4) dE/dI of ghosts back; (5) layer-1 adjoint, from the values kept in
// (1) where they fit in memory, recomputed otherwise.
#include "grace/evaluator_cpu/evaluator_cpu.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "grace/error.hpp"
#include "grace/evaluator_cpu/dispatch.hpp"
#include "grace/evaluator_cpu/workspace.hpp"
#include "grace/math/density_norm.hpp"

namespace grace::cpu {
namespace {

constexpr int default_chunk = 1024;            // atoms sorted by species together
constexpr std::size_t kept_bytes = 1u << 30;   // layer-1 values kept between the passes of a two-layer model
constexpr int touch_block = 64;                // atoms per block of a thread's message gradient

template <class Real>
class CpuEvaluator final : public Evaluator {
 public:
  CpuEvaluator(ModelSpec model, const EvaluatorOptions& options)
      : spec_(std::move(model)),
        options_(options),
        kernels_(select_kernels()),
        tile_atoms_(sizeof(Real) == 8 ? 12 : 16),
        compiled_(spec_, options.radial, tile_atoms_) {
    if constexpr (sizeof(Real) == 8)
      tile_kernels_ = kernels_.fp64;
    else
      tile_kernels_ = kernels_.fp32;
    n_threads_ = 1;
#ifdef _OPENMP
    n_threads_ = options.n_threads > 0 ? options.n_threads : omp_get_max_threads();
#endif
    workspaces_.resize(n_threads_);
  }

  const ModelSpec& model() const override { return spec_; }
  RadialTableReport radial_report() const override { return compiled_.radial_report; }

  int message_width() const override {
    if (compiled_.layers.size() < 2) return 0;
    const LayerPlan<Real>& plan = compiled_.layers[1].plan;
    return plan.n_message_rows * plan.radial.stride;
  }

  std::size_t workspace_bytes() const override {
    std::size_t total = (message_.capacity() + message_gradient_.capacity() + kept_.capacity()) * sizeof(Real) +
                        (density_.capacity() + density_gradient_.capacity()) * sizeof(double);
    for (const Workspace<Real>& w : workspaces_) total += w.bytes();
    return total;
  }

  std::string description() const override {
    std::string isa = kernels_.name;
    isa = isa == "isa_baseline" ? "baseline" : "x86-64-" + isa.substr(4);
    const char* precision = options_.precision == Precision::fp64 ? "fp64" : options_.precision == Precision::mixed ? "mixed" : "fp32";
    std::string radial = "exact radial network";
    if (options_.radial == RadialMode::table) {
      char text[160];
      std::snprintf(text, sizeof(text), "radial table (%d intervals of degree %d, relative error %.1e, slope %.1e)", compiled_.radial_report.n_intervals,
                    compiled_.radial_report.degree, compiled_.radial_report.value_error, compiled_.radial_report.derivative_error);
      radial = text;
    }
    return "cpu " + isa + ", " + precision + ", " + radial + ", " + std::to_string(n_threads_) + (n_threads_ == 1 ? " thread" : " threads");
  }

  void compute(const Geometry& geometry, Results& results, MessageExchange* exchange) override {
    check(geometry, results, exchange);
    geometry_ = &geometry;
    results_ = &results;
    inputs_ = {geometry.positions, geometry.species, geometry.first, geometry.neighbor, geometry.shift, geometry.cells,
               geometry.structure, spec_.n_elements(), spec_.pair_cutoffs.data()};
    results.closest_distance = std::numeric_limits<double>::infinity();
    results.closest_pair = {-1, -1};

    std::vector<std::int32_t> wanted = selected_centers();
    prepare_stages();
    if (compiled_.layers.size() == 1) {
      make_tiles(wanted);
      prepare_threads();
      for_each_tile([this](Workspace<Real>& w, const TileRange& range) { one_layer_tile(w, range); });
    } else {
      two_layers(wanted, exchange);
    }
    fold_threads();
  }

 private:
  struct TileRange {
    int begin = 0, end = 0;  // in order_
    std::size_t kept = 0;    // offset of its values in kept_
  };

  ModelSpec spec_;
  EvaluatorOptions options_;
  Kernels kernels_;
  int tile_atoms_;
  CompiledModel<Real> compiled_;
  TileKernels<Real> tile_kernels_;
  int n_threads_ = 1;
  std::vector<Workspace<Real>> workspaces_;

  // of the current call
  const Geometry* geometry_ = nullptr;
  Results* results_ = nullptr;
  Inputs inputs_;
  std::vector<std::int32_t> order_, order_species_;       // centres by thread, chunk and species
  std::vector<std::vector<TileRange>> tiles_;             // [thread]
  AlignedVector<Real> message_, message_gradient_, kept_;  // [atom or owner][message_width]; kept values of layer 1
  AlignedVector<double> density_, density_gradient_;       // [centre][density_stride] of layer 1

  void check(const Geometry& g, const Results& r, MessageExchange* exchange) const {
    require(g.n_centers >= 0 && g.n_atoms >= g.n_centers, "geometry: n_atoms = ", g.n_atoms, " must be at least n_centers = ", g.n_centers);
    require(g.n_atoms <= std::numeric_limits<std::int32_t>::max(), "geometry: n_atoms = ", g.n_atoms, " exceeds 2^31 - 1; use more ranks");
    require(g.n_centers == 0 || (g.positions != nullptr && g.species != nullptr && g.first != nullptr && r.energies != nullptr),
            "geometry: positions, species, neighbour rows and results.energies must be given");
    require(g.shift == nullptr || g.cells != nullptr, "geometry: neighbour shifts need cells");
    for (std::int64_t i = 0; i < 3 * g.n_atoms; ++i)
      require(std::isfinite(g.positions[i]), "position of atom ", i / 3, " is not finite (", g.positions[i], "); check the time step and the starting structure");
    for (std::int64_t i = 0; i < g.n_atoms; ++i)
      require(g.species[i] < spec_.n_elements(), "species of atom ", i, " is ", g.species[i], ", the model in use has ", spec_.n_elements(), " elements");
    require(compiled_.layers.size() == 1 || g.n_atoms == g.n_centers || g.owner != nullptr || exchange != nullptr,
            "a two-layer model with ghost atoms needs an owner map or a message exchange");
  }

  std::vector<std::int32_t> selected_centers() const {
    const Geometry& g = *geometry_;
    std::vector<std::int32_t> wanted;
    if (g.selection == nullptr) {
      wanted.resize(g.n_centers);
      std::iota(wanted.begin(), wanted.end(), 0);
    } else {
      wanted.assign(g.selection, g.selection + g.n_selected);
      for (std::int32_t i : wanted) require(i >= 0 && i < g.n_centers, "selection: atom ", i, " is outside [0, ", g.n_centers, ")");
      std::sort(wanted.begin(), wanted.end());
      require(std::adjacent_find(wanted.begin(), wanted.end()) == wanted.end(), "selection: an atom is listed twice");
    }
    wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](std::int32_t i) { return g.species[i] < 0; }), wanted.end());
    return wanted;
  }

  // Contiguous share per thread, chunks within a share, species order within a chunk, tiles of tile_atoms_.
  void make_tiles(const std::vector<std::int32_t>& wanted) {
    order_ = wanted;
    const std::int64_t n = static_cast<std::int64_t>(order_.size());
    const int chunk = options_.chunk > 0 ? options_.chunk : default_chunk;
    tiles_.assign(n_threads_, {});
    const std::int32_t* species = geometry_->species;
    for (int t = 0; t < n_threads_; ++t) {
      const std::int64_t begin = n * t / n_threads_, end = n * (t + 1) / n_threads_;
      for (std::int64_t c = begin; c < end; c += chunk) {
        const std::int64_t stop = std::min<std::int64_t>(end, c + chunk);
        std::stable_sort(order_.begin() + c, order_.begin() + stop, [species](std::int32_t a, std::int32_t b) { return species[a] < species[b]; });
        for (std::int64_t i = c; i < stop; i += tile_atoms_)
          tiles_[t].push_back({static_cast<int>(i), static_cast<int>(std::min<std::int64_t>(stop, i + tile_atoms_)), 0});
      }
    }
    order_species_.resize(n);
    for (std::int64_t i = 0; i < n; ++i) order_species_[i] = species[order_[i]];
  }

  std::int64_t list_entries(const TileRange& range) const {
    std::int64_t total = 0;
    for (int i = range.begin; i < range.end; ++i) total += geometry_->first[order_[i] + 1] - geometry_->first[order_[i]];
    return total;
  }

  void prepare_threads() {
    for (int t = 0; t < n_threads_; ++t) {
      std::int64_t bonds = 0;
      for (const TileRange& range : tiles_[t]) bonds = std::max(bonds, list_entries(range));
      require(bonds < (1 << 26), "the neighbour rows of ", tile_atoms_, " atoms hold ", bonds, " entries; check the cell and the cutoff");
      workspaces_[t].reserve(compiled_, tile_atoms_, bonds);
    }
  }

  // Thread 0 adds to the caller's arrays directly; the others to their own, folded in order at the end.
  void clear_sums() {
    for (int t = 1; t < n_threads_; ++t) {
      Workspace<Real>& w = workspaces_[t];
      auto clear = [](auto& v, bool wanted, std::size_t n) { v.assign(wanted ? n : 0, 0.0); };
      const std::size_t n = geometry_->n_atoms;
      clear(w.forces, results_->forces != nullptr, 3 * n);
      clear(w.virial, results_->virial != nullptr, 9 * geometry_->n_structures);
      clear(w.atom_virial, results_->atom_virial != nullptr, 9 * n);
      clear(w.centroid_virial, results_->centroid_virial != nullptr, 9 * n);
    }
    sums_cleared_ = true;
  }
  bool sums_cleared_ = false;

  template <class Function>
  void for_each_tile(Function f) {
    if (!sums_cleared_) clear_sums();
#ifdef _OPENMP
#pragma omp parallel num_threads(n_threads_) if (n_threads_ > 1)
    {
      const int stride = omp_get_num_threads();
      for (int t = omp_get_thread_num(); t < n_threads_; t += stride)
        for (const TileRange& range : tiles_[t]) f(workspaces_[t], range);
    }
#else
    for (int t = 0; t < n_threads_; ++t)
      for (const TileRange& range : tiles_[t]) f(workspaces_[t], range);
#endif
  }

  void fold_threads() {
    if (!sums_cleared_) clear_sums();
    sums_cleared_ = false;
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

  void start_tile(Workspace<Real>& w, const TileRange& range, const LayerPlan<Real>& plan) {
    w.set_tile(order_.data() + range.begin, order_species_.data() + range.begin, range.end - range.begin);
    tile_kernels_.collect_bonds(inputs_, w.tile);
    tile_kernels_.prepare_bonds(plan, w.tile);
  }

  // Densities of the tile in double, from the layer's slot.
  void read_densities(const LayerPlan<Real>& plan, const Tile<Real>& tile, double* x) const {
    const Slot& slot = plan.slots[plan.density];
    const int stride = Workspace<Real>::density_stride(compiled_);
    const Real* rows = tile.values + slot.offset * tile.n_atoms;
    for (int a = 0; a < tile.n_atoms; ++a)
      for (int k = 0; k < stride; ++k) x[a * stride + k] = k < slot.n_channels ? static_cast<double>(rows[a * slot.stride + k]) : 0.0;
  }

  void write_density_gradient(const LayerPlan<Real>& plan, Tile<Real>& tile, const double* gx) const {
    const Slot& slot = plan.slots[plan.density];
    const int stride = Workspace<Real>::density_stride(compiled_);
    Real* rows = tile.gradients + slot.offset * tile.n_atoms;
    for (int a = 0; a < tile.n_atoms; ++a)
      for (int k = 0; k < slot.stride; ++k) rows[a * slot.stride + k] = k < slot.n_channels ? static_cast<Real>(gx[a * stride + k]) : Real(0);
  }

  void apply_norm(const NormPlan& norm, int n_atoms, const double* x, double* y) const {
    const int stride = Workspace<Real>::density_stride(compiled_), n = compiled_.readout.n_densities;
    for (int a = 0; a < n_atoms; ++a, x += stride, y += stride) {
      if (!norm.present) {
        for (int k = 0; k < n; ++k) y[k] = x[k];
      } else if (norm.only_nonlinear) {
        y[0] = x[0] * norm.gate;
        math::rms_norm(n - 1, x + 1, norm.scale, y + 1);
      } else {
        math::rms_norm(n, x, norm.scale, y);
      }
    }
  }

  void apply_norm_adjoint(const NormPlan& norm, int n_atoms, const double* x, const double* gy, double* gx) const {
    const int stride = Workspace<Real>::density_stride(compiled_), n = compiled_.readout.n_densities;
    for (int a = 0; a < n_atoms; ++a, x += stride, gy += stride, gx += stride) {
      if (!norm.present) {
        for (int k = 0; k < n; ++k) gx[k] = gy[k];
      } else if (norm.only_nonlinear) {
        gx[0] = gy[0] * norm.gate;
        math::rms_norm_adjoint(n - 1, x + 1, norm.scale, gy + 1, gx + 1);
      } else {
        math::rms_norm_adjoint(n, x, norm.scale, gy, gx);
      }
    }
  }

  // Energies of the tile from summed densities y; gradient gy scaled to eV, or nullptr.
  void finish_energies(Workspace<Real>& w, const double* y, double* gy) {
    const Tile<Real>& tile = w.tile;
    const int stride = Workspace<Real>::density_stride(compiled_);
    kernels_.readout(compiled_.readout, tile.n_atoms, y, stride, w.energies(), gy, w.readout_scratch());
    for (int a = 0; a < tile.n_atoms; ++a)
      results_->energies[tile.atoms[a]] = w.energies()[a] * spec_.output_scale + spec_.shift[tile.species[a]];
    if (gy != nullptr)
      for (int i = 0; i < tile.n_atoms * stride; ++i) gy[i] *= spec_.output_scale;
  }

  void scatter(Workspace<Real>& w) {
    const Tile<Real>& tile = w.tile;
    const Bonds<Real>& bonds = tile.bonds;
    const bool direct = &w == &workspaces_[0];
    double* forces = direct ? results_->forces : w.forces.data();
    double* virial = results_->virial == nullptr ? nullptr : direct ? results_->virial : w.virial.data();
    double* atom_virial = results_->atom_virial == nullptr ? nullptr : direct ? results_->atom_virial : w.atom_virial.data();
    double* centroid = results_->centroid_virial == nullptr ? nullptr : direct ? results_->centroid_virial : w.centroid_virial.data();
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

  void prepare_stages() {
    if (results_->stages == nullptr) return;
    results_->stages->clear();
    for (const CompiledLayer<Real>& layer : compiled_.layers)
      for (int k = 0; k < layer.plan.n_slots; ++k) {
        StageTensor tensor;
        tensor.name = layer.slot_names[k];
        tensor.n_channels = layer.plan.slots[k].n_channels;
        tensor.rows = layer.slot_rows[k];
        tensor.values.assign(static_cast<std::size_t>(geometry_->n_centers) * tensor.rows.size() * tensor.n_channels, 0.0);
        tensor.gradients = tensor.values;
        results_->stages->push_back(std::move(tensor));
      }
  }

  void copy_stages(int layer_index, const Tile<Real>& tile) {
    if (results_->stages == nullptr) return;
    const LayerPlan<Real>& plan = compiled_.layers[layer_index].plan;
    const std::size_t offset = layer_index == 0 ? 0 : compiled_.layers[0].plan.n_slots;
    for (int k = 0; k < plan.n_slots; ++k) {
      const Slot& slot = plan.slots[k];
      StageTensor& tensor = (*results_->stages)[offset + k];
      for (int a = 0; a < tile.n_atoms; ++a)
        for (int r = 0; r < slot.n_rows; ++r)
          for (int n = 0; n < slot.n_channels; ++n) {
            const std::size_t from = slot.offset * tile.n_atoms + (static_cast<std::size_t>(r) * tile.n_atoms + a) * slot.stride + n;
            const std::size_t to = (static_cast<std::size_t>(tile.atoms[a]) * slot.n_rows + r) * slot.n_channels + n;
            tensor.values[to] = tile.values[from];
            tensor.gradients[to] = tile.gradients[from];
          }
    }
  }

  void one_layer_tile(Workspace<Real>& w, const TileRange& range) {
    const CompiledLayer<Real>& layer = compiled_.layers[0];
    start_tile(w, range, layer.plan);
    tile_kernels_.layer_forward(layer.plan, w.tile);
    const std::size_t plane = static_cast<std::size_t>(tile_atoms_) * Workspace<Real>::density_stride(compiled_);
    double* x = w.densities();
    double *y = x + plane, *gy = y + plane, *gx = gy + plane;
    read_densities(layer.plan, w.tile, x);
    apply_norm(layer.norm, w.tile.n_atoms, x, y);
    finish_energies(w, y, results_->forces == nullptr ? nullptr : gy);
    if (results_->forces == nullptr) return;
    apply_norm_adjoint(layer.norm, w.tile.n_atoms, x, gy, gx);
    write_density_gradient(layer.plan, w.tile, gx);
    tile_kernels_.layer_backward(layer.plan, w.tile);
    copy_stages(0, w.tile);
    scatter(w);
  }

  // ---- two layers ---------------------------------------------------------------------------------------------------

  std::int64_t owner_of(std::int64_t atom) const { return geometry_->owner == nullptr ? atom : geometry_->owner[atom]; }

  // Layer 1 is needed for the wanted centres and for the centres their neighbours are (images of).
  std::vector<std::int32_t> message_centers(const std::vector<std::int32_t>& wanted) const {
    if (geometry_->selection == nullptr) return wanted;
    std::vector<char> needed(geometry_->n_centers, 0);
    for (std::int32_t i : wanted) {
      needed[i] = 1;
      for (std::int64_t p = geometry_->first[i]; p < geometry_->first[i + 1]; ++p) {
        const std::int64_t j = owner_of(geometry_->neighbor[p]);
        if (j < geometry_->n_centers && geometry_->species[j] >= 0) needed[j] = 1;
      }
    }
    std::vector<std::int32_t> centers;
    for (std::int64_t i = 0; i < geometry_->n_centers; ++i)
      if (needed[i] != 0) centers.push_back(static_cast<std::int32_t>(i));
    return centers;
  }

  void two_layers(const std::vector<std::int32_t>& wanted, MessageExchange* exchange) {
    const int width = message_width();
    const bool adjoint = results_->forces != nullptr;
    const std::size_t n_rows = geometry_->owner != nullptr ? geometry_->n_centers : geometry_->n_atoms;
    const std::size_t stride = Workspace<Real>::density_stride(compiled_);
    message_.resize(n_rows * width);
    density_.resize(geometry_->n_centers * stride);
    if (adjoint) density_gradient_.assign(geometry_->n_centers * stride, 0.0);

    const std::vector<std::int32_t> centers = message_centers(wanted);
    make_tiles(centers);
    keep_ = adjoint && reserve_kept_values();
    prepare_threads();
    for_each_tile([this](Workspace<Real>& w, const TileRange& range) { first_layer_forward(w, range); });
    if (exchange != nullptr && geometry_->owner == nullptr) exchange->forward(message_.data(), width);

    if (adjoint) {
      message_gradient_.assign(n_rows * width, Real(0));
      for (int t = 1; t < n_threads_; ++t) {
        workspaces_[t].message_gradient.resize(n_rows * width);
        workspaces_[t].touched.assign(n_rows / touch_block + 1, 0);
      }
    }
    std::vector<std::vector<TileRange>> first_tiles;
    std::vector<std::int32_t> first_order, first_species;
    if (geometry_->selection != nullptr) {
      first_tiles = std::move(tiles_);
      first_order = std::move(order_);
      first_species = std::move(order_species_);
      make_tiles(wanted);
      prepare_threads();
    }
    for_each_tile([this](Workspace<Real>& w, const TileRange& range) { second_layer_tile(w, range); });
    if (geometry_->selection != nullptr) {
      tiles_ = std::move(first_tiles);
      order_ = std::move(first_order);
      order_species_ = std::move(first_species);
    }
    if (!adjoint) return;
    fold_message_gradients(n_rows, width);
    if (exchange != nullptr && geometry_->owner == nullptr) exchange->reverse(message_gradient_.data(), width);
    prepare_threads();
    for_each_tile([this](Workspace<Real>& w, const TileRange& range) { first_layer_backward(w, range); });
  }
  bool keep_ = false;

  bool reserve_kept_values() {
    std::size_t total = 0;
    for (auto& thread_tiles : tiles_)
      for (TileRange& range : thread_tiles) {
        range.kept = total;
        total += compiled_.layers[0].plan.arena_per_atom * static_cast<std::size_t>(range.end - range.begin);
        total = (total + 15) / 16 * 16;
      }
    if (total * sizeof(Real) > kept_bytes) return false;
    if (kept_.size() < total) kept_.resize(total);
    return true;
  }

  void first_layer_forward(Workspace<Real>& w, const TileRange& range) {
    const CompiledLayer<Real>& layer = compiled_.layers[0];
    start_tile(w, range, layer.plan);
    if (keep_) w.tile.values = kept_.data() + range.kept;
    tile_kernels_.layer_forward(layer.plan, w.tile);
    const int stride = Workspace<Real>::density_stride(compiled_);
    double* x = w.densities();
    read_densities(layer.plan, w.tile, x);
    const Slot& slot = layer.plan.slots[layer.plan.message];
    const Real* rows = w.tile.values + slot.offset * w.tile.n_atoms;
    for (int a = 0; a < w.tile.n_atoms; ++a) {
      const std::int64_t i = w.tile.atoms[a];
      std::copy(x + a * stride, x + (a + 1) * stride, density_.data() + i * stride);
      Real* message = message_.data() + i * message_width();
      for (int r = 0; r < slot.n_rows; ++r)
        std::copy_n(rows + (static_cast<std::size_t>(r) * w.tile.n_atoms + a) * slot.stride, slot.stride, message + r * slot.stride);
    }
  }

  void second_layer_tile(Workspace<Real>& w, const TileRange& range) {
    const CompiledLayer<Real>& layer = compiled_.layers[1];
    start_tile(w, range, layer.plan);
    w.tile.message = message_.data();
    w.tile.owner = geometry_->owner;
    tile_kernels_.layer_forward(layer.plan, w.tile);
    const int stride = Workspace<Real>::density_stride(compiled_), n = compiled_.readout.n_densities, atoms = w.tile.n_atoms;
    const std::size_t plane = static_cast<std::size_t>(tile_atoms_) * stride;
    double* x = w.densities();
    double *y = x + plane, *gy = y + plane, *other = gy + plane;
    // densities of layer 1, normalised, plus those of layer 2
    for (int a = 0; a < atoms; ++a) {
      const double* from = density_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride;
      std::copy(from, from + stride, x + a * stride);
    }
    apply_norm(compiled_.layers[0].norm, atoms, x, y);
    read_densities(layer.plan, w.tile, x);
    apply_norm(layer.norm, atoms, x, other);
    for (int a = 0; a < atoms; ++a)
      for (int k = 0; k < n; ++k) y[a * stride + k] += other[a * stride + k];
    finish_energies(w, y, results_->forces == nullptr ? nullptr : gy);
    if (results_->forces == nullptr) return;

    apply_norm_adjoint(layer.norm, atoms, x, gy, other);
    write_density_gradient(layer.plan, w.tile, other);
    for (int a = 0; a < atoms; ++a) {
      const double* from = density_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride;
      std::copy(from, from + stride, x + a * stride);
    }
    apply_norm_adjoint(compiled_.layers[0].norm, atoms, x, gy, other);
    for (int a = 0; a < atoms; ++a)
      std::copy(other + a * stride, other + a * stride + n, density_gradient_.data() + static_cast<std::size_t>(w.tile.atoms[a]) * stride);

    w.tile.message_gradient = message_gradient_.data();
    if (&w != &workspaces_[0]) {
      w.tile.message_gradient = w.message_gradient.data();
      touch(w);
    }
    tile_kernels_.layer_backward(layer.plan, w.tile);
    copy_stages(1, w.tile);
    scatter(w);
  }

  // Zeroes the blocks of this thread's message gradient that the tile's bonds will add to.
  void touch(Workspace<Real>& w) {
    const std::size_t width = message_width(), n = w.message_gradient.size();
    for (int b = 0; b < w.tile.bonds.count; ++b) {
      const std::size_t block = owner_of(w.tile.bonds.neighbor[b]) / touch_block;
      if (w.touched[block] != 0) continue;
      w.touched[block] = 1;
      const std::size_t begin = block * touch_block * width, end = std::min(n, begin + touch_block * width);
      std::fill(w.message_gradient.begin() + begin, w.message_gradient.begin() + end, Real(0));
    }
  }

  void fold_message_gradients(std::size_t n_rows, std::size_t width) {
    for (int t = 1; t < n_threads_; ++t) {
      const Workspace<Real>& w = workspaces_[t];
      for (std::size_t block = 0; block < w.touched.size(); ++block) {
        if (w.touched[block] == 0) continue;
        const std::size_t begin = block * touch_block * width, end = std::min(n_rows * width, begin + touch_block * width);
        for (std::size_t i = begin; i < end; ++i) message_gradient_[i] += w.message_gradient[i];
      }
    }
  }

  void first_layer_backward(Workspace<Real>& w, const TileRange& range) {
    const CompiledLayer<Real>& layer = compiled_.layers[0];
    start_tile(w, range, layer.plan);
    if (keep_)
      w.tile.values = kept_.data() + range.kept;
    else
      tile_kernels_.layer_forward(layer.plan, w.tile);
    const int stride = Workspace<Real>::density_stride(compiled_);
    double* gx = w.densities();
    const Slot& slot = layer.plan.slots[layer.plan.message];
    Real* rows = w.tile.gradients + slot.offset * w.tile.n_atoms;
    for (int a = 0; a < w.tile.n_atoms; ++a) {
      const std::int64_t i = w.tile.atoms[a];
      std::copy_n(density_gradient_.data() + i * stride, stride, gx + a * stride);
      const Real* gradient = message_gradient_.data() + i * message_width();
      for (int r = 0; r < slot.n_rows; ++r)
        std::copy_n(gradient + r * slot.stride, slot.stride, rows + (static_cast<std::size_t>(r) * w.tile.n_atoms + a) * slot.stride);
    }
    write_density_gradient(layer.plan, w.tile, gx);
    tile_kernels_.layer_backward(layer.plan, w.tile);
    copy_stages(0, w.tile);
    scatter(w);
  }
};

}  // namespace

std::unique_ptr<Evaluator> make_cpu_evaluator(ModelSpec model, const EvaluatorOptions& options) {
  if (options.precision == Precision::fp64) return std::make_unique<CpuEvaluator<double>>(std::move(model), options);
  return std::make_unique<CpuEvaluator<float>>(std::move(model), options);
}

}  // namespace grace::cpu
