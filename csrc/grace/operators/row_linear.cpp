#include <algorithm>
#include <utility>
#include <vector>

#include "grace/error.hpp"
#include "grace/operators/checks.hpp"
#include "grace/operators/kernels.hpp"
#include "grace/operators/scratch.hpp"
#include "grace/parallel.hpp"

namespace grace::ops {
namespace {

// Partial sums of the matrix slot: at most this many, whatever the number of threads, so that the order of the
// additions is always the same.
constexpr Index max_sums = 8;
constexpr Index tiles_per_sum = 2;

// Atoms of one run that are worked on together.
struct Tile {
  Index run, begin;
  int count;
};

std::vector<Tile> make_tiles(const RowRuns& runs) {
  check_size("n_atoms", runs.n_atoms);
  check_size("n_runs", runs.n_runs);
  check_rows(runs.n_runs, runs.n_atoms, runs.run_first);
  check_indices("order", runs.n_atoms, runs.order, runs.n_atoms);
  std::vector<Tile> tiles;
  for (Index e = 0; e < runs.n_runs; ++e)
    for (Index a = runs.run_first[e]; a < runs.run_first[e + 1]; a += linear_tile)
      tiles.push_back({e, a, static_cast<int>(std::min<Index>(linear_tile, runs.run_first[e + 1] - a))});
  return tiles;
}

void check_part(const RowTerms& rows, Index n_targets) {
  check_size("n_terms", rows.n_terms);
  check_terms("target row", rows.n_terms, rows.terms, 0, n_targets);
  check_terms("source row", rows.n_terms, rows.terms, 1, rows.n_sources);
  check_terms("group", rows.n_terms, rows.terms, 2, rows.n_groups);
}

// first[k] .. first[k + 1] - 1: terms whose entry in `column` is k, which must not decrease.
void count_terms(const RowTerms& rows, int column, Index n, std::vector<int>& first) {
  first.assign(static_cast<std::size_t>(n + 1), 0);
  for (Index t = 0; t < rows.n_terms; ++t) {
    require(t == 0 || rows.terms[3 * t + column] >= rows.terms[3 * t + column - 3], "terms must be sorted by column ",
            column, ", got ", rows.terms[3 * t + column], " at term ", t);
    ++first[rows.terms[3 * t + column] + 1];
  }
  for (Index k = 0; k < n; ++k) first[k + 1] += first[k];
}

// Terms of every run: the same rows with the matrices of the run.
template <class Real>
void run_tiles(const RowRuns& runs, const std::vector<Tile>& tiles,
               const std::vector<std::vector<LinearTerm<Real>>>& terms, LinearRows<Real> rows, Real* out,
               int n_threads) {
  const auto kernel = selected_kernels<Real>().linear;
  parallel_for(static_cast<Index>(tiles.size()), thread_count(n_threads), 1, [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      LinearRows<Real> own = rows;
      own.terms = terms[static_cast<std::size_t>(tiles[k].run)].data();
      kernel(own, runs.order + tiles[k].begin, tiles[k].count, out);
    }
  });
}

}  // namespace

template <class Real>
void row_linear(const RowRuns& runs, Index n_targets, Index n_out, Index n_parts, const RowPart<Real>* parts, Real* out,
                int n_threads) {
  const std::vector<Tile> tiles = make_tiles(runs);
  check_size("n_out", n_out, 1);
  check_pointer("out", out, runs.n_atoms * n_targets * n_out);
  std::vector<std::vector<int>> firsts(static_cast<std::size_t>(n_parts));
  std::vector<int> first{0};
  std::vector<std::pair<Index, Index>> sources;  // part and term, by target
  for (Index p = 0; p < n_parts; ++p) {
    const RowPart<Real>& part = parts[p];
    check_part(part.rows, n_targets);
    check_size("n_in", part.n_in, 1);
    check_pointer("inputs", part.inputs, runs.n_atoms * part.rows.n_sources * part.n_in);
    check_pointer("matrices", part.matrices, runs.n_runs * part.rows.n_groups * part.n_in * n_out);
    count_terms(part.rows, 0, n_targets, firsts[p]);
  }
  for (Index target = 0; target < n_targets; ++target) {
    for (Index p = 0; p < n_parts; ++p)
      for (int t = firsts[p][target]; t < firsts[p][target + 1]; ++t) sources.emplace_back(p, t);
    first.push_back(static_cast<int>(sources.size()));
  }
  std::vector<std::vector<LinearTerm<Real>>> terms(static_cast<std::size_t>(runs.n_runs));
  for (Index e = 0; e < runs.n_runs; ++e)
    for (const auto& source : sources) {
      const RowPart<Real>& part = parts[source.first];
      const std::int32_t* term = part.rows.terms + 3 * source.second;
      terms[e].push_back({part.inputs + term[1] * part.n_in, part.rows.n_sources * part.n_in,
                          static_cast<int>(part.n_in),
                          part.matrices + (e * part.rows.n_groups + term[2]) * part.n_in * n_out});
    }
  run_tiles(runs, tiles, terms, LinearRows<Real>{n_targets, n_out, first.data(), nullptr}, out, n_threads);
}

