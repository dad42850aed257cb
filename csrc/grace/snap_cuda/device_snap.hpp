// Snap on a device: device::CudaDevice or device::EmulatedDevice; this file is host code.
//
// A search for candidates calls descriptors() and gradients() tens of times for some hundred atoms each: there a call
// is a few transfers and launches, and the host waits once. The host checks and wraps the atoms. Neighbours are found
// on the device; memory for them is that of the call before, or a guess: the number of pairs comes back with the
// features, and where they did not fit, the call is repeated with room for them.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/device/call.hpp"
#include "grace/device/failure.hpp"
#include "grace/error.hpp"
#include "grace/neighbors_checks.hpp"
#include "grace/neighbors_cuda/scan_kernels.hpp"
#include "grace/parallel.hpp"
#include "grace/snap/snap.hpp"
#include "grace/snap_cuda/device_plan.hpp"
#include "grace/snap_cuda/kernels.hpp"
#include "grace/snap_cuda/search.hpp"

namespace grace::snap {

template <class Device>
class DeviceSnap final : public Snap {
 public:
  // index: of the GPU, or the shuffle seed of the emulated device.
  explicit DeviceSnap(const SnapOptions& options)
      : device_(options.device.index), memory_(device_, "the tables of the descriptors") {
    const math::SnapShape shape = checked_shape(options.rfac0, options.rmin0);
    const Tables tables = make_tables(options.twojmax);
    plan_ = make_device_plan(tables, shape, contraction_streams(options.twojmax), memory_);
  }

  int twojmax() const override { return plan_.twojmax; }
  int n_features() const override { return plan_.n_features; }
  std::string device_name() const override { return device_.name(); }
  std::int64_t n_atoms() const override { return static_cast<std::int64_t>(atoms_.size()); }
  int n_structures() const override { return static_cast<int>(structures_.size()); }
  std::int64_t n_pairs() const override { return n_pairs_; }

  void descriptors(const StructureBatch& batch, const double* cutoffs, CutoffRule rule, double* features,
                   int n_threads) override {
    const device::Call<Device> call(device_, nullptr);
    ready_ = false;
    take(batch, cutoffs, n_threads);
    rule_ = rule;
    n_pairs_ = 0;
    if (n_atoms() > 0) {
      reserve();
      device_structures_.upload(structures_);
      device_atoms_.upload(atoms_);
      count_pairs(device_, device_batch(), n_entries_, first_.data(), totals_.data());
      while (!fill(features)) reserve_pairs(n_pairs_ + n_pairs_ / 5);
      if (coincident_host_ != none) {  // says which
        std::vector<PairRows> rows;
        find_all_pairs(batch, cutoffs, rule, plan_.shape.rmin0, rows, n_threads);
        throw Error("`positions` of two atoms of structure " + std::to_string(coincident_host_) + " are in one place");
      }
    }
    ready_ = true;
  }

  void gradients(const double* beta, double* positions, double* strain, int) override {
    require(ready_, "gradients() needs a call of descriptors() before it, which keeps what both share");
    std::fill_n(strain, 9 * structures_.size(), 0.0);
    if (n_atoms() == 0) return;
    const device::Call<Device> call(device_, nullptr);
    beta_.upload(beta, atoms_.size() * plan_.n_features);
    adjoints(device_, plan_, n_atoms(), densities_.data(), beta_.data(), adjoints_.data());
    pair_gradients(device_, plan_, device_batch(), device_pairs(), adjoints_.data(), pair_gradients_.data());
    collect(device_, device_batch(), device_pairs(), pair_gradients_.data(), sums_.data());
    host_sums_.resize(atoms_.size() * n_collected);
    sums_.download(host_sums_.data(), host_sums_.size());
    device_.synchronize();
    for (std::size_t i = 0; i < atoms_.size(); ++i) {
      const double* sums = &host_sums_[i * n_collected];
      double* of_structure = strain + 9 * atoms_[i].structure;
      for (int x = 0; x < 3; ++x) positions[3 * i + x] = sums[x];
      for (int x = 0; x < 9; ++x) of_structure[x] += sums[3 + x];
    }
  }

  void start_profile() override { device_.start_profile(); }
  std::vector<KernelTime> profile() override { return device_.profile(); }

 private:
  template <class T>
  using Buffer = device::Buffer<Device, T>;
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  DeviceBatch device_batch() const { return {device_structures_.data(), device_atoms_.data(), n_atoms(), rule_}; }
  DevicePairs device_pairs() { return {first_.data(), pairs_.data(), capacity_}; }

