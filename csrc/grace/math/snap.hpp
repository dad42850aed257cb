// SNAP bispectrum: formulas of one pair (Thompson et al., J. Comput. Phys. 285, 316 (2015); Wood and Thompson, J. Chem.
// Phys. 148, 241721 (2018)). A pair vector becomes a point (a, b) of the unit sphere in four dimensions,
//   a = cos(t) - i sin(t) z/r,  b = sin(t) (y - i x)/r,  t = rfac0 pi (r - rmin0)/(rc - rmin0),  |a|^2 + |b|^2 = 1.
//
// Row m of the matrix U^J(a, b), J = 2j, are coefficients of the polynomial conj(a) X - conj(b) Y to the power J - m
// times (b X + a Y) to the power m:
//   U^J[m][n] = p^J[m][n] sqrt(n! (J - n)! / (m! (J - m)!)),  p^J[m][n] the coefficient of X^(J-n) Y^n.
// The p need no factors at all: each level is the one below times one of the two linear forms, and
//   dp^J[m]/dconj(a) = (J - m) p^(J-1)[m],  dp^J[m]/da = m Y p^(J-1)[m - 1], and so on.
// U^J[J-m][J-n] = (-1)^(m-n) conj(U^J[m][n]), so that only the rows m <= J/2 ("half") are ever made.
#pragma once

#include "grace/macros.hpp"

namespace grace::math {

// Parameters shared by all pairs.
struct SnapShape {
  double rfac0 = 0.0;
  double rmin0 = 0.0;  // A
};

// A pair: unit vector n, length r (A) and 1 / (rc - rmin0) (1/A).
template <class P>
struct SnapPair {
  typename P::V n_x, n_y, n_z, r, inverse_range;
};

// Its point on the sphere, the switching function f = (cos(pi x) + 1)/2 of x = (r - rmin0)/(rc - rmin0), df/dr, and
// sin(t), cos(t), dt/dr. f is 1 for r <= rmin0 and 0 for r >= rc.
template <class P>
struct SnapPoint {
  typename P::V a_r, a_i, b_r, b_i;
  typename P::V sine, cosine, slope, f, f_slope;
};

inline namespace GRACE_ISA {

// Layout of the half matrices: level after level, row after row of J + 1 elements; an element is (real, imaginary).
GRACE_HD GRACE_FORCEINLINE constexpr int snap_half_rows(int J) { return J / 2 + 1; }
GRACE_HD GRACE_FORCEINLINE constexpr int snap_half_size(int J) { return snap_half_rows(J) * (J + 1); }
GRACE_HD GRACE_FORCEINLINE constexpr int snap_half_offset(int J) {
  int sum = 0;
  for (int k = 0; k < J; ++k) sum += snap_half_size(k);
  return sum;
}

// sin(pi y), cos(pi y) for -3/2 < y < 3/2: Taylor series within |y| <= 1/2, where the first term left out is 1e-18.
template <class P>
GRACE_HD GRACE_FORCEINLINE void sine_cosine_of_pi(typename P::V y, typename P::V& sine, typename P::V& cosine) {
  using V = typename P::V;
  using Real = typename P::Real;
  const V whole = P::round(y);
  const V x = (y - whole) * Real(3.14159265358979323846);
  const V sign = Real(1) - Real(2) * whole * whole;
  const V square = x * x;
  constexpr int n_terms = 11;
  V s = P::set(Real(1)), c = P::set(Real(1));
  for (int k = n_terms - 1; k > 0; --k) s = Real(1) - s * square * Real(1.0 / (2 * k * (2 * k + 1)));
  for (int k = n_terms; k > 0; --k) c = Real(1) - c * square * Real(1.0 / ((2 * k - 1) * (2 * k)));
  sine = sign * x * s;
  cosine = sign * c;
}

template <class P>
GRACE_HD GRACE_FORCEINLINE SnapPoint<P> snap_point(const SnapShape& shape, const SnapPair<P>& pair) {
  using V = typename P::V;
  using Real = typename P::Real;
  const Real pi = Real(3.14159265358979323846);
  const Real rfac0 = static_cast<Real>(shape.rfac0);
  SnapPoint<P> point;
  const V x = P::clamp((pair.r - static_cast<Real>(shape.rmin0)) * pair.inverse_range, Real(-1), Real(1));
  V switch_sine, switch_cosine;
  sine_cosine_of_pi<P>(x, switch_sine, switch_cosine);
  const V zero = P::set(Real(0)), one = P::set(Real(1));
  const V f = Real(0.5) * switch_cosine + Real(0.5);
  const V f_slope = Real(-0.5) * pi * switch_sine * pair.inverse_range;
  point.f = P::select_less(x, Real(1), P::select_less(x, Real(0), one, f), zero);
  point.f_slope = P::select_less(x, Real(1), P::select_less(x, Real(0), zero, f_slope), zero);
  sine_cosine_of_pi<P>(rfac0 * x, point.sine, point.cosine);
  point.slope = rfac0 * pi * pair.inverse_range;
  point.a_r = point.cosine;
  point.a_i = -point.sine * pair.n_z;
  point.b_r = point.sine * pair.n_y;
  point.b_i = -point.sine * pair.n_x;
  return point;
}

// A row of level J >= 1 of the p, `after` [J + 1], from one of level J - 1, `before` [J]: times conj(a) X - conj(b) Y.
// The two may be the same memory.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_next_row(int J, const SnapPoint<P>& u, const typename P::V* before,
                                              typename P::V* after) {
  using T = typename P::V;
  T last_r = before[0], last_i = before[1];
  after[0] = u.a_r * last_r + u.a_i * last_i;
  after[1] = u.a_r * last_i - u.a_i * last_r;
  for (int n = 1; n < J; ++n) {
    const T p_r = before[2 * n], p_i = before[2 * n + 1];
    after[2 * n] = (u.a_r * p_r + u.a_i * p_i) - (u.b_r * last_r + u.b_i * last_i);
    after[2 * n + 1] = (u.a_r * p_i - u.a_i * p_r) - (u.b_r * last_i - u.b_i * last_r);
    last_r = p_r;
    last_i = p_i;
  }
  after[2 * J] = -(u.b_r * last_r + u.b_i * last_i);
  after[2 * J + 1] = -(u.b_r * last_i - u.b_i * last_r);
}

// The same for the middle row of an even J, from the last row of level J - 1: times b X + a Y.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_middle_row(int J, const SnapPoint<P>& u, const typename P::V* before,
                                                typename P::V* after) {
  using T = typename P::V;
  T last_r = before[0], last_i = before[1];
  after[0] = u.b_r * last_r - u.b_i * last_i;
  after[1] = u.b_r * last_i + u.b_i * last_r;
  for (int n = 1; n < J; ++n) {
    const T p_r = before[2 * n], p_i = before[2 * n + 1];
    after[2 * n] = (u.b_r * p_r - u.b_i * p_i) + (u.a_r * last_r - u.a_i * last_i);
    after[2 * n + 1] = (u.b_r * p_i + u.b_i * p_r) + (u.a_r * last_i + u.a_i * last_r);
    last_r = p_r;
    last_i = p_i;
  }
  after[2 * J] = u.a_r * last_r - u.a_i * last_i;
  after[2 * J + 1] = u.a_r * last_i + u.a_i * last_r;
}

