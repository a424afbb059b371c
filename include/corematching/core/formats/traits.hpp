// SPDX-License-Identifier: Apache-2.0
// What the library asks of a format in which matrices are stored. Each has a type of its name and, in a
// header of its own in this directory, that type's traits; corematching/core/dtype.hpp lists them all.
#pragma once

#include <cstddef>

#include "corematching/core/index.hpp"

namespace corematching {

/// To be specialised, with
///   const char* name      how options, messages and files call it
///   index block           elements of a block, of which rows are made; 1 where a row is an array of T
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

/// A format whose rows are made of blocks and are no arrays of elements.
template <class T>
concept block_format = format_traits<T>::block >
1;

/// A format that is a number.
template <class T>
concept element_format = format_traits<T>::block == 1;

}  // namespace corematching
