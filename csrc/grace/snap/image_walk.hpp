// The images of one atom within the cutoff of another, in a fixed order: the same text for the CPU and for devices.
#pragma once

#include "grace/macros.hpp"
#include "grace/math/geometry.hpp"

namespace grace::snap {

constexpr double least_distance = 1e-6;  // A; closer atoms have no direction to each other
constexpr double image_margin = 1e-9;    // of bounds in units of cells: images just outside are only looked at

// Cell of a structure, completed along directions that are not periodic.
struct SearchFrame {
  double cell[9];
  double inverse_heights[3];  // 1/A
  bool periodic[3];
};

inline namespace GRACE_ISA {

// Range of images n of direction k in which |difference + n| heights[k] can be within the cutoff. Conversions instead
// of std::floor, which is a call of a function on processors without SSE 4.1.
GRACE_HD GRACE_FORCEINLINE void image_range(const SearchFrame& frame, int k, double difference, double cutoff, int& low,
                                            int& high) {
  low = high = 0;
  if (!frame.periodic[k]) return;
  const double reach = cutoff * frame.inverse_heights[k] + image_margin;
  const double first = -reach - difference, last = reach - difference;
  low = static_cast<int>(first);
  high = static_cast<int>(last);
  if (low < first) ++low;
  if (high > last) --high;
}

// for (ImageWalk walk(...); walk.next(r, square);) ...
class ImageWalk {
 public:
  // Positions (A) and fractional coordinates of two wrapped atoms; `same`: they are one atom, which is no neighbour of
  // itself.
  GRACE_HD GRACE_FORCEINLINE ImageWalk(const SearchFrame& frame, const double* r_i, const double* f_i,
                                       const double* r_j, const double* f_j, double cutoff, bool same)
      : cell_(frame.cell), r_i_(r_i), r_j_(r_j), limit_(cutoff * cutoff), same_(same) {
    for (int k = 0; k < 3; ++k) {
      image_range(frame, k, f_j[k] - f_i[k], cutoff, low_[k], high_[k]);
      at_[k] = low_[k];
    }
    --at_[2];
    if (low_[1] > high_[1] || low_[2] > high_[2]) at_[0] = high_[0] + 1;
  }

  // The next vector from i to an image of j, A, and its square.
  GRACE_HD GRACE_FORCEINLINE bool next(double* r, double& square) {
    while (at_[0] <= high_[0]) {
      if (at_[2] == high_[2]) {
        at_[2] = low_[2];
        if (at_[1] == high_[1]) {
          at_[1] = low_[1];
          if (++at_[0] > high_[0]) return false;
        } else {
          ++at_[1];
        }
      } else {
        ++at_[2];
      }
      double offset[3];
      math::image_offset(at_[0], at_[1], at_[2], cell_, offset);
      math::pair_vector(r_i_, r_j_, offset, r);
      square = math::dot3(r, r);
      if (square < limit_ && !(same_ && at_[0] == 0 && at_[1] == 0 && at_[2] == 0)) return true;
    }
    return false;
  }

 private:
  const double *cell_, *r_i_, *r_j_;
  double limit_;
  bool same_;
  int low_[3], high_[3], at_[3];
};

}  // namespace GRACE_ISA
}  // namespace grace::snap
