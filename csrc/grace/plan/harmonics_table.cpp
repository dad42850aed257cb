#include "grace/plan/harmonics_table.hpp"

#include <cmath>

#include "grace/error.hpp"

namespace grace::plan {
namespace {

math::HarmonicsTable<double> make_table(int lmax) {
  require(lmax <= math::max_lmax, "lmax = ", lmax, " of the radial network is above the supported ", math::max_lmax);
  math::HarmonicsTable<double> t{};
  t.lmax = lmax;
  t.p_mm[0] = 1.0;
  for (int m = 1; m <= lmax; ++m) t.p_mm[m] = t.p_mm[m - 1] * std::sqrt((2.0 * m + 1.0) / (2.0 * m));
  for (int m = 0; m <= lmax; ++m) {
    t.first[m] = std::sqrt(2.0 * m + 3.0);
    for (int l = m + 2; l <= lmax; ++l) {
      t.a[l][m] = std::sqrt((4.0 * l * l - 1.0) / (l * l - m * m));
      t.b[l][m] = std::sqrt(((l - 1.0) * (l - 1.0) - m * m) / (4.0 * (l - 1.0) * (l - 1.0) - 1.0));
    }
  }
  return t;
}

template <class Real>
math::HarmonicsTable<Real> convert(const math::HarmonicsTable<double>& from) {
  math::HarmonicsTable<Real> to{};
  to.lmax = from.lmax;
  for (int m = 0; m <= math::max_lmax; ++m) {
    to.p_mm[m] = static_cast<Real>(from.p_mm[m]);
    to.first[m] = static_cast<Real>(from.first[m]);
    for (int l = 0; l <= math::max_lmax; ++l) {
      to.a[l][m] = static_cast<Real>(from.a[l][m]);
      to.b[l][m] = static_cast<Real>(from.b[l][m]);
    }
  }
  return to;
}

}  // namespace

template <class Real>
math::HarmonicsTable<Real> harmonics_table(int lmax) {
  return convert<Real>(make_table(lmax));
}

template math::HarmonicsTable<double> harmonics_table<double>(int);
template math::HarmonicsTable<float> harmonics_table<float>(int);

}  // namespace grace::plan
