// SPDX-License-Identifier: Apache-2.0
// The formats in which weights and caches are stored, and their number at run time. What there is to know of
// one stands in its header; what is the same for all derives from the list here. Sums are always formed in
// binary32.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "corematching/core/error.hpp"
#include "corematching/core/formats/bf16.hpp"
#include "corematching/core/formats/f16.hpp"
#include "corematching/core/formats/f16_planes.hpp"
#include "corematching/core/formats/f32.hpp"
#include "corematching/core/formats/moved.hpp"
#include "corematching/core/formats/neuron_blocks.hpp"
#include "corematching/core/formats/planes.hpp"
#include "corematching/core/formats/q4_0.hpp"
#include "corematching/core/formats/q4_0_planes.hpp"
#include "corematching/core/formats/q4_k.hpp"
#include "corematching/core/formats/q4_k_planes.hpp"
#include "corematching/core/formats/q5_k.hpp"
#include "corematching/core/formats/q6_k.hpp"
#include "corematching/core/formats/q8_0.hpp"
#include "corematching/core/formats/q8_0_planes.hpp"
#include "corematching/core/formats/traits.hpp"
#include "corematching/core/formats/wide_blocks.hpp"
#include "corematching/core/index.hpp"
#include "corematching/core/type_list.hpp"

namespace corematching {

/// All formats. Their place here is their number.
using formats = type_list<float, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k, q8_0_planes, q4_0_planes,
                          q4_k_planes, f16_planes, wide_16, wide_16m, wide_32m, down_16, down_16m, down_32,
                          down_32m, down_4bit_32, down_4bit_32m>;

/// One of them, where it is known at run time only.
enum class dtype : std::uint8_t {
  f32 = formats::place_of<float>,
  f16 = formats::place_of<corematching::f16>,
  bf16 = formats::place_of<corematching::bf16>,
  q8_0 = formats::place_of<corematching::q8_0>,
  q4_0 = formats::place_of<corematching::q4_0>,
  q4_k = formats::place_of<corematching::q4_k>,
  q5_k = formats::place_of<corematching::q5_k>,
  q6_k = formats::place_of<corematching::q6_k>,
  q8_0_planes = formats::place_of<corematching::q8_0_planes>,
  q4_0_planes = formats::place_of<corematching::q4_0_planes>,
  q4_k_planes = formats::place_of<corematching::q4_k_planes>,
  f16_planes = formats::place_of<corematching::f16_planes>,
  wide_16 = formats::place_of<corematching::wide_16>,
  wide_16m = formats::place_of<corematching::wide_16m>,
  wide_32m = formats::place_of<corematching::wide_32m>,
  down_16 = formats::place_of<corematching::down_16>,
  down_16m = formats::place_of<corematching::down_16m>,
  down_32 = formats::place_of<corematching::down_32>,
  down_32m = formats::place_of<corematching::down_32m>,
  down_4bit_32 = formats::place_of<corematching::down_4bit_32>,
  down_4bit_32m = formats::place_of<corematching::down_4bit_32m>
};

template <class T>
requires formats::has<T>
inline constexpr auto dtype_of = static_cast<dtype>(formats::place_of<T>);

namespace detail {

template <class T>
using is_element = std::bool_constant<element_format<T>>;
template <class T>
using is_multiplied = std::bool_constant<format_traits<T>::multiplied>;
template <class T>
using is_rounded_to = std::bool_constant<format_traits<T>::multiplied && !moved_format<T>>;
template <class T>
using is_by_neuron_blocks = std::bool_constant<neuron_format<T>>;
template <class T>
using has_planes = std::bool_constant<plane_format<T>>;
template <class T>
using splits_moved = std::bool_constant<plane_format<T> && moved_format<T>>;

template <class... T>
constexpr auto types_of(type_list<T...>) {
  return std::array{dtype_of<T>...};
}

/// Traits that are asked for at run time.
struct format_facts {
  const char* name;
  index block;
  std::size_t bytes;
  float largest;
  bool multiplied;

