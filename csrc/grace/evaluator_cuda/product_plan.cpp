// Blocks of products in their compiled form: multiplets that follow the pattern of real harmonics become pieces, other
// rows lists of terms.
#include "grace/evaluator_cuda/product_plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "grace/error.hpp"
#include "grace/evaluator_cuda/product_pattern.hpp"

namespace grace::gpu {
namespace {

// Rows of the left operand, of the right one, and of the block are numbered through.
struct Multiplet {
  int first = 0;  // row
  int size = 0;
  int degree() const { return (size - 1) / 2; }
};
struct Rows {
  std::vector<RowAddress> address;
  std::vector<int> multiplet;  // of every row
  std::vector<Multiplet> multiplets;

  int size() const { return static_cast<int>(address.size()); }

  // Runs of equal path are multiplets where their length is odd, within the pattern, and they lie in one piece of
  // memory; otherwise every row counts as one of its own.
  void add(const std::vector<RowAddress>& added, const std::vector<int>& path) {
    for (std::size_t begin = 0, end = 0; begin < added.size(); begin = end) {
      bool whole = true;
      for (end = begin + 1; end < added.size() && path[end] == path[begin]; ++end)
        whole = whole && added[end].offset == added[end - 1].offset + added[end - 1].stride;
      const int n = static_cast<int>(end - begin);
      whole = whole && n % 2 == 1 && n <= 2 * most_pattern_degree + 1;
      for (std::size_t r = begin; r < end; ++r) {
        if (r == begin || !whole) multiplets.push_back({size(), whole ? n : 1});
        multiplet.push_back(static_cast<int>(multiplets.size()) - 1);
        address.push_back(added[r]);
      }
    }
  }
};

struct Term {
  int target = 0, first = 0, second = 0;  // rows
  double coefficient = 0.0;
};

// Terms of one target that belong together: a piece, or one term.
struct Element {
  Multiplet first, second;
  int kind = 0;
  std::vector<double> coefficients;
  int work() const {
    return 4 * static_cast<int>(coefficients.size()) + first.size + second.size + 20;  // instructions of a warp
  }
};
struct Target {
  Multiplet rows;
  int degree = ProductTarget::single_row;
  std::vector<Element> elements;
  std::int64_t work() const {
    std::int64_t sum = 100;
    for (const Element& element : elements) sum += element.work();
    return sum;
  }
};

// Coefficients of a coupling of three multiplets, [target][first][second].
struct Cube {
  int n_first = 0, n_second = 0;
  std::vector<double> values;
  double& at(int target, int first, int second) { return values[(target * n_first + first) * n_second + second]; }
};

// The target's terms as pieces; false: they do not follow the pattern.
bool make_pieces(const Rows& rows, const Multiplet& of, const std::vector<Term>& terms, Target& target) {
  const int l = of.degree();
  std::map<std::pair<int, int>, Cube> cubes;  // by multiplets, ordered by degree
  bool has_harmonics = false;
  for (const Term& term : terms) {
    int first = term.first, second = term.second;
    auto key = [&](int row) { return std::pair(rows.multiplets[rows.multiplet[row]].degree(), rows.multiplet[row]); };
    if (key(second) < key(first)) std::swap(first, second);
    const int a = rows.multiplet[first], b = rows.multiplet[second];
    const Multiplet &A = rows.multiplets[a], &B = rows.multiplets[b];
    if (!degrees_couple(l, A.degree(), B.degree())) return false;
    has_harmonics = has_harmonics || B.degree() > 0;
    Cube& cube = cubes[{a, b}];
    if (cube.values.empty())
      cube = {A.size, B.size, std::vector<double>(static_cast<std::size_t>(of.size) * A.size * B.size)};
    cube.at(term.target - of.first, first - A.first, second - B.first) += term.coefficient;
  }
  if (!has_harmonics) return false;  // of scalars only: a list is shorter
  for (auto& [multiplets, cube] : cubes) {
    Element piece{rows.multiplets[multiplets.first], rows.multiplets[multiplets.second], 0, {}};
    const int l1 = piece.first.degree(), l2 = piece.second.degree();
    piece.kind = pattern_pair(l1, l2);
    const CouplingPattern pattern = coupling_pattern(l, l1, l2);
    for (int k = 0; k < pattern.size; ++k) {
      double& value = cube.at(pattern.terms[k].row, pattern.terms[k].first, pattern.terms[k].second);
      piece.coefficients.push_back(std::exchange(value, 0.0));
    }
    if (std::any_of(cube.values.begin(), cube.values.end(), [](double left) { return left != 0.0; })) return false;
    target.elements.push_back(std::move(piece));
  }
  target.degree = l;
  return true;
}

Target single_row(int row, const std::vector<Term>& terms) {
  Target target;
  target.rows = {row, 1};
  std::map<std::pair<int, int>, double> sums;  // by sources
  for (const Term& term : terms)
    if (term.target == row) sums[std::minmax(term.first, term.second)] += term.coefficient;
  for (const auto& [sources, c] : sums) target.elements.push_back({{sources.first, 1}, {sources.second, 1}, 0, {c}});
  return target;
}

// Targets of multiplets [begin, end). with_all: also of rows that have no terms, which become zero.
std::vector<Target> make_targets(const Rows& rows, int begin, int end, const std::vector<Term>& terms, bool with_all) {
  std::map<int, std::vector<Term>> of_multiplet;
  for (const Term& term : terms) of_multiplet[rows.multiplet[term.target]].push_back(term);
  std::vector<Target> targets;
  for (int m = begin; m < end; ++m) {
    const Multiplet& of = rows.multiplets[m];
    const std::vector<Term>& own = of_multiplet[m];
    std::set<int> read;
    for (const Term& term : own) read.insert(term.target);
    Target target;
    target.rows = of;
    if ((with_all || static_cast<int>(read.size()) == of.size) && make_pieces(rows, of, own, target)) {
      targets.push_back(std::move(target));
      continue;
    }
    for (int row = of.first; row < of.first + of.size; ++row)
      if (with_all || read.count(row) != 0) targets.push_back(single_row(row, own));
  }
  return targets;
}

// Deals targets into launches of at most most_product_sources rows.
template <class Real>
class Launches {
 public:
  // exists: by row, what is there to be added to
  Launches(const Rows& rows, std::vector<char> exists, device::ModelMemory& memory)
      : rows_(rows), exists_(std::move(exists)), memory_(memory) {}

