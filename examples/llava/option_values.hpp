// SPDX-License-Identifier: Apache-2.0
// Values of options that are more than a number or a name. Every function throws `error` for a text that it
// cannot read.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/hooks/core_matching_config.hpp"
#include "llava/options.hpp"

namespace corematching::driver {

/// The whole of `text` as a number; `typed` is what a message quotes.
template <class Number>
Number number(std::string_view text, const char* option, std::string_view typed) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size())
    fail("--", option, ": \"", typed, "\" is not a number that fits");
  return value;
}

template <class Number>
Number number(std::string_view text, const char* option) {
  return number<Number>(text, option, text);
}

/// "8G": bytes, in units of 1024, 1024^2 or 1024^3 where K, M or G says so.
inline std::uint64_t byte_count(std::string_view text, const char* option) {
  const std::string_view units = "KMG";
  const auto unit = text.empty() ? units.npos : units.find(text.back());
  const unsigned shift = unit == units.npos ? 0 : 10 * (static_cast<unsigned>(unit) + 1);
  const auto value = number<std::uint64_t>(text.substr(0, text.size() - (shift > 0 ? 1 : 0)), option, text);
  if (value > UINT64_MAX >> shift) fail("--", option, ": \"", text, "\" is not a number that fits");
  return value << shift;
}

/// "A,B-C": ascending layer numbers.
inline std::vector<index> layer_list(std::string_view text) {
  std::vector<index> layers;
  if (text.empty() || text.back() == ',') fail("--match-layers: \"", text, "\" is not a list of layers");
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const auto dash = item.find('-', 1);
    const auto first = number<index>(item.substr(0, dash), "match-layers");
    const auto last = dash == item.npos ? first : number<index>(item.substr(dash + 1), "match-layers");
    // Without a sign: the numbers may be as far apart as any, and the last one may have no successor.
    const std::uint64_t further = static_cast<std::uint64_t>(last) - static_cast<std::uint64_t>(first);
    if (last < first || further > 4096) fail("--match-layers: \"", item, "\" is not an ascending range");
    for (index i = 0; i <= static_cast<index>(further); ++i) layers.push_back(first + i);
  }
  return layers;
}

/// "max_distance", "strict", "top_k:K" or "ratio:R", the value of `option`.
inline void set_keep_rule(std::string_view text, const std::string& option, select::keep_options& keep) {
  using select::keep_rule;
  const auto colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const std::string_view value = colon == text.npos ? std::string_view{} : text.substr(colon + 1);
  if (name == "max_distance" && value.empty()) {
    keep.rule = keep_rule::max_distance;
  } else if (name == "strict" && value.empty()) {
    keep.rule = keep_rule::max_distance;
    keep.strict = true;
  } else if (name == "top_k") {
    keep.rule = keep_rule::top_k;
    keep.count = number<index>(value, (option + " top_k").c_str());
  } else if (name == "ratio") {
    keep.rule = keep_rule::ratio;
    keep.ratio = number<double>(value, (option + " ratio").c_str());
  } else {
    fail("--", option, ": \"", text, "\" is none of max_distance, strict, top_k:K, ratio:R");
  }
}

/// "B", of every layer, or "B,B,...", one of each.
inline void set_beta(std::string_view text, options& o) {
  if (text.empty()) fail("--beta: its value is empty");
  o.neurons.calibrated = text == "calibrated";
  if (o.neurons.calibrated) return;
  std::vector<double> betas;
  for (std::string_view rest = text; betas.empty() || !rest.empty();) {
    const std::string_view item = rest.substr(0, rest.find(','));
    betas.push_back(number<double>(item, "beta", text));
    rest.remove_prefix(item.size());
    if (!rest.empty()) rest.remove_prefix(1);
  }
  if (text.ends_with(',')) fail("--beta: \"", text, "\" is not a list of numbers");
  const bool one = betas.size() == 1;
  if (one) o.sparsity.beta = betas.front();
  o.neurons.beta_of_layer = one ? std::vector<double>() : std::move(betas);
}

/// "B:E": layers B <= layer < E.
inline void set_neuron_layers(std::string_view text, core_matching_config& config) {
  const auto colon = text.find(':');
  if (colon == text.npos) fail("--neuron-layers: \"", text, "\" is not of the form BEGIN:END");
  config.neuron_layers_begin = number<index>(text.substr(0, colon), "neuron-layers");
  config.neuron_layers_end = number<index>(text.substr(colon + 1), "neuron-layers");
}

/// "cpu", "eigen", "cuda" (its first device) or "cuda:N".
inline device_choice chosen_device(std::string_view text) {
  using enum device_choice::kind;
  constexpr std::string_view numbered = "cuda:";
  if (text == "cpu") return {cpu};
  if (text == "eigen") return {eigen};
  if (text == "cuda") return {cuda};
  if (!text.starts_with(numbered)) fail("--device: \"", text, "\" is none of cpu, eigen, cuda, cuda:N");
  const int device = number<int>(text.substr(numbered.size()), "device cuda");
  if (device < 0) fail("--device: \"", text, "\": devices are numbered from 0");
  return {cuda, device};
}

/// "f32|f16|...": what may stand behind --weights.
inline std::string weights_types() {
  std::string names = weight_names("|");
  for (const dtype type : split_types) names.append("|").append(name_of(type));
  return names;
}

inline dtype weights_type(std::string_view text) {
  const auto type = dtype_named(text);
  if (!type || !(std::ranges::count(weight_types, *type) + std::ranges::count(split_types, *type)))
    fail("--weights: \"", text, "\" is none of ", weights_types());
  return *type;
}

}  // namespace corematching::driver
