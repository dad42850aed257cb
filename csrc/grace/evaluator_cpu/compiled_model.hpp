// Compiles a ModelSpec for the tile kernels: prunes rows nobody reads, merges and pads weights, cuts products into
// blocks.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "grace/evaluator.hpp"
#include "grace/evaluator_cpu/plan.hpp"
#include "grace/model/spec.hpp"

namespace grace::cpu {

// Allocator of 64-byte aligned memory for everything the kernels touch.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t(64)); }
  bool operator==(const AlignedAllocator&) const { return true; }
  bool operator!=(const AlignedAllocator&) const { return false; }
};
template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

template <class Real>
struct CompiledLayer {
  LayerPlan<Real> plan;
  NormPlan norm;
  std::vector<std::string> slot_names;
  std::vector<std::vector<int>> slot_rows;  // model row of every stored row (for inspection)
};

template <class Real>
class PlanStorage;

template <class Real>
class CompiledModel {
 public:
  // tile_atoms: atoms of a tile, which sets the block size of streamed products.
  CompiledModel(const ModelSpec& spec, RadialMode radial, int tile_atoms);
  CompiledModel(const CompiledModel&) = delete;
  CompiledModel& operator=(const CompiledModel&) = delete;
  ~CompiledModel();

  std::vector<CompiledLayer<Real>> layers;
  ReadoutPlan readout;
  RadialTableReport radial_report;  // the worse of the layers

 private:
  std::unique_ptr<PlanStorage<Real>> storage_;
};

}  // namespace grace::cpu
