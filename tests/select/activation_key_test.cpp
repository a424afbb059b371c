// SPDX-License-Identifier: Apache-2.0
#include "corematching/select/activation_key.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "corematching/select/key_lanes.hpp"
#include "select/made_up_activations.hpp"

namespace corematching::select {
namespace {

/// Every binary16 and bfloat16; of binary32 the special values and random patterns.
template <class T>
std::vector<T> many_values() {
  std::vector<T> values;
  if constexpr (sizeof(T) == 2) {
    for (unsigned bits = 0; bits <= 0xffff; ++bits) values.push_back(T{static_cast<std::uint16_t>(bits)});
  } else {
    using limits = std::numeric_limits<float>;
    values = {0.0f,
              -0.0f,
              limits::denorm_min(),
              -limits::denorm_min(),
              limits::min(),
              limits::max(),
              limits::lowest(),
              limits::infinity(),
              -limits::infinity(),
              std::nanf("")};
    std::mt19937 random(3);
    for (int i = 0; i < 20000; ++i)
      values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return values;
}

template <class T>
class activation_key_of : public testing::Test {};
using storage_types = testing::Types<float, f16, bf16>;
TYPED_TEST_SUITE(activation_key_of, storage_types);

TYPED_TEST(activation_key_of, is_positive_exactly_where_the_number_is) {
  for (const TypeParam a : many_values<TypeParam>()) {
    if (std::isnan(to_float(a))) continue;
    ASSERT_EQ(activation_key(a) > 0, to_float(a) > 0.0f) << to_float(a);
  }
}

TYPED_TEST(activation_key_of, orders_positive_numbers_as_they_are_ordered) {
  std::vector<TypeParam> positive;
  for (const TypeParam a : many_values<TypeParam>()) {
    if (to_float(a) > 0.0f) positive.push_back(a);
  }
  std::mt19937 random(4);
  for (int i = 0; i < 50000; ++i) {
    const TypeParam a = positive[test::below(std::ssize(positive), random)],
                    b = positive[test::below(std::ssize(positive), random)];
    ASSERT_EQ(activation_key(a) < activation_key(b), to_float(a) < to_float(b))
        << to_float(a) << ' ' << to_float(b);
  }
}

TYPED_TEST(activation_key_of, tells_infinity_and_nan_from_finite_numbers) {
  for (const TypeParam a : many_values<TypeParam>()) {
    ASSERT_EQ(magnitude_key(a) < infinite_key<TypeParam>, std::isfinite(to_float(a))) << to_float(a);
    ASSERT_EQ(magnitude_key(a) == infinite_key<TypeParam>, std::isinf(to_float(a))) << to_float(a);
  }
}

#if COREMATCHING_HAS_SIMD
TYPED_TEST(activation_key_of, is_the_same_in_vector_registers) {
  const std::vector<TypeParam> values = many_values<TypeParam>();
  for (std::size_t i = 0; i + detail::key_lanes::count <= values.size(); i += 5) {
    std::array<std::int32_t, detail::key_lanes::count> keys;
    detail::key_lanes::load(values.data() + i).store(keys.data());
    for (std::size_t lane = 0; lane < keys.size(); ++lane)
      ASSERT_EQ(keys[lane], activation_key(values[i + lane]));
  }
}
#endif

}  // namespace
}  // namespace corematching::select
