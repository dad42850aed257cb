// Which terms a coupling of three multiplets can have. Real harmonics of l1 and l2 couple to those of l with few of the
// (2l + 1)(2l1 + 1)(2l2 + 1) coefficients, and which ones is known at compile time: the kernels of products keep whole
// multiplets in registers and run straight through the terms, with coefficients that are data.
#pragma once

#include "grace/macros.hpp"

namespace grace::gpu {

constexpr int most_pattern_degree = 4;
constexpr int most_pattern_terms = 97;  // of (4, 4, 4)
constexpr int n_pattern_pairs = (most_pattern_degree + 1) * (most_pattern_degree + 2) / 2;

// Operands of a coupling are ordered, l1 <= l2, and such pairs are numbered.
GRACE_HD constexpr int pattern_pair(int l1, int l2) { return l2 * (l2 + 1) / 2 + l1; }
GRACE_HD constexpr int larger_degree(int pair) {
  int l2 = 0;
  while (pattern_pair(0, l2 + 1) <= pair) ++l2;
  return l2;
}
GRACE_HD constexpr int smaller_degree(int pair) { return pair - pattern_pair(0, larger_degree(pair)); }

GRACE_HD constexpr bool degrees_couple(int l, int l1, int l2) {
  return l <= l1 + l2 && l1 <= l + l2 && l2 <= l + l1 && l <= most_pattern_degree && l1 <= most_pattern_degree &&
         l2 <= most_pattern_degree;
}

// Harmonics of m >= 0 go with cos(m phi), those of m < 0 with sin(|m| phi). A product of two of them has |m1| + |m2|
// and ||m1| - |m2||, and one or the other kind; which kind is swapped where l + l1 + l2 is odd (as in a cross product).
GRACE_HD constexpr bool orders_couple(int l, int l1, int l2, int m, int m1, int m2) {
  const int a = m1 < 0 ? -m1 : m1, b = m2 < 0 ? -m2 : m2, c = m < 0 ? -m : m;
  const bool is_sine = ((m1 < 0) != (m2 < 0)) != ((l + l1 + l2) % 2 != 0);
  return (c == a + b || c == (a < b ? b - a : a - b)) && (m < 0) == is_sine;
}

// Positions within the multiplets (m + l).
struct PatternTerm {
  int row = 0, first = 0, second = 0;
};
struct CouplingPattern {
  int size = 0;
  PatternTerm terms[most_pattern_terms] = {};
};

// All terms, in the order of their coefficients.
GRACE_HD constexpr CouplingPattern coupling_pattern(int l, int l1, int l2) {
  CouplingPattern pattern;
  for (int m1 = -l1; m1 <= l1; ++m1)
    for (int m2 = -l2; m2 <= l2; ++m2)
      for (int m = -l; m <= l; ++m)
        if (orders_couple(l, l1, l2, m, m1, m2)) {
          pattern.terms[pattern.size].row = m + l;
          pattern.terms[pattern.size].first = m1 + l1;
          pattern.terms[pattern.size].second = m2 + l2;
          ++pattern.size;
        }
  return pattern;
}

}  // namespace grace::gpu