// Half of level J >= 1 of the p from that of level J - 1.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_next_level(int J, const SnapPoint<P>& u, const typename P::V* before,
                                                typename P::V* after) {
  for (int m = 0; m <= (J - 1) / 2; ++m) snap_next_row(J, u, before + 2 * m * J, after + 2 * m * (J + 1));
  if (J % 2 == 0) snap_middle_row(J, u, before + 2 * (J / 2 - 1) * J, after + 2 * (J / 2) * (J + 1));
}

// Row m of level J from row m of level J - 1, or, while J <= 2 m, the row that becomes row m of level 2 m: for those
// who make the rows of one m on their own, in place.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_advance_row(int J, int m, const SnapPoint<P>& u, typename P::V* row) {
  if (J % 2 == 0 && J <= 2 * m)
    snap_middle_row(J, u, row, row);
  else
    snap_next_row(J, u, row, row);
}

// One term of the Clebsch-Gordan contraction, c U1 U2, in four sums: real and imaginary part of the product are
// sum_rr - sum_ii and sum_ri + sum_ir.
template <class P>
struct SnapSums {
  typename P::V rr, ii, ri, ir;
};

template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_term(typename P::Real c, const typename P::V* first, const typename P::V* second,
                                          SnapSums<P>& sums) {
  const typename P::V r = c * first[0], i = c * first[1];
  sums.rr += r * second[0];
  sums.ii += i * second[1];
  sums.ri += r * second[1];
  sums.ir += i * second[0];
}