  template <class T>
  static constexpr format_facts of() {
    using traits = format_traits<T>;
    static_assert(traits::block % traits::group == 0);
    return {traits::name, traits::block, traits::bytes, traits::largest, traits::multiplied};
  }
};

template <class... T>
constexpr auto facts_of(type_list<T...>) {
  return std::array{format_facts::of<T>()...};
}
inline constexpr auto all_facts = facts_of(formats());

template <class T>
struct whole_format {
  using type = T;
};
template <plane_format T>
struct whole_format<T> {
  using type = typename T::whole;
};
template <class... T>
constexpr auto whole_types_of(type_list<T...>) {
  return std::array{dtype_of<typename whole_format<T>::type>...};
}
inline constexpr auto whole_types = whole_types_of(formats());

/// Bit by bit, whether Is<T>::value holds for the format of that number.
template <template <class> class Is, class... T>
constexpr std::uint64_t formats_that(type_list<T...>) {
  return (std::uint64_t{0} | ... | (std::uint64_t{Is<T>::value} << formats::place_of<T>));
}
template <template <class> class Is>
constexpr bool format_is(dtype type) {
  static_assert(formats::size <= 64);
  return ((formats_that<Is>(formats()) >> static_cast<unsigned>(type)) & 1) != 0;
}

constexpr const format_facts& facts_of(dtype type) {
  return all_facts[static_cast<std::size_t>(type)];
}

constexpr bool is_known(dtype type) {
  return static_cast<std::size_t>(type) < formats::size;
}

}  // namespace detail

/// The formats that are numbers: rows are arrays of them.
using element_formats = filtered<formats, detail::is_element>;
/// The formats in which weights are multiplied; the others are read, by widening or converting.
using weight_formats = filtered<formats, detail::is_multiplied>;
/// Of these, the ones that numbers are rounded to. The others hold what was moved to them.
using rounded_formats = filtered<weight_formats, detail::is_rounded_to>;

/// The formats that split another one into two planes.
using plane_formats = filtered<formats, detail::has_planes>;

inline constexpr auto element_types = detail::types_of(element_formats());
inline constexpr auto weight_types = detail::types_of(rounded_formats());
/// The formats that split what files hold, to which nothing is rounded either.
inline constexpr auto split_types = detail::types_of(filtered<weight_formats, detail::splits_moved>());

/// Whether rows are arrays of numbers.
constexpr bool is_element(dtype type) {
  return detail::format_is<detail::is_element>(type);
}

/// Elements of the blocks that rows are made of; 1 where each stands for itself.
constexpr index block_of(dtype type) {
  return detail::facts_of(type).block;
}

/// Whether rows are made of blocks: their length must then be a multiple of block_of(type).
constexpr bool is_quantised(dtype type) {
  return block_of(type) > 1;
}

/// Whether a matrix has an upper plane, which is a coarse form of it.
constexpr bool has_planes(dtype type) {
  return detail::whole_types[static_cast<std::size_t>(type)] != type;
}

/// Whether neighbouring rows share their scales: neuron_blocks.hpp.
constexpr bool shares_scales(dtype type) {
  return detail::format_is<detail::is_by_neuron_blocks>(type);
}

/// Bytes of `elements` consecutive elements; whole blocks in the block formats.
constexpr std::size_t bytes_of(dtype type, std::size_t elements) {
  return elements / static_cast<std::size_t>(block_of(type)) * detail::facts_of(type).bytes;
}

/// Largest magnitude that `type` stores as a finite number.
constexpr float largest_of(dtype type) {
  return detail::facts_of(type).largest;
}

constexpr const char* name_of(dtype type) {
  return detail::is_known(type) ? detail::facts_of(type).name : "?";
}

/// The inverse of name_of; nothing for a name that it never returns.
constexpr std::optional<dtype> dtype_named(std::string_view name) {
  const auto named = [&](const detail::format_facts& facts) { return facts.name == name; };
  const auto found = std::ranges::find_if(detail::all_facts, named);
  if (found == detail::all_facts.end()) return std::nullopt;
  return static_cast<dtype>(found - detail::all_facts.begin());
}

/// The names of the formats that weights can be asked for in, with `between` between them.
inline std::string weight_names(std::string_view between) {
  std::string names;
  for (const dtype type : weight_types) names.append(names.empty() ? "" : between).append(name_of(type));
  return names;
}

namespace detail {

/// body.operator()<T>() for the T of the list whose number is `type`.
template <class First, class... Rest, class Body>
decltype(auto) visit_one(type_list<First, Rest...>, dtype type, Body& body) {
  if constexpr (sizeof...(Rest) > 0)
    if (type != dtype_of<First>) return visit_one(type_list<Rest...>(), type, body);
  return body.template operator()<First>();
}

}  // namespace detail

/// Calls body.operator()<T>() with the format of that number: visit_dtype(type, [&]<class T>() { ... }).
template <class Body>
decltype(auto) visit_dtype(dtype type, Body&& body) {
  require(detail::is_known(type), "unknown dtype");
  return detail::visit_one(formats(), type, body);
}

/// The same for formats that are numbers; others are an error.
template <class Body>
decltype(auto) visit_elements(dtype type, Body&& body) {
  require(detail::is_known(type), "unknown dtype");
  require(is_element(type), name_of(type), " has ", is_quantised(type) ? "blocks of weights" : "planes",
          " where elements are needed");
  return detail::visit_one(element_formats(), type, body);
}

/// Throws `error` where weights are neither stored nor multiplied as `type`.
inline void require_weight_type(dtype type) {
  require(detail::is_known(type), "unknown dtype");
  if (!detail::facts_of(type).multiplied) [[unlikely]]
    fail(name_of(type), " is only read: weights are stored and multiplied as ", weight_names(", "));
}

/// The same for formats in which weights are stored and multiplied; others are an error.
template <class Body>
decltype(auto) visit_weights(dtype type, Body&& body) {
  require_weight_type(type);
  return detail::visit_one(weight_formats(), type, body);
}

/// The same for formats that numbers are rounded to; others are an error.
template <class Body>
decltype(auto) visit_rounded(dtype type, Body&& body) {
  require_weight_type(type);
  require(detail::format_is<detail::is_rounded_to>(type), "nothing is rounded to ", name_of(type),
          ", which holds quants of others as they are");
  return detail::visit_one(rounded_formats(), type, body);
}

/// The same for formats whose scales neighbouring rows share; others are an error.
template <class Body>
decltype(auto) visit_neuron_blocks(dtype type, Body&& body) {
  require(shares_scales(type), name_of(type), " has no scales that rows share");
  return detail::visit_one(filtered<formats, detail::is_by_neuron_blocks>(), type, body);
}

/// Throws `error` where weights have no upper plane.
inline void require_planes(dtype type) {
  require(detail::is_known(type), "unknown dtype");
  if (!has_planes(type)) [[unlikely]]
    fail(name_of(type), " has no coarse form: weights in two planes have one, as q8_0_planes");
}

/// The same for formats of two planes; others are an error.
template <class Body>
decltype(auto) visit_planes(dtype type, Body&& body) {
  require_planes(type);
  return detail::visit_one(plane_formats(), type, body);
}

/// The format that `type` splits into planes; of others, themselves.
constexpr dtype whole_of(dtype type) {
  return detail::whole_types[static_cast<std::size_t>(type)];
}

/// Bytes of `elements` consecutive elements in the upper plane.
inline std::size_t upper_bytes_of(dtype type, std::size_t elements) {
  return visit_planes(type, [&]<class T>() {
    return static_cast<std::size_t>(plane_layout<T>::of(1, static_cast<index>(elements)).upper_bytes());
  });
}

/// Bytes that make as many exact whose coarse products are there: those of the lower plane, or of both where
/// products with the planes do not add up.
inline std::size_t finishing_bytes_of(dtype type, std::size_t elements) {
  const std::size_t coarse =
      visit_planes(type, [&]<class T>() { return T::planes_add_up ? upper_bytes_of(type, elements) : 0; });
  return bytes_of(type, elements) - coarse;
}

}  // namespace corematching
