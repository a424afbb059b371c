// SPDX-License-Identifier: Apache-2.0
// The types that tensors of a GGUF file have: their numbers there, their names, and how many bytes a block of
// how many elements takes. Types that nothing here computes with are in the list too, so that they are
// refused by name.
//
// Source: https://github.com/ggml-org/ggml (docs/gguf.md, ggml-common.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

namespace corematching::io {

enum class ggml_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  bf16 = 30
};

struct ggml_type_facts {
  ggml_type type;
  std::string_view name;
  std::uint32_t block;  // elements
  std::uint32_t bytes;  // of a block
};

namespace detail {

inline constexpr std::array<ggml_type_facts, 31> ggml_types{
    {{ggml_type::f32, "F32", 1, 4},         {ggml_type::f16, "F16", 1, 2},
     {ggml_type::q4_0, "Q4_0", 32, 18},     {ggml_type::q4_1, "Q4_1", 32, 20},
     {ggml_type::q5_0, "Q5_0", 32, 22},     {ggml_type::q5_1, "Q5_1", 32, 24},
     {ggml_type::q8_0, "Q8_0", 32, 34},     {ggml_type{9}, "Q8_1", 32, 36},
     {ggml_type::q2_k, "Q2_K", 256, 84},    {ggml_type::q3_k, "Q3_K", 256, 110},
     {ggml_type::q4_k, "Q4_K", 256, 144},   {ggml_type::q5_k, "Q5_K", 256, 176},
     {ggml_type::q6_k, "Q6_K", 256, 210},   {ggml_type{15}, "Q8_K", 256, 292},
     {ggml_type{16}, "IQ2_XXS", 256, 66},   {ggml_type{17}, "IQ2_XS", 256, 74},
     {ggml_type{18}, "IQ3_XXS", 256, 98},   {ggml_type{19}, "IQ1_S", 256, 50},
     {ggml_type::iq4_nl, "IQ4_NL", 32, 18}, {ggml_type{21}, "IQ3_S", 256, 110},
     {ggml_type{22}, "IQ2_S", 256, 82},     {ggml_type::iq4_xs, "IQ4_XS", 256, 136},
     {ggml_type{24}, "I8", 1, 1},           {ggml_type{25}, "I16", 1, 2},
     {ggml_type{26}, "I32", 1, 4},          {ggml_type{27}, "I64", 1, 8},
     {ggml_type{28}, "F64", 1, 8},          {ggml_type{29}, "IQ1_M", 256, 56},
     {ggml_type::bf16, "BF16", 1, 2},       {ggml_type{34}, "TQ1_0", 256, 54},
     {ggml_type{35}, "TQ2_0", 256, 66}}};

}  // namespace detail

/// What is known of a type by its number; null for one that is not in the list.
constexpr const ggml_type_facts* find_ggml_type(std::uint32_t number) {
  const auto found = std::ranges::find(detail::ggml_types, ggml_type{number}, &ggml_type_facts::type);
  return found == detail::ggml_types.end() ? nullptr : &*found;
}

/// Of a type in the list.
constexpr const ggml_type_facts& facts_of(ggml_type type) {
  return *find_ggml_type(static_cast<std::uint32_t>(type));
}

constexpr std::string_view name_of(ggml_type type) {
  return facts_of(type).name;
}

}  // namespace corematching::io
