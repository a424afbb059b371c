// SPDX-License-Identifier: Apache-2.0
#include "corematching/core/dtype.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <type_traits>

#include "corematching/core/config.hpp"
#include "support/error_text.hpp"

#if COREMATCHING_HAS_AVX2
#include <immintrin.h>
#endif

namespace corematching {
namespace {

/// How a 16-bit type splits its bits. Both are read by the definition of IEEE 754, without bit tricks.
struct format {
  int mantissa_bits;
  int bias;
};
constexpr format binary16{10, 15};
constexpr format brain16{7, 127};

double defined_value(std::uint16_t bits, format f) {
  const int mantissa = bits & ((1 << f.mantissa_bits) - 1);
  const int exponent = (bits & 0x7fff) >> f.mantissa_bits;
  const int all_ones = 0x7fff >> f.mantissa_bits;
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == all_ones) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << f.mantissa_bits), exponent - f.bias - f.mantissa_bits);
}

/// The largest finite magnitude's successor, were the exponent unlimited: half a step below it and above
/// rounds to infinity.
double overflow_bound(format f) {
  const double step = std::ldexp(1.0, f.bias - f.mantissa_bits);
  return std::ldexp(1.0, f.bias + 1) - step / 2;
}

/// Rounding by looking at both neighbours, ties to the even pattern.
std::uint16_t nearest_pattern(double value, format f) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double magnitude = std::fabs(value);
  const int infinity = 0x7fff >> f.mantissa_bits << f.mantissa_bits;
  if (magnitude >= overflow_bound(f)) return static_cast<std::uint16_t>(sign | infinity);
  int below = 0;
  for (int bit = 0x4000; bit > 0; bit >>= 1)
    if (below + bit < infinity && defined_value(static_cast<std::uint16_t>(below + bit), f) <= magnitude)
      below += bit;
  if (below + 1 == infinity) return static_cast<std::uint16_t>(sign | below);
  const double down = magnitude - defined_value(static_cast<std::uint16_t>(below), f);
  const double up = defined_value(static_cast<std::uint16_t>(below + 1), f) - magnitude;
  const bool to_upper = up < down || (up == down && below % 2 == 1);
  return static_cast<std::uint16_t>(sign | (below + (to_upper ? 1 : 0)));
}

template <class T>
struct traits;
template <>
struct traits<f16> {
  static constexpr format layout = binary16;
  static f16 convert(float value) { return to_f16(value); }
};
template <>
struct traits<bf16> {
  static constexpr format layout = brain16;
  static bf16 convert(float value) { return to_bf16(value); }
};

template <class T>
class sixteen_bits : public testing::Test {
 protected:
  static constexpr format layout = traits<T>::layout;
  static std::uint16_t narrowed(float value) { return traits<T>::convert(value).bits; }
};
using sixteen_bit_types = testing::Types<f16, bf16>;
TYPED_TEST_SUITE(sixteen_bits, sixteen_bit_types);

TYPED_TEST(sixteen_bits, every_pattern_widens_to_its_value) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double expected = defined_value(static_cast<std::uint16_t>(bits), this->layout);
    const float value = to_float(TypeParam{static_cast<std::uint16_t>(bits)});
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << bits;
    }
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << bits;
  }
}

TYPED_TEST(sixteen_bits, narrowing_undoes_widening) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const TypeParam stored{static_cast<std::uint16_t>(bits)};
    const float value = to_float(stored);
    const std::uint16_t again = this->narrowed(value);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(to_float(TypeParam{again}))) << bits;
    } else {
      ASSERT_EQ(again, stored.bits);
    }
  }
}

TYPED_TEST(sixteen_bits, rounds_to_the_nearest_and_ties_to_the_even_pattern) {
  for (std::uint32_t bits = 0; bits < 0x7fff; ++bits) {
    const double low = defined_value(static_cast<std::uint16_t>(bits), this->layout);
    const double high = defined_value(static_cast<std::uint16_t>(bits + 1), this->layout);
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const auto middle = static_cast<float>((low + high) / 2);
    for (const float value : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, INFINITY)})
      for (const float signed_value : {value, -value})
        ASSERT_EQ(this->narrowed(signed_value), nearest_pattern(signed_value, this->layout)) << signed_value;
  }
}

TYPED_TEST(sixteen_bits, rounds_any_binary32_to_the_nearest) {
  std::mt19937 random(1);
  for (int round = 0; round < 200000; ++round) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(to_float(TypeParam{this->narrowed(value)})));
    } else {
      ASSERT_EQ(this->narrowed(value), nearest_pattern(value, this->layout)) << value;
    }
  }
}

