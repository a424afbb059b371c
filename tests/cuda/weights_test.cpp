// SPDX-License-Identifier: Apache-2.0
// Weights on their way to the device: as they are stored, converted, transposed, in slices, and refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "corematching/backend/cuda/products/weights.cuh"
#include "cuda/device_operations.hpp"
#include "support/error_text.hpp"

namespace corematching {
namespace {

using namespace support;

/// Around tiles of 32 x 32 and blocks of 256 columns.
const std::vector<std::pair<index, index>> file_shapes = {{1, 1},   {2, 3},     {5, 8},    {16, 15},
                                                          {31, 33}, {65, 129},  {64, 256}, {129, 100},
                                                          {3, 513}, {300, 264}, {1, 700},  {33, 1}};
constexpr index whole = index{64} << 20;  // bytes of a slice that takes every shape at once

/// A weight as a file may hold it: at any byte, with any number of bytes between its rows.
struct file_weight {
  std::vector<std::byte> bytes;
  stored_view<host_space> view;

  file_weight(const real_matrix& values, dtype type, index offset, index gap) {
    const index row_bytes = static_cast<index>(bytes_of(type, static_cast<std::size_t>(values.cols))) + gap;
    bytes.assign(static_cast<std::size_t>(offset + values.rows * row_bytes), std::byte{0xff});
    view = {bytes.data() + offset, type, values.rows, values.cols, row_bytes};
    visit_elements(type, [&]<class T>() {
      for (index i = 0; i < values.rows; ++i)
        store_row<T>(values.values.data() + i * values.cols, values.cols,
                     bytes.data() + offset + i * row_bytes);
    });
  }
  /// What a program may do once the weight is placed.
  void overwrite() { bytes.assign(bytes.size(), std::byte{0xff}); }
};

real_matrix transposed(const real_matrix& m) {
  real_matrix result(m.cols, m.rows);
  for (index i = 0; i < m.rows; ++i)
    for (index j = 0; j < m.cols; ++j) result(j, i) = m(i, j);
  return result;
}

class device_weights : public device_operations {
 protected:
  /// Calls body(values, source) for every shape, in any of the places where it may lie.
  template <class Body>
  void for_each_source(dtype type, Body&& body) {
    for (const auto& [rows, cols] : file_shapes)
      for (const auto& [offset, gap] : {std::pair<index, index>{0, 0}, {3, 0}, {0, 5}}) {
        SCOPED_TRACE(testing::Message() << name_of(type) << " [" << rows << ", " << cols << "] at " << offset
                                        << ", gaps of " << gap);
        const real_matrix values = random_weight(rows, cols, type, random, 100);
        file_weight source(values, type, offset, gap);
        body(values, source);
        if (HasFatalFailure()) return;
      }
  }
  void expect_holds(const weight<device_space>& placed, const real_matrix& expected, dtype type) {
    ASSERT_EQ(placed.view.type, type);
    ASSERT_EQ(placed.view.rows, expected.rows);
    ASSERT_EQ(placed.view.cols, expected.cols);
    EXPECT_EQ(placed.view.row_bytes % 16, 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(placed.view.data) % 16, 0u);
    ASSERT_EQ(loaded(be, placed.view).values, expected.values);
  }
};

TEST_F(device_weights, are_placed_as_they_are_stored_with_rows_aligned) {
  for (const dtype type : element_types)
    for_each_source(type, [&](const real_matrix& values, file_weight& source) {
      const auto placed = cuda::detail::placed_weight(be.stream(), be.stream(), {source.view, nullptr});
      source.overwrite();
      expect_holds(placed, values, type);
    });
}

TEST_F(device_weights, are_converted_and_transposed_whole_or_in_slices) {
  for (const dtype from : element_types)
    for (const dtype to : element_types)
      for_each_source(from, [&](const real_matrix& values, file_weight& source) {
        const bool turned = random() % 2 != 0;
        const index slice = any_of<index>({1, 700, whole});
        SCOPED_TRACE(testing::Message()
                     << name_of(to) << (turned ? ", transposed" : "") << ", slices of " << slice);
        const auto converted = cuda::detail::converted_weight(on(), source.view, to, turned, slice);
        source.overwrite();
        expect_holds(converted, rounded(turned ? transposed(values) : values, to), to);
      });
}

TEST_F(device_weights, without_elements_are_placed_and_converted) {
  const stored_view<host_space> no_rows{nullptr, dtype::f16, 0, 32, 64};
  EXPECT_EQ(cuda::detail::placed_weight(be.stream(), be.stream(), {no_rows, nullptr}).view.rows, 0);
  const auto turned = cuda::detail::converted_weight(on(), no_rows, dtype::f32, true);
  EXPECT_EQ(turned.view.rows, 32);
  EXPECT_EQ(turned.view.cols, 0);
}

TEST_F(device_weights, that_the_target_cannot_hold_are_refused_by_the_first_one_of_the_result) {
  real_matrix values = random_matrix(70, 40, random);
  values(2, 7) = 1e30;
  values(3, 5) = -65520;  // rounds to infinity in f16
  values(5, 2) = INFINITY;
  values(69, 1) = NAN;
  const file_weight source(values, dtype::f32, 0, 0);
  for (const index slice : {index{1}, index{1000}, whole}) {
    const auto refusal = [&](dtype to, bool turned) {
      return error_text([&] { cuda::detail::converted_weight(on(), source.view, to, turned, slice); });
    };
    EXPECT_EQ(refusal(dtype::f16, false), "it holds 1e+30, beyond the 65504 that f16 can store");
    EXPECT_EQ(refusal(dtype::f32, false), "it holds inf, which is no finite number");
    for (const dtype to : element_types)
      EXPECT_EQ(refusal(to, true), "it holds nan, which is no finite number");
  }
}

TEST_F(device_weights, are_held_up_to_the_largest_number_of_each_type) {
  real_matrix values(1, 2);
  values.values = {65504, -65504};
  const file_weight small(values, dtype::f32, 0, 0);
  expect_holds(cuda::detail::converted_weight(on(), small.view, dtype::f16, false), values, dtype::f16);
  values.values = {3.4e38, 1};
  values = rounded(values, dtype::f32);
  const file_weight large(values, dtype::f32, 0, 0);
  expect_holds(cuda::detail::converted_weight(on(), large.view, dtype::f32, false), values, dtype::f32);
  EXPECT_EQ(error_text([&] { cuda::detail::converted_weight(on(), large.view, dtype::bf16, false); }),
            "it holds 3.4e+38, beyond the 3.38953e+38 that bf16 can store");
}

TEST_F(device_weights, in_two_planes_are_uploaded_plane_by_plane) {
  for (const auto& [rows, cols] : file_shapes)
    for (const index offset : {0, 3}) {
      SCOPED_TRACE(testing::Message() << "[" << rows << ", " << cols << "] at " << offset);
      const real_matrix values = random_weight(rows, cols, dtype::f16, random, 100);
      std::vector<std::byte> bytes(static_cast<std::size_t>(offset + 2 * rows * cols));
      std::byte* const first = bytes.data() + offset;
      for (index i = 0; i < rows; ++i) {
        const auto row = values.values.begin() + i * cols;
        quantise_row<f16_planes>(std::vector<float>(row, row + cols).data(), cols, first, rows, i);
      }
      const auto placed = cuda::detail::placed_weight(
          be.stream(), be.stream(), {{first, dtype::f16_planes, rows, cols, 2 * cols}, nullptr});
      EXPECT_EQ(placed.view.row_bytes % 32, 0) << "each plane's rows begin at multiples of 16 bytes";
      bytes.assign(bytes.size(), std::byte{0xff});
      expect_holds(placed, values, dtype::f16_planes);
      if (HasFatalFailure()) return;
    }
}

TEST_F(device_weights, in_two_planes_are_made_on_the_device) {
  for (const dtype from : element_types)
    for_each_source(from, [&](const real_matrix& values, file_weight& source) {
      for (const bool turned : {false, true}) {
        if (!cases.takes_next(3)) continue;
        const auto made = cuda::detail::converted_weight(on(), source.view, dtype::f16_planes, turned, 500);
        const real_matrix expected = rounded(turned ? transposed(values) : values, dtype::f16);
        expect_holds(made, expected, dtype::f16_planes);
      }
    });
}

TEST_F(device_weights, in_block_formats_are_refused_on_either_side) {
  std::byte blocks[64]{};
  const stored_view<host_space> quantised{blocks, dtype::q4_0, 1, 32, 18},
      plain{blocks, dtype::f16, 1, 32, 64};
  const std::string text = "the CUDA backend stores weights as f32, f16, bf16 or f16_planes, not as ";
  EXPECT_EQ(error_text([&] {
              cuda::detail::placed_weight(be.stream(), be.stream(), {quantised, nullptr});
            }),
            text + "q4_0");
  EXPECT_EQ(error_text([&] { cuda::detail::converted_weight(on(), quantised, dtype::f16, false); }),
            "the CUDA backend converts weights that are f32, f16 or bf16, not q4_0");
  EXPECT_EQ(error_text([&] { cuda::detail::converted_weight(on(), plain, dtype::q8_0, false); }),
            text + "q8_0");
}

}  // namespace
}  // namespace corematching
