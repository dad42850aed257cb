#include <algorithm>
#include <vector>

#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/operators/scratch.hpp"
#include "grace/parallel.hpp"

namespace grace::ops {
namespace {

constexpr Index atoms_per_piece = 4;
// Contributions of bonds to messages are kept for some atoms at a time: about what each thread has of the L3 cache.
constexpr Index buffer_bytes = 4 << 20;

template <class Real>
void check(MessageSlot slot, const MessageBasis<Real>& form, const Real* out) {
  check_rows(form.n_atoms, form.n_bonds, form.first);
  check_degree(form.lmax);
  check_size("n_channels", form.n_channels, 1);
  check_size("n_terms", form.n_terms);
  check_indices("neighbor", form.n_bonds, form.neighbor, form.n_atoms);
  const Index harmonics = (form.lmax + 1) * (form.lmax + 1);
  check_terms("row", form.n_terms, form.terms, 0, form.n_rows);
  check_terms("harmonic", form.n_terms, form.terms, 1, harmonics);
  check_terms("message row", form.n_terms, form.terms, 2, form.n_message_rows);
  check_pointer("coefficients", form.coefficients, form.n_terms);
  const struct {
    MessageSlot slot;
    const char* name;
    const Real* data;
    Index size;
  } operands[] = {
      {MessageSlot::atoms, "atoms", form.atoms, form.n_atoms * form.n_rows * form.n_channels},
      {MessageSlot::radial, "radial", form.radial, form.n_bonds * (form.lmax + 1) * form.n_channels},
      {MessageSlot::harmonics, "harmonics", form.harmonics, form.n_bonds * harmonics},
      {MessageSlot::message, "message", form.message, form.n_atoms * form.n_message_rows * form.n_channels},
  };
  for (const auto& operand : operands)
    check_pointer(operand.name, operand.slot == slot ? out : operand.data, operand.size);
}

// Terms by row and by pair (y, w), which are numbered y * n_message_rows + w.
template <class Real>
struct PlanArrays {
  std::vector<int> first_of_row, first_of_pair;
  std::vector<math::GatherTerm<Real>> by_row, by_pair;
  MessagePlan<Real> plan;

  explicit PlanArrays(const MessageBasis<Real>& form) {
    plan.n_harmonics = (form.lmax + 1) * (form.lmax + 1);
    const Index n_pairs = plan.n_harmonics * form.n_message_rows;
    const auto pair = [&](Index t) {
      return static_cast<int>(form.terms[3 * t + 1] * form.n_message_rows + form.terms[3 * t + 2]);
    };
    const auto row = [&](Index t) { return static_cast<int>(form.terms[3 * t]); };
    sort(form, form.n_rows, row, pair, first_of_row, by_row);
    sort(form, n_pairs, pair, row, first_of_pair, by_pair);
    plan.rows = {first_of_row.data(), by_row.data()};
    plan.pairs = {first_of_pair.data(), by_pair.data()};
  }

 private:
  template <class Target, class Source>
  static void sort(const MessageBasis<Real>& form, Index n_targets, Target target, Source source,
                   std::vector<int>& first, std::vector<math::GatherTerm<Real>>& terms) {
    first.assign(static_cast<std::size_t>(n_targets + 1), 0);
    for (Index t = 0; t < form.n_terms; ++t) ++first[target(t) + 1];
    for (Index k = 0; k < n_targets; ++k) first[k + 1] += first[k];
    terms.resize(static_cast<std::size_t>(form.n_terms));
    std::vector<int> next(first.begin(), first.end() - 1);
    for (Index t = 0; t < form.n_terms; ++t)
      terms[next[target(t)]++] = {source(t), 0, static_cast<Real>(form.coefficients[t])};
  }
};

// Numbers of scratch of a kernel: all pairs of one vector of at most 64 bytes.
template <class Real>
Index scratch_size(const MessageBasis<Real>& form, const MessagePlan<Real>& plan) {
  return plan.n_harmonics * form.n_message_rows * static_cast<Index>(64 / sizeof(Real));
}

// I[j] = sum of what bonds to j contribute. Every atom adds up its own, in the order of bonds, so that neither threads
// nor the size of the buffer change a sum.
template <class Real>
void message_slot(const MessageBasis<Real>& form, const MessagePlan<Real>& plan, Real* out, int n_threads) {
  const auto& kernels = selected_kernels<Real>();
  const Index size = form.n_message_rows * form.n_channels;
  std::vector<Index> first_to(static_cast<std::size_t>(form.n_atoms + 1), 0);  // bonds by neighbour
  std::vector<Index> bonds(static_cast<std::size_t>(form.n_bonds));
  for (Index b = 0; b < form.n_bonds; ++b) ++first_to[form.neighbor[b] + 1];
  for (Index j = 0; j < form.n_atoms; ++j) first_to[j + 1] += first_to[j];
  std::vector<Index> next(first_to.begin(), first_to.end() - 1);
  for (Index b = 0; b < form.n_bonds; ++b) bonds[next[form.neighbor[b]]++] = b;
  std::copy(first_to.begin(), first_to.end() - 1, next.begin());

  std::fill(out, out + form.n_atoms * size, Real(0));
  const Index limit = std::max<Index>(
      1, buffer_bytes * thread_count(n_threads) / static_cast<Index>(sizeof(Real) * std::max<Index>(size, 1)));
  std::vector<Real> buffer;
  for (Index begin = 0, end = 0; begin < form.n_atoms; begin = end) {
    do ++end;
    while (end < form.n_atoms && form.first[end + 1] - form.first[begin] <= limit);
    const Index first_bond = form.first[begin], last_bond = form.first[end];
    buffer.resize(std::max(buffer.size(), static_cast<std::size_t>((last_bond - first_bond) * size)));
    parallel_for(end - begin, thread_count(n_threads), atoms_per_piece, [&](Index a, Index z) {
      AlignedScratch<Real> scratch(scratch_size(form, plan));
      kernels.message_bonds(form, plan, begin + a, begin + z, first_bond, buffer.data(), scratch.data());
    });
    parallel_for(form.n_atoms, thread_count(n_threads), 16 * atoms_per_piece, [&](Index a, Index z) {
      for (Index j = a; j < z; ++j)
        for (; next[j] < first_to[j + 1] && bonds[next[j]] < last_bond; ++next[j])
          kernels.add_to(size, &buffer[(bonds[next[j]] - first_bond) * size], out + j * size);
    });
  }
}

}  // namespace

template <class Real>
void message_basis(MessageSlot slot, const MessageBasis<Real>& form, Real* out, int n_threads) {
  check(slot, form, out);
  const PlanArrays<Real> arrays(form);
  if (slot == MessageSlot::message) return message_slot(form, arrays.plan, out, n_threads);
  const auto& kernels = selected_kernels<Real>();
  const auto kernel = slot == MessageSlot::atoms    ? kernels.message_atoms
                      : slot == MessageSlot::radial ? kernels.message_radial
                                                    : kernels.message_harmonics;
  if (slot == MessageSlot::harmonics) std::fill(out, out + form.n_bonds * arrays.plan.n_harmonics, Real(0));
  parallel_for(form.n_atoms, thread_count(n_threads), atoms_per_piece, [&](Index begin, Index end) {
    AlignedScratch<Real> scratch(scratch_size(form, arrays.plan));
    kernel(form, arrays.plan, begin, end, out, scratch.data());
  });
}

template void message_basis<double>(MessageSlot, const MessageBasis<double>&, double*, int);
template void message_basis<float>(MessageSlot, const MessageBasis<float>&, float*, int);

}  // namespace grace::ops