  // Checks and wraps the atoms.
  void take(const StructureBatch& batch, const double* cutoffs, int n_threads) {
    structures_.clear();
    atoms_.clear();
    check_structures(batch);
    check_cutoffs(batch, cutoffs, plan_.shape.rmin0);
    const std::size_t n = static_cast<std::size_t>(batch.n_structures);
    const std::size_t n_atoms = n > 0 ? static_cast<std::size_t>(batch.first_atom[n]) : 0;
    std::vector<DeviceStructure> structures(n);
    std::vector<DeviceAtom> atoms(n_atoms);
    parallel_for(batch.n_structures, thread_count(n_threads), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t s = begin; s < end; ++s) {
        const std::int64_t first = batch.first_atom[s], count = batch.first_atom[s + 1] - first;
        structures[s] = {{}, first, count, 0};
        if (count == 0) continue;
        const WrappedStructure wrapped =
            wrap_structure(batch, static_cast<int>(s), *std::max_element(cutoffs + first, cutoffs + first + count));
        structures[s].frame = wrapped.frame;
        for (std::int64_t i = 0; i < count; ++i) {
          DeviceAtom& atom = atoms[first + i];
          std::copy_n(&wrapped.positions[3 * i], 3, atom.position);
          std::copy_n(&wrapped.fractional[3 * i], 3, atom.fractional);
          atom.cutoff = cutoffs[first + i];
          atom.structure = s;
        }
      }
    });
    n_entries_ = 0;
    for (DeviceStructure& structure : structures) {
      structure.first_entry = n_entries_;
      n_entries_ += structure.n_atoms * structure.n_atoms;
    }
    structures_ = std::move(structures);
    atoms_ = std::move(atoms);
  }

  template <class T>
  static std::pair<const Buffer<T>&, std::size_t> with(const Buffer<T>& buffer, std::size_t size) {
    return {buffer, size};
  }

  // Throws, before anything is given back, when what is to be reserved does not fit.
  template <class... Parts>
  void require_room(const Parts&... parts) const {
    std::size_t missing = 0, given_back = 0;
    const auto count = [&](const auto& buffer, std::size_t n) {
      if (n <= buffer.size()) return;
      missing += n * sizeof(*buffer.data());
      given_back += buffer.size() * sizeof(*buffer.data());
    };
    (count(parts.first, parts.second), ...);
    if (missing == 0) return;
    const std::size_t free = device::room(device_, given_back);
    if (missing > free)
      throw Error("out of GPU memory: the descriptors of " + std::to_string(n_atoms()) + " atoms need " +
                  device::gigabytes(missing) + ", " + device_.name() + " has " + device::gigabytes(free) +
                  " for them; give fewer structures at a time (run.batch of grace-md smax), or use device cpu");
  }

  void reserve() {
    const std::size_t n = atoms_.size(), entries = static_cast<std::size_t>(n_entries_) + 1;
    const std::size_t totals = static_cast<std::size_t>(gpu::scan_memory(n_entries_ + 1));
    const std::size_t pairs = static_cast<std::size_t>(capacity_ > 0 ? capacity_ : first_guess * n_atoms());
    require_room(with(device_structures_, structures_.size()), with(device_atoms_, n), with(first_, entries),
                 with(totals_, totals), with(densities_, n * plan_.n_half), with(adjoints_, n * plan_.n_half),
                 with(features_, n * plan_.n_features), with(beta_, n * plan_.n_features), with(sums_, n * n_collected),
                 with(pairs_, 5 * pairs), with(pair_gradients_, 3 * pairs));
    device_structures_.reserve(structures_.size());
    device_atoms_.reserve(n);
    first_.reserve(entries);
    totals_.reserve(totals);
    densities_.reserve(n * plan_.n_half);
    adjoints_.reserve(n * plan_.n_half);
    features_.reserve(n * plan_.n_features);
    beta_.reserve(n * plan_.n_features);
    sums_.reserve(n * n_collected);
    flags_.reserve(1);
    reserve_pairs(static_cast<std::int64_t>(pairs));
  }

  void reserve_pairs(std::int64_t n) {
    const std::size_t wanted = static_cast<std::size_t>(n);
    require_room(with(pairs_, 5 * wanted), with(pair_gradients_, 3 * wanted));
    capacity_ = 0;
    pairs_.reserve(5 * wanted);
    pair_gradients_.reserve(3 * wanted);
    capacity_ = n;
  }

  // Everything after the pairs are counted; false when they did not fit.
  bool fill(double* features) {
    const DevicePairs pairs = device_pairs();
    flags_.upload(&none_, 1);
    store_pairs(device_, device_batch(), pairs, plan_.shape.rmin0, flags_.data());
    densities(device_, plan_, device_batch(), pairs, densities_.data());
    bispectrum(device_, plan_, n_atoms(), densities_.data(), features_.data());
    device_.download(&n_pairs_, first_.data() + n_entries_, sizeof(n_pairs_));
    flags_.download(&coincident_host_, 1);
    features_.download(features, atoms_.size() * plan_.n_features);
    device_.synchronize();
    return n_pairs_ <= capacity_;
  }

  static constexpr std::int64_t first_guess = 80;  // pairs of an atom

  Device device_;
  device::DeviceModelMemory<Device> memory_;
  DevicePlan plan_;
  bool ready_ = false;  // descriptors() has succeeded
  CutoffRule rule_ = CutoffRule::centre;
  std::vector<DeviceStructure> structures_;
  std::vector<DeviceAtom> atoms_;
  std::vector<double> host_sums_;
  std::int64_t n_entries_ = 0, n_pairs_ = 0, capacity_ = 0;
  std::uint64_t coincident_host_ = none;
  const std::uint64_t none_ = none;

  Buffer<DeviceStructure> device_structures_{device_, "the structures"};
  Buffer<DeviceAtom> device_atoms_{device_, "the atoms"};
  Buffer<std::int64_t> first_{device_, "the neighbours"}, totals_{device_, "the neighbours"};
  Buffer<std::uint64_t> flags_{device_, "the flags"};
  Buffer<double> pairs_{device_, "the pairs"}, pair_gradients_{device_, "the gradients of pairs"};
  Buffer<Complex> densities_{device_, "the densities"}, adjoints_{device_, "the adjoints"};
  Buffer<double> features_{device_, "the descriptors"}, beta_{device_, "the weights"}, sums_{device_, "the gradients"};
};

}  // namespace grace::snap