template <class Real>
void row_linear_inputs(const RowRuns& runs, Index n_targets, Index n_out, const RowPart<Real>& part,
                       const Real* gradient, Real* out, int n_threads) {
  const std::vector<Tile> tiles = make_tiles(runs);
  check_part(part.rows, n_targets);
  check_size("n_in", part.n_in, 1);
  check_size("n_out", n_out, 1);
  check_pointer("gradient", gradient, runs.n_atoms * n_targets * n_out);
  check_pointer("matrices", part.matrices, runs.n_runs * part.rows.n_groups * part.n_in * n_out);
  check_pointer("out", out, runs.n_atoms * part.rows.n_sources * part.n_in);
  std::vector<int> first;
  count_terms(part.rows, 1, part.rows.n_sources, first);
  const Index size = part.n_in * n_out, n_matrices = runs.n_runs * part.rows.n_groups;
  AlignedScratch<Real> transposed(n_matrices * size);
  parallel_for(n_matrices, thread_count(n_threads), 64, [&](Index begin, Index end) {
    for (Index m = begin; m < end; ++m)
      for (Index i = 0; i < part.n_in; ++i)
        for (Index k = 0; k < n_out; ++k)
          transposed.data()[m * size + k * part.n_in + i] = part.matrices[m * size + i * n_out + k];
  });
  std::vector<std::vector<LinearTerm<Real>>> terms(static_cast<std::size_t>(runs.n_runs));
  for (Index e = 0; e < runs.n_runs; ++e)
    for (Index t = 0; t < part.rows.n_terms; ++t) {
      const std::int32_t* term = part.rows.terms + 3 * t;
      terms[e].push_back({gradient + term[0] * n_out, n_targets * n_out, static_cast<int>(n_out),
                          transposed.data() + (e * part.rows.n_groups + term[2]) * size});
    }
  run_tiles(runs, tiles, terms, LinearRows<Real>{part.rows.n_sources, part.n_in, first.data(), nullptr}, out,
            n_threads);
}

template <class Real>
void row_linear_matrices(const RowRuns& runs, Index n_targets, Index n_out, const RowPart<Real>& part,
                         const Real* gradient, Real* out, int n_threads) {
  const std::vector<Tile> tiles = make_tiles(runs);
  check_part(part.rows, n_targets);
  check_size("n_in", part.n_in, 1);
  check_size("n_out", n_out, 1);
  check_pointer("gradient", gradient, runs.n_atoms * n_targets * n_out);
  check_pointer("inputs", part.inputs, runs.n_atoms * part.rows.n_sources * part.n_in);
  const Index size = part.rows.n_groups * part.n_in * n_out;  // of one run
  check_pointer("out", out, runs.n_runs * size);
  std::vector<int> first;
  count_terms(part.rows, 2, part.rows.n_groups, first);
  std::vector<OuterTerm<Real>> terms;
  for (Index t = 0; t < part.rows.n_terms; ++t)
    terms.push_back({part.inputs + part.rows.terms[3 * t + 1] * part.n_in, gradient + part.rows.terms[3 * t] * n_out});
  const OuterRows<Real> rows{part.rows.n_groups, part.n_in,    n_out,       part.rows.n_sources * part.n_in,
                             n_targets * n_out,  first.data(), terms.data()};
  const auto kernel = selected_kernels<Real>().outer;
  // A sum covers consecutive tiles; the runs it meets are consecutive too, and only they take memory in it.
  const Index n_tiles = static_cast<Index>(tiles.size());
  const Index n_sums = std::max<Index>(1, std::min(max_sums, n_tiles / tiles_per_sum));
  std::vector<std::vector<Real>> sums(static_cast<std::size_t>(n_sums));
  const auto first_tile = [&](Index s) { return s * n_tiles / n_sums; };
  parallel_for(n_sums, thread_count(n_threads), 1, [&](Index begin, Index end) {
    for (Index s = begin; s < end; ++s) {
      if (first_tile(s) == first_tile(s + 1)) continue;
      const Index run = tiles[first_tile(s)].run;
      sums[s].assign(static_cast<std::size_t>((tiles[first_tile(s + 1) - 1].run - run + 1) * size), Real(0));
      for (Index k = first_tile(s); k < first_tile(s + 1); ++k)
        kernel(rows, runs.order + tiles[k].begin, tiles[k].count, sums[s].data() + (tiles[k].run - run) * size);
    }
  });
  std::fill(out, out + runs.n_runs * size, Real(0));
  for (Index s = 0; s < n_sums; ++s)
    if (!sums[s].empty())
      selected_kernels<Real>().add_to(static_cast<Index>(sums[s].size()), sums[s].data(),
                                      out + tiles[first_tile(s)].run * size);
}

template void row_linear<double>(const RowRuns&, Index, Index, Index, const RowPart<double>*, double*, int);
template void row_linear<float>(const RowRuns&, Index, Index, Index, const RowPart<float>*, float*, int);
template void row_linear_inputs<double>(const RowRuns&, Index, Index, const RowPart<double>&, const double*, double*,
                                        int);
template void row_linear_inputs<float>(const RowRuns&, Index, Index, const RowPart<float>&, const float*, float*, int);
template void row_linear_matrices<double>(const RowRuns&, Index, Index, const RowPart<double>&, const double*, double*,
                                          int);
template void row_linear_matrices<float>(const RowRuns&, Index, Index, const RowPart<float>&, const float*, float*,
                                         int);

}  // namespace grace::ops
