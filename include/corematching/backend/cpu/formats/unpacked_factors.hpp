// SPDX-License-Identifier: Apache-2.0
// The scales and minima of super-blocks of several rows, taken apart at once: with AVX2 those of two rows in
// one register.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "corematching/core/config.hpp"
#include "corematching/core/formats/super_blocks.hpp"

#if COREMATCHING_HAS_AVX2
#include <immintrin.h>
#endif

namespace corematching::cpu {
inline namespace COREMATCHING_CPU_ISA {
namespace detail {

/// The integers of packed_factors, as its of_group says.
template <std::size_t Rows>
class unpacked_factors {
 public:
  explicit unpacked_factors(const std::array<const packed_factors*, Rows>& of_rows) {
#if COREMATCHING_HAS_AVX2
    for (std::size_t r = 0; r < Rows; r += 2)
      _mm256_store_si256(reinterpret_cast<__m256i*>(integers_[r]),
                         unpacked(*of_rows[r], *of_rows[r + 1 < Rows ? r + 1 : r]));
#else
    for (std::size_t r = 0; r < Rows; ++r) unpack(*of_rows[r], integers_[r]);
#endif
  }

  /// Of row `r`: eight.
  const std::int8_t* scales(std::size_t r) const {
    return integers_[r];
  }
  const std::int8_t* minima(std::size_t r) const {
    return integers_[r] + 8;
  }

 private:
  // Both take four groups at a time: of the first four six bits are together; of the others there are four,
  // and two behind the six.
#if COREMATCHING_HAS_AVX2
  static __m256i unpacked(const packed_factors& a, const packed_factors& b) {
    static_assert(sizeof(packed_factors) == 16 && offsetof(packed_factors, of_groups) == 4);
    const auto loaded = [](const packed_factors& of) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(&of));
    };
    const __m256i packed = _mm256_inserti128_si256(_mm256_castsi128_si256(loaded(a)), loaded(b), 1);
    const auto in_order = [&](int first, int second, int third, int last) {
      const __m128i words = _mm_setr_epi32(first, second, third, last);
      return _mm256_shuffle_epi8(packed, _mm256_broadcastsi128_si256(words));
    };
    constexpr int scales = 0x07060504, minima = 0x0b0a0908, rest = 0x0f0e0d0c, zeros = -1;
    constexpr int six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x30303030;
    const __m256i low =
        _mm256_srlv_epi32(in_order(scales, rest, minima, rest), _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4));
    const __m256i high = _mm256_srli_epi32(in_order(zeros, scales, zeros, minima), 2);
    return _mm256_or_si256(
        _mm256_and_si256(low, _mm256_setr_epi32(six, four, six, four, six, four, six, four)),
        _mm256_and_si256(high, _mm256_set1_epi32(two)));
  }
#else
  static void unpack(const packed_factors& of, std::int8_t* to) {
    std::uint32_t packed[3];
    std::memcpy(packed, of.of_groups, sizeof packed);
    const auto [scales, minima, rest] = packed;
    constexpr std::uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x30303030;
    const std::uint32_t integers[4] = {scales & six, (rest & four) | ((scales >> 2) & two), minima & six,
                                       ((rest >> 4) & four) | ((minima >> 2) & two)};
    std::memcpy(to, integers, sizeof integers);
  }
#endif

  alignas(32) std::int8_t integers_[Rows + Rows % 2][16];
};

}  // namespace detail
}  // namespace COREMATCHING_CPU_ISA
}  // namespace corematching::cpu