// G_a and G_b with dE = 2 Re(da G_a + db G_b).
template <class P>
struct SnapGradient {
  typename P::V a_r, a_i, b_r, b_i;
};

// Coefficients of one element p of level J - 1 in the G of level J (see snap_gradient_coefficients).
constexpr int snap_n_coefficients = 8;

// Adds the part of one element p to G.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_add_gradient(const typename P::V* coefficients, typename P::V p_r,
                                                  typename P::V p_i, SnapGradient<P>& G) {
  G.a_r += coefficients[0] * p_r;
  G.a_i += coefficients[1] * p_r;
  G.b_r += coefficients[2] * p_r;
  G.b_i += coefficients[3] * p_r;
  G.a_r += coefficients[4] * p_i;
  G.a_i += coefficients[5] * p_i;
  G.b_r += coefficients[6] * p_i;
  G.b_i += coefficients[7] * p_i;
}

// For E = sum of Re(conj(Y) p) over all elements, Y (half, as p) of level J with the factors of p above: the
// coefficients of element (m, n) of level J - 1. Row m < J/2 of Y and its mirror image J - m give
//   2 Re(dconj(a) (J - m) conj(Y[m][n]) p - dconj(b) (J - m) conj(Y[m][n+1]) p),
// row m + 1 <= J/2 gives 2 Re(da (m + 1) conj(Y[m+1][n+1]) p + db (m + 1) conj(Y[m+1][n]) p); the middle row is its own
// mirror image and would give the same twice, of which the second form is taken.
template <class T>
GRACE_HD GRACE_FORCEINLINE void snap_gradient_coefficients(int J, int m, int n, const T* Y, T* coefficients) {
  const T zero = Y[0] - Y[0];
  T A_r = zero, A_i = zero, B_r = zero, B_i = zero;  // of a: A p + conj(C p); of b: B p + conj(D p)
  T C_r = zero, C_i = zero, D_r = zero, D_i = zero;
  if (2 * m < J) {
    const T* row = Y + 2 * (m * (J + 1) + n);
    const double factor = J - m;
    C_r = factor * row[0];
    C_i = -factor * row[1];
    D_r = -factor * row[2];
    D_i = factor * row[3];
  }
  if (2 * (m + 1) <= J) {
    const T* row = Y + 2 * ((m + 1) * (J + 1) + n);
    const double factor = m + 1;
    B_r = factor * row[0];
    B_i = -factor * row[1];
    A_r = factor * row[2];
    A_i = -factor * row[3];
  }
  coefficients[0] = A_r + C_r;
  coefficients[1] = A_i - C_i;
  coefficients[2] = B_r + D_r;
  coefficients[3] = B_i - D_i;
  coefficients[4] = -(A_i + C_i);
  coefficients[5] = A_r - C_r;
  coefficients[6] = -(B_i + D_i);
  coefficients[7] = B_r - D_r;
}

// The part of level J of E, by Euler's theorem for homogeneous functions: J E_J = 2 Re(a G_a + b G_b).
template <class P>
GRACE_HD GRACE_FORCEINLINE typename P::V snap_level_value(const SnapPoint<P>& u, const SnapGradient<P>& G) {
  return 2.0 * ((u.a_r * G.a_r - u.a_i * G.a_i) + (u.b_r * G.b_r - u.b_i * G.b_i));
}

// d(f E)/dr_ij [3] for the value E and its gradient G.
template <class P>
GRACE_HD GRACE_FORCEINLINE void snap_pair_gradient(const SnapPair<P>& pair, const SnapPoint<P>& u, typename P::V E,
                                                   const SnapGradient<P>& G, typename P::V* out) {
  using T = typename P::V;
  // dE/dcos(t), and v = dE/dw for w = sin(t) n
  const T g = 2.0 * G.a_r, v_x = 2.0 * G.b_i, v_y = 2.0 * G.b_r, v_z = 2.0 * G.a_i;
  const T v_n = v_x * pair.n_x + v_y * pair.n_y + v_z * pair.n_z;
  const T across = u.f * u.sine / pair.r;
  const T along = u.f_slope * E + u.f * u.slope * (u.cosine * v_n - u.sine * g) - across * v_n;
  out[0] = along * pair.n_x + across * v_x;
  out[1] = along * pair.n_y + across * v_y;
  out[2] = along * pair.n_z + across * v_z;
}

}  // namespace GRACE_ISA
}  // namespace grace::math