  void add(const Target& target) {
    std::set<int> alone;
    for (const Element& element : target.elements) insert(element, alone);
    if (!fits(alone)) flush();
    // Also the sources of one target may be too many: the next launch goes on with it.
    Target part = target;
    part.elements.clear();
    for (const Element& element : target.elements) {
      std::set<int> wanted;
      insert(element, wanted);
      if (!fits(wanted)) {
        if (!part.elements.empty()) targets_.push_back(part);
        part.elements.clear();
        flush();
      }
      sources_.insert(wanted.begin(), wanted.end());
      part.elements.push_back(element);
    }
    targets_.push_back(std::move(part));
  }

  std::vector<ProductGather<Real>> finish() {
    flush();
    return std::move(made_);
  }

 private:
  static void insert(const Element& element, std::set<int>& rows) {
    for (const Multiplet& m : {element.first, element.second})
      for (int r = 0; r < m.size; ++r) rows.insert(m.first + r);
  }
  bool fits(const std::set<int>& wanted) const {
    std::set<int> all = sources_;
    all.insert(wanted.begin(), wanted.end());
    return all.size() <= most_product_sources;
  }

  void flush() {
    if (targets_.empty()) return;
    std::stable_sort(targets_.begin(), targets_.end(),
                     [](const Target& a, const Target& b) { return a.work() > b.work(); });
    std::map<int, int> staged;  // the rows of a multiplet follow each other here too
    std::vector<RowAddress> sources;
    for (int row : sources_) {
      staged.emplace(row, static_cast<int>(sources.size()));
      sources.push_back(rows_.address[row]);
    }
    std::vector<ProductTarget> targets;
    std::vector<ProductPiece> pieces;
    std::vector<Real> coefficients;
    std::vector<math::GatherTerm<Real>> terms;
    for (const Target& target : targets_) {
      const bool listed = target.degree == ProductTarget::single_row;
      ProductTarget out;
      out.offset = rows_.address[target.rows.first].offset;
      out.degree = target.degree;
      out.begin = static_cast<int>(listed ? terms.size() : pieces.size());
      for (const Element& element : target.elements) {
        const int first = staged.at(element.first.first), second = staged.at(element.second.first);
        if (listed) {
          terms.push_back({first, second, static_cast<Real>(element.coefficients[0])});
          continue;
        }
        pieces.push_back({element.kind, first, second, static_cast<int>(coefficients.size())});
        for (double c : element.coefficients) coefficients.push_back(static_cast<Real>(c));
        while (coefficients.size() * sizeof(Real) % 16 != 0) coefficients.push_back(Real(0));
      }
      out.end = static_cast<int>(listed ? terms.size() : pieces.size());
      for (int r = 0; r < target.rows.size; ++r)
        if (std::exchange(exists_[target.rows.first + r], 1) != 0) out.accumulate |= 1u << r;
      targets.push_back(out);
    }
    ProductGather<Real> gather;
    gather.n_sources = static_cast<int>(sources.size());
    gather.n_targets = static_cast<int>(targets.size());
    gather.sources = memory_.keep(sources);
    gather.targets = memory_.keep(targets);
    gather.pieces = memory_.keep(pieces);
    gather.coefficients = memory_.keep(coefficients);
    gather.terms = memory_.keep(terms);
    made_.push_back(gather);
    targets_.clear();
    sources_.clear();
  }

