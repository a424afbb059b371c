// SPDX-License-Identifier: Apache-2.0
// Rows moved, converted and cleared in device memory, for every unit that copies are made in and for more
// rows than a block holds at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/backend/cuda/rows.cuh"
#include "cuda/device_memory.hpp"

namespace corematching {
namespace {

using bytes = std::vector<std::byte>;
using integers = std::vector<std::int32_t>;
using support::on_device;

constexpr dtype element_types[] = {dtype::f32, dtype::f16, dtype::bf16};

/// Stored rows on the host, `offset` elements into their memory and `padding` elements apart.
struct stored_rows {
  dtype type;
  index rows, cols, offset, row_bytes;
  bytes memory;

  stored_rows(dtype stored, index row_count, index col_count, index first, index padding)
      : type(stored),
        rows(row_count),
        cols(col_count),
        offset(size_of(first)),
        row_bytes(size_of(col_count + padding)),
        memory(static_cast<std::size_t>(offset + rows * row_bytes), std::byte{0xa5}) {}

  index size_of(index elements) const {
    return static_cast<index>(bytes_of(type, static_cast<std::size_t>(elements)));
  }
  mutable_stored_view<device_space> on(std::byte* device) const {
    return {device + offset, type, rows, cols, row_bytes};
  }
  std::byte* row(index i) { return memory.data() + offset + i * row_bytes; }
  const std::byte* row(index i) const { return memory.data() + offset + i * row_bytes; }

  /// Finite numbers that every type holds.
  void fill(std::mt19937& random) {
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < cols; ++j) {
        const auto value = static_cast<float>(static_cast<int>(random() % 201) - 100) / 8;
        visit_elements(type, [&]<class T>() {
          T stored{};
          if constexpr (std::is_same_v<T, float>) stored = value;
          if constexpr (std::is_same_v<T, f16>) stored = to_f16(value);
          if constexpr (std::is_same_v<T, bf16>) stored = to_bf16(value);
          std::memcpy(row(i) + size_of(j), &stored, sizeof(T));
        });
      }
  }
  float at(index i, index j) const {
    return visit_elements(type, [&]<class T>() {
      T stored{};
      std::memcpy(&stored, row(i) + size_of(j), sizeof(T));
      return to_float(stored);
    });
  }
};

/// Ascending rows below `rows`: each with the probability `share`.
integers random_rows(index rows, double share, std::mt19937& random) {
  integers result;
  for (std::int32_t i = 0; i < rows; ++i)
    if (static_cast<double>(random() % 1000) < share * 1000) result.push_back(i);
  return result;
}

class device_rows : public support::device_test {
 protected:
  std::mt19937 random{41};

  template <class Body>
  void for_each_layout(index rows, Body&& body) {
    for (const dtype type : element_types)
      for (const index cols : {1, 2, 8, 17, 64, 129, 520, 2064})
        for (const auto& [offset, padding] : {std::pair<index, index>{0, 0}, {8, 16}, {2, 6}, {1, 3}}) {
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", " << cols << " columns, " << offset << " + " << padding);
          stored_rows x(type, rows, cols, offset, padding);
          x.fill(random);
          body(x);
          if (HasFatalFailure()) return;
        }
  }
};

TEST_F(device_rows, are_gathered_elsewhere) {
  for_each_layout(23, [&](const stored_rows& x) {
    for (const double share : {0.0, 0.5, 1.0}) {
      const integers rows = random_rows(x.rows, share, random);
      stored_rows y(x.type, std::ssize(rows), x.cols, 1, 2);
      on_device<std::byte> placed_x(on.stream, x.memory), placed_y(on.stream, y.memory);
      on_device<std::int32_t> listed(on.stream, rows);
      cuda::detail::gather_rows(on, y.on(placed_y.data()), x.on(placed_x.data()), listed.view());
      for (index i = 0; i < y.rows; ++i)
        std::memcpy(y.row(i), x.row(rows[static_cast<std::size_t>(i)]),
                    static_cast<std::size_t>(x.size_of(x.cols)));
      ASSERT_EQ(placed_y.values(), y.memory);
      ASSERT_EQ(placed_x.values(), x.memory);
    }
  });
}

TEST_F(device_rows, are_gathered_in_place) {
  for_each_layout(300, [&](stored_rows x) {
    if (x.cols > 200) return;  // 300 rows are what matters here
    for (const double share : {0.05, 0.6, 1.0}) {
      const integers rows = random_rows(x.rows, share, random);
      on_device<std::byte> placed(on.stream, x.memory);
      on_device<std::int32_t> listed(on.stream, rows);
      const auto all = x.on(placed.data());
      cuda::detail::gather_rows(on, all.middle_rows(0, std::ssize(rows)), all, listed.view());
      for (index i = 0; i < std::ssize(rows); ++i)
        std::memmove(x.row(i), x.row(rows[static_cast<std::size_t>(i)]),
                     static_cast<std::size_t>(x.size_of(x.cols)));
      ASSERT_EQ(placed.values(), x.memory);
    }
  });
}

