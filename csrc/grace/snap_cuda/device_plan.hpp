// Tables of the SNAP kernels on a device: those of snap/tables.hpp, dealt out to streams.
//
// A contraction is 14,314 (value) or 31,902 (adjoint) terms for twojmax 8, every atom the same ones. A stream is a run
// of terms that one thread works off for one atom; the terms of a block are dealt to its streams evenly. Elements that
// go to the same place (a component of B, or an element of Y) follow each other, so that their sum stays in a register.
// A place whose elements fall into several streams has a slot for each, and the slots are added in order.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/device/buffer.hpp"
#include "grace/math/snap.hpp"
#include "grace/snap/tables.hpp"

namespace grace::snap {

// A product c U[first] U[second] of full elements; `second` of the last term of an element has the bit `last_term`.
struct alignas(16) StreamTerm {
  double coefficient;
  std::uint32_t first, second;
};
constexpr std::uint32_t last_term = 1u << 31;
constexpr int terms_ahead = 2;  // that are read before they are needed, also behind the last one

constexpr int contraction_blocks = 2;  // for the same atoms: small batches use twice the multiprocessors

// What becomes of the sum z of an element. Value: factor Re(conj(U[source]) z), source a full element. Adjoint: factor
// beta[source] z, source a component. slot >= 0: the sum up to here goes there, and a new one begins.
struct alignas(16) StreamElement {
  double factor;
  std::int32_t source, slot;
};

struct Streams {
  std::vector<StreamTerm> terms;
  std::vector<StreamElement> elements;
  std::vector<std::int32_t> first_term, first_element;  // [contraction_blocks * n_streams + 1]
  std::vector<std::int32_t> first_slot;                 // [n_places + 1]
  std::vector<std::int32_t> first_place;                // [contraction_blocks + 1]
};

// n_streams: of one block.
Streams value_streams(const Tables& tables, int n_streams);
Streams adjoint_streams(const Tables& tables, int n_streams);

// The same on a device.
struct StreamTable {
  const StreamTerm* terms = nullptr;
  const StreamElement* elements = nullptr;
  const std::int32_t* first_term = nullptr;
  const std::int32_t* first_element = nullptr;
  const std::int32_t* first_slot = nullptr;
  const std::int32_t* first_place = nullptr;
  int n_slots = 0;  // of a block, at most
};

// An element of the levels below the last: p of level J - 1 in the gradient of level J.
struct LowerElement {
  std::int8_t J, m, n;
};

struct DevicePlan {
  math::SnapShape shape;
  int twojmax = 0, n_features = 0, n_half = 0, n_full = 0, n_lower = 0;
  const double* norms = nullptr;        // [n_half]
  const double* self = nullptr;         // [n_half]
  const Mirror* mirrors = nullptr;      // [n_full]
  const Mirror* adjoints = nullptr;     // [n_half] where an element of Y comes from: middle rows mirror themselves
  const LowerElement* lower = nullptr;  // [n_lower]
  StreamTable value, adjoint;
};

DevicePlan make_device_plan(const Tables& tables, const math::SnapShape& shape, int n_streams,
                            device::ModelMemory& memory);

}  // namespace grace::snap
