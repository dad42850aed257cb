// Constants of the recurrence of the spherical harmonics.
#pragma once

#include "grace/math/spherical_harmonics.hpp"

namespace grace::plan {

template <class Real>
math::HarmonicsTable<Real> harmonics_table(int lmax);  // throws Error above math::max_lmax

}  // namespace grace::plan