TEST_F(device_rows, are_refused_where_they_are_gathered_into_a_part_of_their_own) {
  stored_rows x(dtype::f32, 4, 8, 0, 0);
  on_device<std::byte> placed(on.stream, x.memory);
  on_device<std::int32_t> listed(on.stream, {2, 3});
  const auto all = x.on(placed.data());
  EXPECT_THROW(cuda::detail::gather_rows(on, all.middle_rows(1, 2), all, listed.view()), error);
}

TEST_F(device_rows, are_cleared_where_they_are_listed) {
  for_each_layout(23, [&](stored_rows x) {
    const integers rows = random_rows(x.rows, 0.4, random);
    on_device<std::byte> placed(on.stream, x.memory);
    on_device<std::int32_t> listed(on.stream, rows);
    cuda::detail::zero_rows(on, x.on(placed.data()), listed.view());
    for (const std::int32_t row : rows)
      std::memset(x.row(row), 0, static_cast<std::size_t>(x.size_of(x.cols)));
    ASSERT_EQ(placed.values(), x.memory);
  });
}

TEST_F(device_rows, are_widened_and_narrowed_exactly_where_the_type_holds_them) {
  for_each_layout(5, [&](const stored_rows& x) {
    for (const index padding : {0, 3, 4}) {
      const integers ids = {4, 0, 0, 3, 1, 2, 2};
      const index stride = x.cols + padding;
      on_device<std::byte> placed_x(on.stream, x.memory);
      on_device<std::int32_t> placed_ids(on.stream, ids);
      on_device<float> y(on.stream, std::vector<float>(static_cast<std::size_t>(7 * stride), -1.0f));
      const matrix_view<float, device_space> view{y.data(), 7, x.cols, stride};
      cuda::detail::embed(on, view, x.on(placed_x.data()), placed_ids.view());
      const std::vector<float> looked_up = y.values();
      cuda::detail::load_rows(on, view.top_rows(5), x.on(placed_x.data()));
      const std::vector<float> loaded = y.values();
      for (index i = 0; i < 7; ++i)
        for (index j = 0; j < stride; ++j) {
          const auto place = static_cast<std::size_t>(i * stride + j);
          const bool inside = j < x.cols;
          ASSERT_EQ(looked_up[place], inside ? x.at(ids[static_cast<std::size_t>(i)], j) : -1.0f);
          if (i >= 5) continue;
          ASSERT_EQ(loaded[place], inside ? x.at(i, j) : -1.0f);
        }

      stored_rows emptied = x;
      std::fill(emptied.memory.begin(), emptied.memory.end(), std::byte{0xa5});
      on_device<std::byte> back(on.stream, emptied.memory);
      cuda::detail::store_rows(on, x.on(back.data()), view.top_rows(5));
      ASSERT_EQ(back.values(), x.memory);
    }
  });
}

TEST_F(device_rows, of_two_matrices_are_stored_as_those_of_each_alone) {
  for (const dtype type : {dtype::f32, dtype::f16})
    for (const index cols : {1, 24, 300})
      for (const int offset : {0, 2}) {  // elements of the second matrix in its memory
        std::vector<float> x(static_cast<std::size_t>(3 * (cols + offset))), other = x;
        for (std::size_t i = 0; i < x.size(); ++i) other[i] = 1000 - (x[i] = static_cast<float>(i));
        on_device<float> placed_x(on.stream, x), placed_other(on.stream, other);
        const auto row_bytes = static_cast<index>(stored_bytes(type, 1, cols));
        const auto size = static_cast<std::size_t>(3 * row_bytes + 8);
        const auto store = [&](bool together) {
          on_device<std::byte> one(on.stream, std::vector<std::byte>(size)),
              two(on.stream, std::vector<std::byte>(size));
          const mutable_stored_view<device_space> first{one.data(), type, 3, cols, row_bytes},
              second{two.data() + offset * 4, type, 3, cols, row_bytes};
          const matrix_view<const float, device_space> a{placed_x.data(), 3, cols, cols},
              b{placed_other.data(), 3, cols, cols + offset};
          if (together) {
            cuda::detail::store_rows(on, first, a, {}, second, b);
          } else {
            cuda::detail::store_rows(on, first, a);
            cuda::detail::store_rows(on, second, b);
          }
          return std::pair(one.values(), two.values());
        };
        EXPECT_EQ(store(true), store(false)) << name_of(type) << ", " << cols << " columns";
      }
}

TEST_F(device_rows, are_rounded_to_the_nearest_ties_to_even) {
  std::vector<float> values;
  for (int i = 0; i < 4096; ++i) values.push_back(std::ldexp(1.0f + static_cast<float>(i) / 4096, i % 9 - 4));
  on_device<float> x(on.stream, values);
  for (const dtype type : {dtype::f16, dtype::bf16}) {
    stored_rows y(type, 1, 4096, 0, 0);
    on_device<std::byte> placed(on.stream, y.memory);
    cuda::detail::store_rows(on, y.on(placed.data()), {x.data(), 1, 4096, 4096});
    y.memory = placed.values();
    for (index j = 0; j < 4096; ++j) {
      const float value = values[static_cast<std::size_t>(j)];
      ASSERT_EQ(y.at(0, j), type == dtype::f16 ? to_float(to_f16(value)) : to_float(to_bf16(value)));
    }
  }
}

}  // namespace
}  // namespace corematching
