// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/view.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <numeric>
#include <type_traits>

namespace corematching {
namespace {

template <template <class, class> class View>
consteval bool const_is_gained_and_never_lost() {
  using host = View<float, host_space>;
  using const_host = View<const float, host_space>;
  return std::is_convertible_v<host, const_host> && !std::is_convertible_v<const_host, host>;
}

template <template <class, class> class View>
consteval bool spaces_do_not_mix() {
  using host = View<float, host_space>;
  using device = View<float, device_space>;
  using const_host = View<const float, host_space>;
  using const_device = View<const float, device_space>;
  return !std::is_convertible_v<host, device> && !std::is_convertible_v<device, host> &&
         !std::is_convertible_v<host, const_device> && !std::is_convertible_v<device, const_host> &&
         !std::is_constructible_v<device, host> && !std::is_constructible_v<host, device>;
}

template <class View>
concept readable_here = requires(View view) {
  view[0];
};

TEST(view, gains_const_and_never_loses_it) {
  static_assert(const_is_gained_and_never_lost<vector_view>());
  static_assert(const_is_gained_and_never_lost<matrix_view>());
}

TEST(view, of_the_host_is_no_view_of_the_device) {
  static_assert(spaces_do_not_mix<vector_view>());
  static_assert(spaces_do_not_mix<matrix_view>());
  static_assert(!std::is_convertible_v<stored_view<host_space>, stored_view<device_space>>);
  static_assert(!std::is_convertible_v<index_view<host_space>, index_view<device_space>>);
}

TEST(view, of_the_device_cannot_be_read_on_the_host) {
  static_assert(readable_here<vector_view<float, host_space>>);
  static_assert(!readable_here<vector_view<float, device_space>>);
}

TEST(view, is_trivially_copyable_so_that_kernels_take_it_by_value) {
  static_assert(std::is_trivially_copyable_v<vector_view<float>>);
  static_assert(std::is_trivially_copyable_v<matrix_view<const float, device_space>>);
  static_assert(std::is_trivially_copyable_v<stored_view<device_space>>);
}

TEST(matrix_view, rows_lie_a_stride_apart) {
  std::array<int, 20> values;
  std::iota(values.begin(), values.end(), 0);
  const matrix_view<int> m{values.data(), 4, 3, 5};
  EXPECT_EQ(m.row(2)[1], 11);
  EXPECT_EQ(m.row(2).size, 3);
  EXPECT_EQ(m.middle_rows(1, 2).row(1)[0], 10);
  EXPECT_EQ(m.middle_rows(1, 2).rows, 2);
  EXPECT_EQ(m.top_rows(1).rows, 1);
  EXPECT_EQ(m.left_cols(2).row(3)[1], 16);
  EXPECT_EQ(m.left_cols(2).row(3).size, 2);
}

TEST(matrix_view, may_have_no_rows_anywhere_up_to_its_end) {
  std::array<int, 6> values{};
  const matrix_view<int> m{values.data(), 2, 3, 3};
  EXPECT_EQ(m.middle_rows(2, 0).rows, 0);
}

TEST(vector_view, is_a_range_of_its_elements) {
  std::array<std::int32_t, 3> values{4, 5, 6};
  const vector_view<std::int32_t> v{values.data(), 3};
  EXPECT_EQ(std::accumulate(v.begin(), v.end(), 0), 15);
  EXPECT_FALSE(v.empty());
  EXPECT_TRUE(vector_view<std::int32_t>{}.empty());
}

TEST(stored_view, middle_rows_move_by_whole_rows_of_bytes) {
  std::array<std::uint16_t, 12> stored{};
  for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = to_bf16(static_cast<float>(i)).bits;
  const stored_view<> w{reinterpret_cast<const std::byte*>(stored.data()), dtype::bf16, 3, 3, 8};
  EXPECT_EQ(to_float(typed_row<bf16>(w.middle_rows(1, 2), 1)[2]), 10.0f);
  EXPECT_EQ(w.middle_rows(1, 2).rows, 2);
}

}  // namespace
}  // namespace corematching
