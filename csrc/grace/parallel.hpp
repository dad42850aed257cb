// Loops over ranges on several threads; one thread in a build without OpenMP.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace grace {

// Threads for `requested` (0: OMP_NUM_THREADS or all cores of the process).
inline int thread_count(int requested) {
#ifdef _OPENMP
  return requested > 0 ? requested : omp_get_max_threads();
#else
  (void)requested;
  return 1;
#endif
}

inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// Calls body(begin, end) for pieces of at most `piece` of [0, n). The first exception of a body is thrown again here.
template <class Body>
void parallel_for(std::int64_t n, int n_threads, std::int64_t piece, const Body& body) {
  const std::int64_t n_pieces = (n + piece - 1) / piece;
  if (n_pieces <= 1 || n_threads <= 1) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  std::exception_ptr failure;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
#endif
  for (std::int64_t p = 0; p < n_pieces; ++p) {
    try {
      body(p * piece, std::min(n, (p + 1) * piece));
    } catch (...) {
#ifdef _OPENMP
#pragma omp critical(grace_parallel_for)
#endif
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace grace
