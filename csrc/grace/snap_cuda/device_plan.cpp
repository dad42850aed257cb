#include "grace/snap_cuda/device_plan.hpp"

#include <algorithm>
#include <numeric>

#include "grace/error.hpp"

namespace grace::snap {
namespace {

struct Part {
  std::int32_t place, source, n_terms;
  double factor;
  std::size_t first_term;  // in the tables
};

std::int64_t count_terms(const Part* begin, const Part* end) {
  return std::accumulate(begin, end, std::int64_t{0},
                         [](std::int64_t sum, const Part& part) { return sum + part.n_terms; });
}

// Appends the n_streams streams of one block, for elements sorted by place.
void deal_to_block(const Tables& tables, const Part* begin, const Part* end, int n_streams, Streams& out) {
  const std::int64_t n_terms = count_terms(begin, end);
  const int first_stream = static_cast<int>(out.first_term.size()) - 1;
  const auto close_until = [&](int stream) {
    while (static_cast<int>(out.first_term.size()) <= first_stream + stream) {
      out.first_term.push_back(static_cast<std::int32_t>(out.terms.size()));
      out.first_element.push_back(static_cast<std::int32_t>(out.elements.size()));
    }
  };
  std::int64_t before = 0;  // terms
  int stream = 0;
  for (const Part* part = begin; part < end; ++part) {
    const int earlier = stream;
    // The stream in whose share the middle of the element falls.
    stream = static_cast<int>((2 * before + part->n_terms) * n_streams / (2 * n_terms));
    close_until(stream);
    std::int32_t& n_slots = out.first_slot[static_cast<std::size_t>(part->place) + 1];
    if (part == begin || part[-1].place != part->place || stream != earlier) ++n_slots;
    out.elements.push_back({part->factor, part->source, -1});
    for (std::int32_t t = 0; t < part->n_terms; ++t) {
      const Term& term = tables.terms[part->first_term + static_cast<std::size_t>(t)];
      out.terms.push_back({term.coefficient, term.first, term.second});
    }
    out.terms.back().second |= last_term;
    before += part->n_terms;
  }
  close_until(n_streams);
}

Streams deal(const Tables& tables, std::vector<Part> parts, int n_places, int n_streams) {
  const std::size_t n = static_cast<std::size_t>(n_places);
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.place < b.place; });
  const Part *const begin = parts.data(), *const end = begin + parts.size();
  const std::int64_t n_terms = count_terms(begin, end);
  Streams out;
  out.first_term.assign(1, 0);
  out.first_element.assign(1, 0);
  out.first_place.assign(1, 0);
  out.first_slot.assign(n + 1, 0);
  const Part* next = begin;
  for (int block = 1; block <= contraction_blocks; ++block) {
    const Part* last = next;
    while (last < end &&
           (block == contraction_blocks || count_terms(begin, last) * contraction_blocks < n_terms * block))
      for (const std::int32_t place = last->place; last < end && last->place == place;) ++last;
    deal_to_block(tables, next, last, n_streams, out);
    out.first_place.push_back(last < end ? last->place : n_places);
    next = last;
  }
  std::partial_sum(out.first_slot.begin(), out.first_slot.end(), out.first_slot.begin());
  std::int32_t slot = 0;  // of the first element; the last one of a run in a stream says where the sum goes
  for (std::size_t stream = 0; stream + 1 < out.first_element.size(); ++stream) {
    const std::size_t first = static_cast<std::size_t>(out.first_element[stream]);
    const std::size_t after = static_cast<std::size_t>(out.first_element[stream + 1]);
    for (std::size_t e = first; e < after; ++e)
      if (e + 1 == after || parts[e + 1].place != parts[e].place) out.elements[e].slot = slot++;
  }
  out.terms.resize(out.terms.size() + terms_ahead, {0.0, 0, 0});
  return out;
}

StreamTable keep(const Streams& streams, device::ModelMemory& memory) {
  StreamTable out;
  out.terms = memory.keep(streams.terms);
  out.elements = memory.keep(streams.elements);
  out.first_term = memory.keep(streams.first_term);
  out.first_element = memory.keep(streams.first_element);
  out.first_slot = memory.keep(streams.first_slot);
  out.first_place = memory.keep(streams.first_place);
  for (std::size_t b = 0; b < static_cast<std::size_t>(contraction_blocks); ++b) {
    const auto slots_before = [&](std::size_t block) {
      return streams.first_slot[static_cast<std::size_t>(streams.first_place[block])];
    };
    out.n_slots = std::max(out.n_slots, slots_before(b + 1) - slots_before(b));
  }
  return out;
}

}  // namespace

Streams value_streams(const Tables& tables, int n_streams) {
  std::vector<std::int32_t> full(static_cast<std::size_t>(tables.n_half), 0);  // half element -> full element
  for (std::size_t e = 0; e < tables.mirrors.size(); ++e)
    if (tables.mirrors[e].sign == tables.mirrors[e].imaginary)
      full[static_cast<std::size_t>(tables.mirrors[e].half)] = static_cast<std::int32_t>(e);
  std::vector<Part> parts;
  std::size_t term = 0;
  for (int k = 0; k < tables.n_value; ++k) {
    const Element& element = tables.elements[static_cast<std::size_t>(k)];
    parts.push_back(
        {element.feature, full[static_cast<std::size_t>(element.half)], element.n_terms, element.weight, term});
    term += static_cast<std::size_t>(element.n_terms);
  }
  return deal(tables, std::move(parts), tables.n_features, n_streams);
}

Streams adjoint_streams(const Tables& tables, int n_streams) {
  std::vector<Part> parts;
  std::size_t term = 0;
  for (const Element& element : tables.elements) {
    parts.push_back({element.half, element.feature, element.n_terms, element.factor, term});
    term += static_cast<std::size_t>(element.n_terms);
  }
  return deal(tables, std::move(parts), tables.n_half, n_streams);
}

DevicePlan make_device_plan(const Tables& tables, const math::SnapShape& shape, int n_streams,
                            device::ModelMemory& memory) {
  for (const Element& element : tables.elements)
    require(element.n_terms > 0, "internal error: an element of a SNAP contraction has no terms");
  DevicePlan plan;
  plan.shape = shape;
  plan.twojmax = tables.twojmax;
  plan.n_features = tables.n_features;
  plan.n_half = tables.n_half;
  plan.n_full = tables.n_full;
  plan.norms = memory.keep(tables.norms);
  plan.self = memory.keep(tables.self);
  plan.mirrors = memory.keep(tables.mirrors);
  std::vector<Mirror> adjoints;
  std::vector<LowerElement> lower;
  for (int J = 0; J <= tables.twojmax; ++J)
    for (int m = 0; 2 * m <= J; ++m)
      for (int n = 0; n <= J; ++n) {
        const bool mirrored = 2 * m == J && 2 * n > J;
        const int column = mirrored ? J - n : n;
        const double sign = mirrored && (n - m) % 2 != 0 ? -1.0 : 1.0;
        adjoints.push_back({math::snap_half_offset(J) + m * (J + 1) + column, sign, mirrored ? -sign : sign});
        if (J < tables.twojmax)
          lower.push_back({static_cast<std::int8_t>(J + 1), static_cast<std::int8_t>(m), static_cast<std::int8_t>(n)});
      }
  plan.adjoints = memory.keep(adjoints);
  plan.n_lower = static_cast<int>(lower.size());
  plan.lower = memory.keep(lower);
  plan.value = keep(value_streams(tables, n_streams), memory);
  plan.adjoint = keep(adjoint_streams(tables, n_streams), memory);
  return plan;
}

}  // namespace grace::snap
