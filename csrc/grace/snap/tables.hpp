// Tables of the SNAP bispectrum for one twojmax: Clebsch-Gordan contractions as lists of terms.
#pragma once

#include <cstdint>
#include <vector>

#include "grace/math/snap.hpp"

namespace grace::snap {

constexpr int max_twojmax = 14;  // factorials stay exact enough in long double

// Full matrices: level after level, row after row of J + 1 elements.
constexpr int full_offset(int J) { return J * (J + 1) * (2 * J + 1) / 6; }

// <j1 m1 j2 m2 | j m> with doubled arguments: J = 2j, M = 2m.
double clebsch_gordan(int J1, int M1, int J2, int M2, int J, int M);

// One product c U[first] U[second] of full elements.
struct Term {
  double coefficient;
  std::uint32_t first, second;
};

// One element of Z^J_{J1 J2}, J1 >= J2, that is not the mirror image of another: its terms and its place in the half
// matrices. `feature` is the component of B that the contraction belongs to. `weight`: how often the element counts in
// B = sum of Re(conj(U) Z), twice with its mirror image, or once in the middle of the middle row. `factor`: its part of
// the adjoint, Y^J += factor beta Z. With B_{J1 J2 J}/(J + 1) symmetric in its three indices,
//   dB_{J1 J2 J} = sum over slots of (J + 1)/(J_slot + 1) Re(conj(dU^slot) Z^slot_{others}).
struct Element {
  std::int32_t n_terms;
  std::int32_t half;
  std::int32_t feature;
  double weight;
  double factor;
};

// Where a full element comes from: half element `half`, conjugated and with `sign` if mirrored.
struct Mirror {
  std::int32_t half;
  double sign;       // of the real part
  double imaginary;  // of the imaginary part
};

struct Tables {
  int twojmax = 0;
  int n_features = 0;  // (J1, J2, J) with J >= J1 >= J2, in the order of their J1, J2, J
  int n_half = 0, n_full = 0;
  int n_value = 0;  // elements [0, n_value) are those of the features themselves, the others only of the adjoint
  // Both parts are sorted by the number of terms, so that processors predict the ends of the loops over them.
  std::vector<Element> elements;
  std::vector<Term> terms;
  std::vector<double> norms;    // [n_half] U = norm p
  std::vector<double> self;     // [n_half] 1 on the diagonal
  std::vector<Mirror> mirrors;  // [n_full]
};

Tables make_tables(int twojmax);

// Throws Error for parameters out of range.
math::SnapShape checked_shape(double rfac0, double rmin0);

}  // namespace grace::snap
