// SPDX-License-Identifier: GPL-2.0-or-later

#include "ghost_exchange.h"

#include <cstring>

#include "comm.h"

void GhostExchange::start(void *rows, std::size_t bytes, bool single) {
  rows_ = static_cast<char *>(rows);
  bytes_ = bytes;
  slots_ = static_cast<int>((bytes + sizeof(double) - 1) / sizeof(double));
  single_ = single;
}

void GhostExchange::send(void *rows, std::size_t bytes) {
  start(rows, bytes, false);
  lammps_->comm->forward_comm(pair_, slots_);
}

void GhostExchange::add(void *rows, std::size_t bytes, bool single) {
  start(rows, bytes, single);
  lammps_->comm->reverse_comm(pair_, slots_);
}

void GhostExchange::load(double *slot, int atom) const {
  slot[slots_ - 1] = 0.0;  // an odd number of floats leaves half of it untouched
  std::memcpy(slot, rows_ + atom * bytes_, bytes_);
}

int GhostExchange::pack_forward(int n, const int *atoms, double *buffer) const {
  for (int k = 0; k < n; ++k) load(buffer + static_cast<std::size_t>(k) * slots_, atoms[k]);
  return n * slots_;
}

void GhostExchange::unpack_forward(int n, int first, const double *buffer) const {
  for (int k = 0; k < n; ++k)
    std::memcpy(rows_ + (first + k) * bytes_, buffer + static_cast<std::size_t>(k) * slots_, bytes_);
}

int GhostExchange::pack_reverse(int n, int first, double *buffer) const {
  for (int k = 0; k < n; ++k) load(buffer + static_cast<std::size_t>(k) * slots_, first + k);
  return n * slots_;
}

void GhostExchange::unpack_reverse(int n, const int *atoms, const double *buffer) const {
  const auto add_rows = [&](auto number) {
    using Number = decltype(number);
    const std::size_t width = bytes_ / sizeof(Number);
    for (int k = 0; k < n; ++k) {
      Number *row = reinterpret_cast<Number *>(rows_) + atoms[k] * width;
      const char *slot = reinterpret_cast<const char *>(buffer + static_cast<std::size_t>(k) * slots_);
      for (std::size_t w = 0; w < width; ++w) {
        Number value;
        std::memcpy(&value, slot + w * sizeof(Number), sizeof(Number));
        row[w] += value;
      }
    }
  };
  if (single_) {
    add_rows(float{});
  } else {
    add_rows(double{});
  }
}