TYPED_TEST(sixteen_bits, infinities_stay_and_what_is_too_large_becomes_infinite) {
  const std::uint16_t infinity = nearest_pattern(INFINITY, this->layout);
  EXPECT_EQ(this->narrowed(INFINITY), infinity);
  EXPECT_EQ(this->narrowed(-INFINITY), infinity | 0x8000);
  EXPECT_EQ(this->narrowed(std::numeric_limits<float>::max()), infinity);
  const auto bound = static_cast<float>(overflow_bound(this->layout));
  EXPECT_EQ(this->narrowed(bound), infinity);
  EXPECT_EQ(this->narrowed(std::nextafter(bound, 0.0f)), infinity - 1);
}

TYPED_TEST(sixteen_bits, nan_of_either_sign_and_any_payload_stays_nan) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu})
    EXPECT_TRUE(std::isnan(to_float(TypeParam{this->narrowed(std::bit_cast<float>(bits))}))) << bits;
}

#if COREMATCHING_HAS_AVX2
TEST(binary16, agrees_with_the_instruction_in_both_directions) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float widened = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
    const float value = to_float(f16{static_cast<std::uint16_t>(bits)});
    if (std::isnan(widened)) {
      ASSERT_TRUE(std::isnan(value));
    } else {
      ASSERT_EQ(value, widened);
    }
  }
  std::mt19937 random(2);
  for (int round = 0; round < 200000; ++round) {
    // Exponents around binary16's range, where all its cases lie.
    const auto exponent = static_cast<int>(random() % 50) - 30;
    const float value = std::ldexp(static_cast<float>(random()) * 0x1p-32f, exponent);
    const int narrowed =
        _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT)) & 0xffff;
    ASSERT_EQ(to_f16(value).bits, narrowed) << value;
  }
}
#endif

TEST(dtype, conversions_are_constant_expressions) {
  static_assert(to_f16(1.0f).bits == 0x3c00);
  static_assert(to_f16(0x1p-24f).bits == 1);
  static_assert(to_float(f16{1}) == 0x1p-24f);
  static_assert(to_bf16(-2.0f).bits == 0xc000);
  static_assert(to_float(bf16{0x3f80}) == 1.0f);
}

TEST(dtype, storage_types_have_the_size_that_bytes_of_names) {
  static_assert(sizeof(float) == bytes_of(dtype::f32, 1));
  static_assert(sizeof(f16) == bytes_of(dtype::f16, 1));
  static_assert(sizeof(bf16) == bytes_of(dtype::bf16, 1));
  static_assert(std::is_trivially_copyable_v<f16> && std::is_trivially_copyable_v<bf16>);
}

TEST(dtype, is_visited_as_its_own_type) {
  for (std::size_t i = 0; i < formats::size; ++i) {
    const auto type = static_cast<dtype>(i);
    EXPECT_EQ(visit_dtype(type, []<class T>() { return dtype_of<T>; }), type) << name_of(type);
  }
  static_assert(dtype_of<float> == dtype::f32 && dtype_of<q4_0> == dtype::q4_0);
}

TEST(dtype, has_a_name_of_its_own) {
  EXPECT_STREQ(name_of(dtype::bf16), "bf16");
  EXPECT_STREQ(name_of(dtype::q8_0), "q8_0");
  for (std::size_t i = 0; i < formats::size; ++i) {
    const auto type = static_cast<dtype>(i);
    EXPECT_EQ(dtype_named(name_of(type)), type);
  }
  EXPECT_EQ(dtype_named("q5_0"), std::nullopt);
  EXPECT_STREQ(name_of(static_cast<dtype>(formats::size)), "?");
}

TEST(dtype, is_an_element_or_made_of_blocks) {
  EXPECT_EQ(element_types, (std::array{dtype::f32, dtype::f16, dtype::bf16}));
  EXPECT_EQ(block_of(dtype::bf16), 1);
  EXPECT_EQ(block_of(dtype::q4_0), 32);
  const auto text = support::error_text([] { visit_elements(dtype::q8_0, []<class T>() {}); });
  support::expect_parts(text, "q8_0", "blocks of weights where elements are needed");
}

TEST(dtype, has_a_largest_number) {
  EXPECT_EQ(largest_of(dtype::f32), std::numeric_limits<float>::max());
  EXPECT_EQ(largest_of(dtype::f16), to_float(f16{0x7bff}));
  EXPECT_EQ(largest_of(dtype::bf16), to_float(bf16{0x7f7f}));
  EXPECT_EQ(largest_of(dtype::q8_0), 127 * to_float(f16{0x7bff}));
  EXPECT_EQ(largest_of(dtype::q4_0), 8 * to_float(f16{0x7bff}));
}

TEST(dtype, outside_the_enumeration_is_an_error) {
  const auto text = support::error_text(
      [] { visit_dtype(static_cast<dtype>(formats::size), []<class T>() { return dtype_of<T>; }); });
  support::expect_parts(text, "unknown dtype");
}

}  // namespace
}  // namespace corematching
