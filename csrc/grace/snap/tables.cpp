#include "grace/snap/tables.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "grace/error.hpp"
#include "grace/math/snap.hpp"

namespace grace::snap {
namespace {

using Triple = std::tuple<int, int, int>;  // J1, J2, J

long double factorial(int n) { return n < 2 ? 1.0L : n * factorial(n - 1); }

struct Draft {
  Element element;
  std::vector<Term> terms;
};

// Z^J_{J1 J2} of the elements that are not mirror images of others.
void add_contraction(int J1, int J2, int J, int feature, double factor, std::vector<Draft>& drafts) {
  const int shift = (J1 + J2 - J) / 2;  // rows: m1 + m2 = m + shift
  const auto coefficient = [&](int m1, int m2) {
    return clebsch_gordan(J1, 2 * m1 - J1, J2, 2 * m2 - J2, J, 2 * (m1 + m2) - J1 - J2);
  };
  for (int m = 0; 2 * m <= J; ++m)
    for (int n = 0; n <= (2 * m == J ? m : J); ++n) {
      Draft draft;
      draft.element = {0, math::snap_half_offset(J) + m * (J + 1) + n, feature, 2 * m == J && 2 * n == J ? 1.0 : 2.0,
                       factor};
      for (int m1 = std::max(0, m + shift - J2); m1 <= std::min(J1, m + shift); ++m1)
        for (int n1 = std::max(0, n + shift - J2); n1 <= std::min(J1, n + shift); ++n1) {
          const int m2 = m + shift - m1, n2 = n + shift - n1;
          double c = coefficient(m1, m2) * coefficient(n1, n2);
          if (J1 == J2) {  // the product is the same with first and second exchanged
            if (std::make_pair(m1, n1) > std::make_pair(m2, n2)) continue;
            if (m1 != m2 || n1 != n2) c *= 2.0;
          }
          const auto place = [](int level, int row, int column) {
            return static_cast<std::uint32_t>(full_offset(level) + row * (level + 1) + column);
          };
          draft.terms.push_back({c, place(J1, m1, n1), place(J2, m2, n2)});
        }
      draft.element.n_terms = static_cast<std::int32_t>(draft.terms.size());
      drafts.push_back(std::move(draft));
    }
}

void append(std::vector<Draft>& drafts, Tables& tables) {
  std::stable_sort(drafts.begin(), drafts.end(),
                   [](const Draft& a, const Draft& b) { return a.element.n_terms < b.element.n_terms; });
  for (const Draft& draft : drafts) {
    tables.elements.push_back(draft.element);
    tables.terms.insert(tables.terms.end(), draft.terms.begin(), draft.terms.end());
  }
}

void add_levels(Tables& tables) {
  for (int J = 0; J <= tables.twojmax; ++J) {
    for (int m = 0; 2 * m <= J; ++m)
      for (int n = 0; n <= J; ++n) {
        tables.norms.push_back(
            static_cast<double>(std::sqrt(factorial(n) * factorial(J - n) / (factorial(m) * factorial(J - m)))));
        tables.self.push_back(m == n ? 1.0 : 0.0);
      }
    for (int m = 0; m <= J; ++m)
      for (int n = 0; n <= J; ++n) {
        const bool mirrored = 2 * m > J;
        const int row = mirrored ? J - m : m, column = mirrored ? J - n : n;
        const double sign = mirrored && (m + n) % 2 != 0 ? -1.0 : 1.0;
        tables.mirrors.push_back({math::snap_half_offset(J) + row * (J + 1) + column, sign, mirrored ? -sign : sign});
      }
  }
  tables.n_half = static_cast<int>(tables.norms.size());
  tables.n_full = static_cast<int>(tables.mirrors.size());
}

}  // namespace

double clebsch_gordan(int J1, int M1, int J2, int M2, int J, int M) {
  if (M1 + M2 != M || J > J1 + J2 || J < std::abs(J1 - J2) || (J1 + J2 + J) % 2 != 0) return 0.0;
  if (std::abs(M1) > J1 || std::abs(M2) > J2 || std::abs(M) > J) return 0.0;
  if ((J1 + M1) % 2 != 0 || (J2 + M2) % 2 != 0) return 0.0;
  // Racah's sum over z, all arguments halved to whole numbers
  const int a = (J1 + J2 - J) / 2, b = (J1 - M1) / 2, c = (J2 + M2) / 2;
  const int d = (J - J2 + M1) / 2, e = (J - J1 - M2) / 2;
  long double sum = 0.0L;
  for (int z = std::max({0, -d, -e}); z <= std::min({a, b, c}); ++z)
    sum += (z % 2 != 0 ? -1.0L : 1.0L) / (factorial(z) * factorial(a - z) * factorial(b - z) * factorial(c - z) *
                                          factorial(d + z) * factorial(e + z));
  const long double triangle =
      factorial(a) * factorial((J1 - J2 + J) / 2) * factorial((J2 - J1 + J) / 2) / factorial((J1 + J2 + J) / 2 + 1);
  const long double states = factorial((J1 + M1) / 2) * factorial(b) * factorial(c) * factorial((J2 - M2) / 2) *
                             factorial((J + M) / 2) * factorial((J - M) / 2) * (J + 1);
  return static_cast<double>(sum * std::sqrt(triangle * states));
}

math::SnapShape checked_shape(double rfac0, double rmin0) {
  require(std::isfinite(rfac0) && rfac0 > 0.0 && rfac0 <= 1.0, "`rfac0` must be above 0 and at most 1, got ", rfac0);
  require(std::isfinite(rmin0) && rmin0 >= 0.0, "`rmin0` must be finite and >= 0 A, got ", rmin0);
  return {rfac0, rmin0};
}

Tables make_tables(int twojmax) {
  require(twojmax >= 0 && twojmax <= max_twojmax, "`twojmax` must be 0 .. ", max_twojmax, ", got ", twojmax);
  Tables tables;
  tables.twojmax = twojmax;
  add_levels(tables);
  std::vector<Triple> features;
  for (int J1 = 0; J1 <= twojmax; ++J1)
    for (int J2 = 0; J2 <= J1; ++J2)
      for (int J = J1 - J2; J <= std::min(twojmax, J1 + J2); J += 2)
        if (J >= J1) features.emplace_back(J1, J2, J);
  tables.n_features = static_cast<int>(features.size());
  std::map<Triple, std::pair<int, double>> needed;  // contraction -> feature and factor
  for (int f = 0; f < tables.n_features; ++f) {
    const auto [J1, J2, J] = features[static_cast<std::size_t>(f)];
    const Triple slots[3] = {{J1, J2, J}, {J, J2, J1}, {J, J1, J2}};
    for (const auto& [first, second, slot] : slots) {
      auto& entry = needed[{first, second, slot}];
      entry.first = f;
      entry.second += (J + 1.0) / (slot + 1.0);
    }
  }
  std::vector<Draft> value, others;
  for (const auto& triple : features) {
    const auto [J1, J2, J] = triple;
    add_contraction(J1, J2, J, needed[triple].first, needed[triple].second, value);
    needed.erase(triple);
  }
  for (const auto& [triple, use] : needed) {
    const auto [J1, J2, J] = triple;
    add_contraction(J1, J2, J, use.first, use.second, others);
  }
  append(value, tables);
  tables.n_value = static_cast<int>(tables.elements.size());
  append(others, tables);
  return tables;
}

}  // namespace grace::snap
