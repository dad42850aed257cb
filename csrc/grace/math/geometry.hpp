// Geometry of periodic cells. A cell is a row-major [3][3] matrix whose rows are the lattice vectors (A): x = s . H.
#pragma once

#include <cmath>

#include "grace/macros.hpp"

namespace grace::math {
inline namespace GRACE_ISA {

GRACE_HD GRACE_FORCEINLINE double dot3(const double* a, const double* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

GRACE_HD GRACE_FORCEINLINE double length3(const double* a) { return std::sqrt(dot3(a, a)); }

GRACE_HD GRACE_FORCEINLINE void cross3(const double* a, const double* b, double* out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

// Signed volume a . (b x c), A^3; negative for left-handed cells.
GRACE_HD GRACE_FORCEINLINE double cell_volume(const double* cell) {
  double area[3];
  cross3(cell + 3, cell + 6, area);
  return dot3(cell, area);
}

// |volume| / (|a| |b| |c|): 1 for orthogonal vectors, 0 for vectors in one plane or of zero length.
GRACE_HD GRACE_FORCEINLINE double cell_orthogonality(const double* cell) {
  const double product = length3(cell) * length3(cell + 3) * length3(cell + 6);
  return product > 0.0 ? std::fabs(cell_volume(cell)) / product : 0.0;
}

// out[9] such that s = x . out. The volume must not be zero.
GRACE_HD GRACE_FORCEINLINE void cell_inverse(const double* cell, double* out) {
  const double inverse_volume = 1.0 / cell_volume(cell);
  for (int k = 0; k < 3; ++k) {
    double column[3];  // b x c, c x a, a x b
    cross3(cell + 3 * ((k + 1) % 3), cell + 3 * ((k + 2) % 3), column);
    for (int x = 0; x < 3; ++x) out[3 * x + k] = column[x] * inverse_volume;
  }
}

// heights[3]: distance of opposite faces, h_k = V / |a_l x a_m| (A), from the inverse of the cell.
GRACE_HD GRACE_FORCEINLINE void cell_heights(const double* inverse, double* heights) {
  for (int k = 0; k < 3; ++k) {
    const double normal[3] = {inverse[k], inverse[3 + k], inverse[6 + k]};
    heights[k] = 1.0 / length3(normal);
  }
}

// Replaces the rows of non-periodic directions, whatever they hold, by unit vectors normal to the periodic ones, so
// that the cell is invertible and a non-periodic coordinate is a length in A.
GRACE_HD GRACE_FORCEINLINE void complete_cell(const double* cell, const bool* periodic, double* out) {
  for (int k = 0; k < 9; ++k) out[k] = periodic[k / 3] ? cell[k] : 0.0;
  const int n_periodic = int(periodic[0]) + int(periodic[1]) + int(periodic[2]);
  if (n_periodic == 0) {
    out[0] = out[4] = out[8] = 1.0;
  } else if (n_periodic == 1) {
    const int p = periodic[0] ? 0 : (periodic[1] ? 1 : 2);
    const double* row = out + 3 * p;
    double axis[3] = {0.0, 0.0, 0.0};  // the Cartesian axis that is least parallel to the periodic vector
    int least = std::fabs(row[0]) <= std::fabs(row[1]) ? 0 : 1;
    if (std::fabs(row[2]) < std::fabs(row[least])) least = 2;
    axis[least] = 1.0;
    double* second = out + 3 * ((p + 1) % 3);
    double* third = out + 3 * ((p + 2) % 3);
    cross3(row, axis, second);
    const double second_length = length3(second);
    for (int x = 0; x < 3; ++x) second[x] /= second_length;
    cross3(row, second, third);
    const double third_length = length3(third);
    for (int x = 0; x < 3; ++x) third[x] /= third_length;
  } else if (n_periodic == 2) {
    const int open = periodic[0] ? (periodic[1] ? 2 : 1) : 0;
    double* normal = out + 3 * open;
    cross3(out + 3 * ((open + 1) % 3), out + 3 * ((open + 2) % 3), normal);
    const double normal_length = length3(normal);
    for (int x = 0; x < 3; ++x) normal[x] /= normal_length;
  }
}

// Largest |image| that a sphere of radius `cutoff` around any point of one slab of thickness `height` can reach.
GRACE_HD GRACE_FORCEINLINE double image_bound(double height, double cutoff) {
  return std::floor(cutoff / height) + 1.0;
}

// out = S . H for the image S = (a, b, c).
GRACE_HD GRACE_FORCEINLINE void image_offset(int a, int b, int c, const double* cell, double* out) {
  for (int x = 0; x < 3; ++x) out[x] = a * cell[x] + b * cell[3 + x] + c * cell[6 + x];
}

// out = (r_j - r_i) + S . H, in this order: swapping i and j with -S gives exactly the opposite vector, so both
// directions of a pair are on the same side of a cutoff.
GRACE_HD GRACE_FORCEINLINE void pair_vector(const double* r_i, const double* r_j, const double* offset, double* out) {
  for (int x = 0; x < 3; ++x) out[x] = (r_j[x] - r_i[x]) + offset[x];
}

// wrapped = r - n . H
GRACE_HD GRACE_FORCEINLINE void wrapped_position(const double* r, const int* n, const double* cell, double* out) {
  for (int x = 0; x < 3; ++x) out[x] = r[x] - (n[0] * cell[x] + n[1] * cell[3 + x] + n[2] * cell[6 + x]);
}

// Wraps n[3] that bring r into the cell along its periodic directions, the wrapped position and its fractional
// coordinates; inverse: of the completed cell. Returns -1, or the direction along which r is 1e9 cells outside or more.
GRACE_HD GRACE_FORCEINLINE int wrap_into_cell(const double* r, const double* cell, const double* inverse,
                                              const bool* periodic, int* n, double* wrapped, double* fractional) {
  n[0] = n[1] = n[2] = 0;
  // One turn wraps; a second one repairs the rounding of the first for atoms that are far outside.
  for (int turn = 0;; ++turn) {
    wrapped_position(r, n, cell, wrapped);
    bool inside = true;
    for (int k = 0; k < 3; ++k) {
      fractional[k] = wrapped[0] * inverse[k] + wrapped[1] * inverse[3 + k] + wrapped[2] * inverse[6 + k];
      if (!periodic[k] || turn == 2) continue;
      const double whole = std::floor(fractional[k]);
      if (!(std::fabs(n[k] + whole) < 1e9)) return k;
      inside = inside && whole == 0.0;
      n[k] += static_cast<int>(whole);
    }
    if (inside) return -1;
  }
}

// Component k of r - r0 F: what is left of a displacement after the affine map F.
GRACE_HD GRACE_FORCEINLINE double displacement(const double* r0, const double* r, const double* f, int k) {
  return r[k] - (r0[0] * f[k] + r0[1] * f[3 + k] + r0[2] * f[6 + k]);
}

}  // namespace GRACE_ISA
}  // namespace grace::math
