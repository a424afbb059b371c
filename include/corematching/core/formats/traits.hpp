// SPDX-License-Identifier: Apache-2.0
// What the library asks of a format in which matrices are stored. Each has a type of its name and, in a
// header of its own in this directory, that type's traits; corematching/core/dtype.hpp lists them all.
#pragma once

#include <cstddef>

#include "corematching/core/index.hpp"

namespace corematching {

/// To be specialised, with
///   const char* name      how options, messages and files call it
///   index block           elements of a block, of which rows are made; 1 where each stands for itself
///   index group           of these, the ones that share a scale: rows are read in whole groups
///   std::size_t bytes     of a block
///   float largest         largest magnitude that is stored as a finite number
///   bool multiplied       whether weights are stored and multiplied in it; otherwise they are only read
/// and, for a format of blocks,
///   static void widen(const std::byte* row, index cols, index first, index count, float* to)
///     the elements first..first + count, whole groups, of a row of `cols`, as binary32
///   static void store(const float* from, index cols, std::byte* to)
///     `cols` finite values, whole blocks, as a row; where `multiplied`
template <class T>
struct format_traits;

/// The common part of the traits of a number.
template <class T>
struct element_traits {
  static constexpr index block = 1, group = 1;
  static constexpr std::size_t bytes = sizeof(T);
  static constexpr bool multiplied = true;
};

/// A format that is another one, T::whole, in two planes (planes.hpp).
template <class T>
concept plane_format = requires {
  typename T::whole;
};

/// A format that is a number: rows are arrays of it.
template <class T>
concept element_format = format_traits<T>::block == 1 && !plane_format<T>;

/// A format whose rows are no arrays of elements, but of blocks or in planes.
template <class T>
concept block_format = !element_format<T>;

}  // namespace corematching
