// SPDX-License-Identifier: Apache-2.0
// Reading weights as fast as memory gives them. Kernels of decode walk several rows at once, because one
// stream of reads leaves half of the bandwidth unused, and ask ahead of time for what they read next. Within
// a row the processor's own prefetcher would do; it cannot know which *selected* row follows, so requests
// cross from the end of a row to the beginning of the next one of the selection.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "corematching/backend/cpu/restriction.hpp"
#include "corematching/backend/cpu/simd/f32x8.hpp"
#include "corematching/core/dtype.hpp"
#include "corematching/core/quantised.hpp"
#include "corematching/core/view.hpp"

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {

/// A row and the one that its stream goes on with.
struct row_stream {
  const std::byte* row;
  const std::byte* next;
};

template <std::size_t Rows>
using row_streams = std::array<row_stream, Rows>;

/// Asks for `Lines` cache lines of every stream, those that begin `ahead` bytes behind the beginning of its
/// row of `bytes`.
template <index Lines, std::size_t Rows>
void prefetch_step(const row_streams<Rows>& rows, index ahead, index bytes) {
  if (ahead < bytes) {
    for (const row_stream& stream : rows)
      for (index line = 0; line < Lines; ++line) prefetch(stream.row + ahead + 64 * line);
  } else {
    for (const row_stream& stream : rows)
      for (index line = 0; line < Lines; ++line) prefetch(stream.next + (ahead - bytes) + 64 * line);
  }
}

/// The rows that `selection` has at `places`, each followed by the one at the next place, of which `last` is
/// the end.
template <std::size_t Rows>
row_streams<Rows> streams_at(const stored_view<>& weight, const neuron_selection<host_space>& selection,
                             const std::array<index, Rows>& places, index last) {
  const auto row = [&](index place) {
    return weight.data + detail::row_of(selection, std::min(place, last - 1)) * weight.row_bytes;
  };
  row_streams<Rows> streams;
  for (std::size_t r = 0; r < Rows; ++r) streams[r] = {row(places[r]), row(places[r] + 1)};
  return streams;
}

/// Which planes of a row take part.
enum class planes : std::uint8_t { both, upper, lower };

/// The same of weights in two planes.
template <std::size_t Rows>
struct plane_streams {
  row_streams<Rows> upper, lower;
};

template <plane_format Q, std::size_t Rows>
plane_streams<Rows> plane_streams_at(const stored_view<>& weight,
                                     const neuron_selection<host_space>& selection,
                                     const std::array<index, Rows>& places, index last) {
  const auto layout = plane_layout<Q>::of(weight.rows, weight.cols);
  const auto row = [&](index place) { return detail::row_of(selection, std::min(place, last - 1)); };
  plane_streams<Rows> streams;
  for (std::size_t r = 0; r < Rows; ++r) {
    const index here = row(places[r]), next = row(places[r] + 1);
    streams.upper[r] = {weight.data + layout.upper_at(here), weight.data + layout.upper_at(next)};
    streams.lower[r] = {weight.data + layout.lower_at(here), weight.data + layout.lower_at(next)};
  }
  return streams;
}

template <std::size_t Rows>
plane_streams<2 * Rows> joined(const plane_streams<Rows>& a, const plane_streams<Rows>& b) {
  plane_streams<2 * Rows> both;
  std::ranges::copy(b.upper, std::ranges::copy(a.upper, both.upper.begin()).out);
  std::ranges::copy(b.lower, std::ranges::copy(a.lower, both.lower.begin()).out);
  return both;
}

/// Of weights whose neighbours share their scales, the rows themselves.
template <neuron_format Q, std::size_t Rows>
std::array<quantised_row<Q>, Rows> neuron_rows_at(const stored_view<>& weight,
                                                  const neuron_selection<host_space>& selection,
                                                  const std::array<index, Rows>& places) {
  const auto made = [&]<std::size_t... R>(std::index_sequence<R...>) {
    return std::array{blocks_of_row<Q>(weight, detail::row_of(selection, places[R]))...};
  };
  return made(std::make_index_sequence<Rows>());
}

/// The streams of rows that are stored as `T`.
template <class T, std::size_t Rows>
auto streams_of(const stored_view<>& weight, const neuron_selection<host_space>& selection,
                const std::array<index, Rows>& places, index last) {
  if constexpr (plane_format<T>)
    return plane_streams_at<T>(weight, selection, places, last);
  else if constexpr (neuron_format<T>)
    return neuron_rows_at<T>(weight, selection, places);
  else
    return streams_at(weight, selection, places, last);
}

/// One step of a walk over places, `of` of which are the whole: several tokens walk side by side, step by
/// step, so that what one of them has read the others find in the cache.
struct walk_step {
  index number = 0;
  index of = 1;

  index begin(index count) const { return count * number / of; }
  index end(index count) const { return count * (number + 1) / of; }
  bool is_last() const { return number + 1 == of; }
};

/// Calls body(places) with `Rows` places of first..last at a time, then with single ones for what is left.
/// Places that come together lie far apart, each in a part of its own: the parts are streams that run on from
/// row to row, which the processor's prefetchers follow, where neighbouring rows would make new streams of
/// every few. Steps change nothing of which places come together, nor of their order.
template <std::size_t Rows, class Body>
void for_places(index first, index last, walk_step step, Body&& body) {
  const index part = (last - first) / index{Rows};
  for (index i = step.begin(part); i < step.end(part); ++i) {
    std::array<index, Rows> places;
    for (std::size_t r = 0; r < Rows; ++r) places[r] = first + static_cast<index>(r) * part + i;
    body(places);
  }
  if (!step.is_last()) return;
  for (index place = first + part * index{Rows}; place < last; ++place) body(std::array<index, 1>{place});
}
template <std::size_t Rows, class Body>
void for_places(index first, index last, Body&& body) {
  for_places<Rows>(first, last, walk_step(), body);
}

}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu
