// What is done with a finished neighbour list: images, vectors, and the test whether it is still valid.
#include <algorithm>
#include <cmath>
#include <limits>

#include "grace/math/geometry.hpp"
#include "grace/neighbors.hpp"
#include "grace/neighbors_checks.hpp"

namespace grace {
namespace {

// F such that H = H0 F: the affine map of space that turns one cell into the other (rows are vectors, x' = x F).
// Directions normal to all periodic vectors are not strained.
void deformation(const double* cell0, const double* cell, const bool* periodic, double* out) {
  double full0[9], full[9], inverse0[9];
  math::complete_cell(cell0, periodic, full0);
  for (int k = 0; k < 9; ++k) full[k] = periodic[k / 3] ? cell[k] : full0[k];
  math::cell_inverse(full0, inverse0);
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c)
      out[3 * r + c] =
          inverse0[3 * r] * full[c] + inverse0[3 * r + 1] * full[3 + c] + inverse0[3 * r + 2] * full[6 + c];
}

// Lower bound s of the smallest singular value of F, so that |x F| >= s |x|; exact for isotropic strain. F F^T = m 1 +
// D with D traceless: no eigenvalue of D is below -sqrt(2/3) |D|.
double smallest_stretch(const double* f) {
  double product[9], deviation2 = 0.0;
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) product[3 * r + c] = math::dot3(f + 3 * r, f + 3 * c);
  const double mean = (product[0] + product[4] + product[8]) / 3.0;
  for (int k = 0; k < 9; ++k) {
    const double deviation = product[k] - (k % 4 == 0 ? mean : 0.0);
    deviation2 += deviation * deviation;
  }
  const double smallest2 = mean - std::sqrt(2.0 / 3.0 * deviation2);
  return smallest2 > 0.0 ? std::sqrt(smallest2) : 0.0;  // 0 for NaN
}

}  // namespace

void unwrapped_shifts(const NeighborList& list, std::int32_t* shifts) {
  for (std::int64_t i = 0; i < list.n_atoms; ++i) {
    const std::int32_t* wrap_i = list.wrap.data() + 3 * i;
    for (std::int64_t p = list.first[i]; p < list.first[i + 1]; ++p) {
      const std::int32_t* wrap_j = list.wrap.data() + 3 * std::int64_t{list.neighbor[p]};
      int image[3];
      unpack_shift(list.shift[p], image[0], image[1], image[2]);
      for (int k = 0; k < 3; ++k) shifts[3 * p + k] = image[k] - wrap_j[k] + wrap_i[k];
    }
  }
}

void pair_vectors(const NeighborList& list, const StructureBatch& batch, double* vectors) {
  for (std::int64_t i = 0; i < list.n_atoms; ++i) {
    const double* cell = batch.cells + 9 * std::int64_t{list.structure[i]};
    double r_i[3], r_j[3], offset[3];
    math::wrapped_position(batch.positions + 3 * i, list.wrap.data() + 3 * i, cell, r_i);
    for (std::int64_t p = list.first[i]; p < list.first[i + 1]; ++p) {
      const std::int64_t j = list.neighbor[p];
      int a, b, c;
      unpack_shift(list.shift[p], a, b, c);
      math::image_offset(a, b, c, cell, offset);
      math::wrapped_position(batch.positions + 3 * j, list.wrap.data() + 3 * j, cell, r_j);
      math::pair_vector(r_i, r_j, offset, vectors + 3 * p);
    }
  }
}

// With the displacement u_i = r_i - r0_i F that is left after the affine map F, a pair at d was at d0 = (d - u_j + u_i)
// F^-1, so |d| < rc implies |d0| < (rc + 2 max|u|) / s with s the smallest stretch of F. The list holds every pair with
// |d0| < rc + skin: it is complete while 2 max|u| <= s (rc + skin) - rc for all cutoffs. A translation of all atoms
// does not count: u is measured from the middle of its range.
double allowed_motion(const double* built_cell, const double* cell, const bool* periodic, double smallest_cutoff,
                      double largest_cutoff, double skin, double* f) {
  deformation(built_cell, cell, periodic, f);
  const double stretch = smallest_stretch(f);
  return stretch * skin - (1.0 - stretch) * (stretch < 1.0 ? largest_cutoff : smallest_cutoff);
}

bool max_displacement_exceeds(const StructureBatch& built, const double* positions, const double* cells,
                              double smallest_cutoff, double largest_cutoff, double skin) {
  for (int s = 0; s < built.n_structures; ++s) {
    double f[9];
    const double allowed = allowed_motion(built.cells + 9 * s, cells + 9 * s, built.periodic + 3 * s, smallest_cutoff,
                                          largest_cutoff, skin, f);
    if (!(allowed > 0.0)) return true;
    double middle[3];
    for (int k = 0; k < 3; ++k) {
      double low = std::numeric_limits<double>::infinity(), high = -low;
      for (std::int64_t i = built.first_atom[s]; i < built.first_atom[s + 1]; ++i) {
        const double u = math::displacement(built.positions + 3 * i, positions + 3 * i, f, k);
        low = std::min(low, u);
        high = std::max(high, u);
      }
      middle[k] = 0.5 * (low + high);
    }
    for (std::int64_t i = built.first_atom[s]; i < built.first_atom[s + 1]; ++i) {
      double u[3];
      for (int k = 0; k < 3; ++k)
        u[k] = math::displacement(built.positions + 3 * i, positions + 3 * i, f, k) - middle[k];
      if (!(4.0 * math::dot3(u, u) < allowed * allowed)) return true;
    }
  }
  return false;
}

}  // namespace grace