  const Rows& rows_;
  std::vector<char> exists_;
  device::ModelMemory& memory_;
  std::vector<Target> targets_;
  std::set<int> sources_;
  std::vector<ProductGather<Real>> made_;
};

template <class Real>
std::vector<ProductGather<Real>> make_gathers(const Rows& rows, int begin, int end, const std::vector<Term>& terms,
                                              bool with_all, std::vector<char> exists, device::ModelMemory& memory) {
  Launches<Real> launches(rows, std::move(exists), memory);
  for (const Target& target : make_targets(rows, begin, end, terms, with_all)) launches.add(target);
  return launches.finish();
}

}  // namespace

template <class Real>
ProductBlock<Real> make_product_block(const ProductRows& product, device::ModelMemory& memory) {
  const int n_rows = static_cast<int>(product.path.size());
  Rows rows;
  rows.add(product.left.rows, product.left.path);
  const int right0 = product.right_is_left ? 0 : rows.size();
  if (!product.right_is_left) rows.add(product.right.rows, product.right.path);
  const int block0 = rows.size(), n_operands = static_cast<int>(rows.multiplets.size());
  std::vector<RowAddress> block;
  for (int r = 0; r < n_rows; ++r) block.push_back({Place::block, product.stride, std::int64_t{r} * product.stride});
  rows.add(block, product.path);
  for (const RowAddress& row : rows.address)
    require(row.stride == product.stride, "internal error: operands of a product have strides ", row.stride, " and ",
            product.stride);

  std::vector<Term> forward, adjoint;
  for (const CouplingTerm& term : product.terms) {
    const int row = block0 + term.row, left = term.left, right = right0 + term.right;
    forward.push_back({row, left, right, term.coefficient});
    adjoint.push_back({left, row, right, term.coefficient});
    adjoint.push_back({right, row, left, term.coefficient});
  }
  std::vector<char> exists = product.left.gradient_exists;
  if (!product.right_is_left)
    exists.insert(exists.end(), product.right.gradient_exists.begin(), product.right.gradient_exists.end());
  exists.resize(rows.size(), 0);

  ProductBlock<Real> made;
  made.n_rows = n_rows;
  made.stride = product.stride;
  made.forward = make_gathers<Real>(rows, n_operands, static_cast<int>(rows.multiplets.size()), forward, true,
                                    std::vector<char>(rows.size(), 0), memory);
  made.adjoint = make_gathers<Real>(rows, 0, n_operands, adjoint, false, std::move(exists), memory);
  return made;
}

template ProductBlock<double> make_product_block(const ProductRows&, device::ModelMemory&);
template ProductBlock<float> make_product_block(const ProductRows&, device::ModelMemory&);

}  // namespace grace::gpu
