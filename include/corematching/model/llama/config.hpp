// SPDX-License-Identifier: Apache-2.0
// The shape of a LLaMA-like decoder: LLaMA, Vicuna, TinyLlama, Mistral, Qwen2, Qwen3.
// Source: transformers, models/{llama,mistral,qwen2,qwen3}/configuration_*.py and modeling_rope_utils.py.
// Keys that a config.json leaves out take the values those files give them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/view.hpp"
#include "corematching/io/json.hpp"

namespace corematching {

enum class rope_scaling : std::uint8_t { none, linear, llama3 };

/// Rotary position embedding: base and how its frequencies are stretched beyond the trained length.
struct rope_config {
  double theta = 10000;
  rope_scaling scaling = rope_scaling::none;
  double factor = 1;                 // linear, llama3
  double low_freq_factor = 1;        // llama3
  double high_freq_factor = 4;       // llama3, above low_freq_factor
  index original_max_positions = 0;  // llama3: tokens
  std::vector<float> divisors{};     // of the frequencies, one for each, beside any scaling; empty: none

  friend bool operator==(const rope_config&, const rope_config&) = default;
};

/// The values of model_type that parse_llama_config() reads, for messages.
inline constexpr std::string_view llama_model_types = "llama, mistral, qwen2 or qwen3";

inline bool is_llama_model_type(std::string_view type) {
  return type == "llama" || type == "mistral" || type == "qwen2" || type == "qwen3";
}

/// Defaults: transformers' LlamaConfig, the shape of LLaMA-7B.
struct llama_config {
  index vocab_size = 32000;
  index hidden_size = 4096;
  index intermediate_size = 11008;
  index layers = 32;
  index heads = 32;
  index kv_heads = 32;
  index head_dim = 128;
  index max_positions = 2048;
  double rms_norm_eps = 1e-6;
  activation hidden_act = activation::silu;
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;  // every head of queries and of keys is normalised before it is rotated
  bool tie_word_embeddings = false;
  rope_config rope;
  std::optional<index> sliding_window;  // tokens that each query sees, itself included
  std::optional<std::int32_t> bos_token_id = 1;
  std::vector<std::int32_t> eos_token_ids = {2};
  std::optional<std::int32_t> pad_token_id{};

  /// Positions that a sequence may use.
  index context() const { return max_positions; }
  /// The same where tokens are dropped. A window counts positions, and in a cache that lacks some of them
  /// rows say nothing about these, so such a model is then used up to the window's length, where it hides
  /// nothing.
  index context_when_dropping() const {
    return std::min(max_positions, sliding_window.value_or(max_positions));
  }

  /// Throws `error` for an id outside the vocabulary.
  void require_known(std::span<const std::int32_t> ids) const {
    for (const std::int32_t id : ids)
      require(id >= 0 && id < vocab_size, "token id ", id, " lies outside the vocabulary of ", vocab_size);
  }

  friend bool operator==(const llama_config&, const llama_config&) = default;
};

namespace detail {

// Beyond these, a size is a damaged file and not a model; products of two stay far from overflow.
inline constexpr std::int64_t max_width = std::int64_t{1} << 20;
inline constexpr std::int64_t max_layers = std::int64_t{1} << 12;
inline constexpr std::int64_t max_vocab = std::int64_t{1} << 24;
inline constexpr std::int64_t max_length = std::int64_t{1} << 30;
inline constexpr std::size_t max_stop_tokens = 64;

inline index read_size(const io::json_object& fields, std::string_view key, index fallback,
                       std::int64_t most) {
  return static_cast<index>(fields.integer_or(key, fallback, 1, most));
}

inline activation read_activation(const io::json_object& fields, std::string_view key,
                                  std::string_view fallback) {
  const std::string name = fields.string_or(key, std::string(fallback));
  if (name == "silu" || name == "swish") return activation::silu;
  if (name == "gelu") return activation::gelu_erf;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return activation::gelu_tanh;
  if (name == "quick_gelu") return activation::quick_gelu;
  fields.refuse(key, "silu, gelu, gelu_pytorch_tanh or quick_gelu");
}

/// One id or a list of ids under `key`.
inline std::vector<std::int32_t> read_token_ids(const io::json_object& fields, std::string_view key) {
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : fields.integers(key, 0, max_vocab, max_stop_tokens))
    ids.push_back(static_cast<std::int32_t>(id));
  return ids;
}

inline void refuse_partial_rotation(const io::json_object& fields) {
  if (fields.has("partial_rotary_factor")) static_cast<void>(fields.number("partial_rotary_factor", 1, 1));
}

// `fields` is rope_scaling or rope_parameters; its type is "rope_type", in older files "type".
inline void read_rope_scaling(const io::json_object& fields, index max_positions, rope_config& rope) {
  refuse_partial_rotation(fields);
  for (const char* kind : {"full_attention", "sliding_attention"})
    if (fields.has(kind)) fields.refuse(kind, "one rotary embedding for all layers");
  rope.theta = fields.number_or("rope_theta", rope.theta, 1, 1e12);
  const char* key = fields.has("rope_type") ? "rope_type" : "type";
  const std::string type = fields.string_or(key, "default");
  if (type == "default") return;
  if (type != "linear" && type != "llama3") fields.refuse(key, "default, linear or llama3");
  rope.scaling = type == "linear" ? rope_scaling::linear : rope_scaling::llama3;
  rope.factor = fields.number("factor", 1, 1e6);
  if (rope.scaling == rope_scaling::linear) return;
  rope.low_freq_factor = fields.number("low_freq_factor", 1e-3, 1e6);
  rope.high_freq_factor = fields.number("high_freq_factor", 1e-3, 1e6);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    fields.refuse("high_freq_factor", "more than low_freq_factor");
  rope.original_max_positions =
      read_size(fields, "original_max_position_embeddings", max_positions, max_length);
}

// rope_theta and rope_scaling before transformers 5, rope_parameters since; an empty rope_scaling is none.
// The trained length may stand beside them, and then counts whatever they say.
inline rope_config read_rope(const io::json_object& fields, index max_positions) {
  rope_config rope;
  refuse_partial_rotation(fields);
  rope.theta = fields.number_or("rope_theta", rope.theta, 1, 1e12);
  const io::json* scaling = fields.find("rope_scaling");
  const char* key = scaling != nullptr && !scaling->empty() ? "rope_scaling" : "rope_parameters";
  if (fields.has(key)) read_rope_scaling(fields.object(key), max_positions, rope);
  if (rope.scaling == rope_scaling::llama3)
    rope.original_max_positions =
        read_size(fields, "original_max_position_embeddings", rope.original_max_positions, max_length);
  return rope;
}

inline bool is_qwen(std::string_view family) {
  return family == "qwen2" || family == "qwen3";
}

// What transformers assumes for the keys that a config.json of this model_type leaves out.
inline llama_config llama_defaults(const io::json_object& fields, std::string_view family) {
  if (!is_llama_model_type(family)) fields.refuse("model_type", llama_model_types);
  llama_config config;
  if (family == "mistral") {
    config.intermediate_size = 14336;
    config.kv_heads = 8;
    config.max_positions = 4096 * 32;
    config.sliding_window = 4096;
  }
  if (is_qwen(family)) {
    config.vocab_size = 151936;
    config.intermediate_size = 22016;
    config.max_positions = 32768;
    config.bos_token_id.reset();
    config.eos_token_ids.clear();
  }
  config.qkv_bias = family == "qwen2";
  config.qk_norm = family == "qwen3";
  return config;
}

inline void read_heads(const io::json_object& fields, std::string_view family, llama_config& config) {
  config.heads = read_size(fields, "num_attention_heads", config.heads, max_width);
  const bool one_each = fields.find("num_key_value_heads") ? !fields.has("num_key_value_heads")
                                                           : family == "llama";  // null: as many
  config.kv_heads =
      one_each ? config.heads : read_size(fields, "num_key_value_heads", config.kv_heads, max_width);
  if (config.heads % config.kv_heads != 0)
    fields.contradict("num_key_value_heads", config.heads, " attention heads cannot share ", config.kv_heads,
                      " key/value heads evenly");
  if (fields.has("head_dim") || family == "qwen3") {
    config.head_dim = read_size(fields, "head_dim", config.head_dim, max_width);
  } else {
    if (config.hidden_size % config.heads != 0)
      fields.contradict("hidden_size", config.hidden_size, " is not a multiple of ", config.heads,
                        " attention heads");
    config.head_dim = config.hidden_size / config.heads;
  }
  if (config.head_dim % 2 != 0)
    fields.contradict("head_dim", config.head_dim, " is odd; rotary embeddings need pairs");
  if (config.heads * config.head_dim > max_width)
    fields.contradict("head_dim", config.heads, " heads of ", config.head_dim, " are wider than ", max_width);
}

// Mistral windows every layer; Qwen would window some of them. Null means no window, absence the default.
inline void read_sliding_window(const io::json_object& fields, std::string_view family,
                                llama_config& config) {
  if (is_qwen(family) && fields.boolean_or("use_sliding_window", false))
    fields.refuse("use_sliding_window", "false: windows in some layers only are not supported");
  if (family != "mistral" || !fields.find("sliding_window")) return;
  config.sliding_window.reset();
  if (fields.has("sliding_window"))
    config.sliding_window = read_size(fields, "sliding_window", 0, max_length);
}

// What each layer attends to. LLaMA has no such key, and transformers takes a Mistral that has it for a
// Ministral, which windows some of its layers.
inline void check_layer_types(const io::json_object& fields, std::string_view family,
                              const llama_config& config) {
  if (family == "llama" || !fields.has("layer_types")) return;
  const io::json& types = *fields.find("layer_types");
  const io::json type = config.sliding_window ? "sliding_attention" : "full_attention";
  if (types.is_array() && std::ranges::count(types, type) == std::ssize(types)) return;
  if (config.sliding_window)
    fields.refuse("layer_types", "sliding_attention for every layer, as sliding_window is set");
  fields.refuse("layer_types",
                "full_attention for every layer: windows in some layers only are not supported");
}

inline void read_biases(const io::json_object& fields, std::string_view family, llama_config& config) {
  if (family == "mistral" || family == "qwen2") return;  // they have no such keys
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  if (fields.boolean_or("mlp_bias", false))
    fields.refuse("mlp_bias", "false: feed-forward blocks with bias are not supported");
}

// Some say "none" by a negative id.
inline void read_pad_token(const io::json_object& fields, llama_config& config) {
  if (!fields.has("pad_token_id")) return;
  const std::int64_t id = fields.integer("pad_token_id", -max_vocab, max_vocab);
  if (id >= 0) config.pad_token_id = static_cast<std::int32_t>(id);
}

inline void read_special_tokens(const io::json_object& fields, llama_config& config) {
  if (const auto* bos = fields.find("bos_token_id")) {
    config.bos_token_id.reset();
    if (!bos->is_null())
      config.bos_token_id = static_cast<std::int32_t>(fields.integer("bos_token_id", 0, max_vocab));
  }
  if (fields.find("eos_token_id")) {
    config.eos_token_ids.clear();
    if (fields.has("eos_token_id")) config.eos_token_ids = read_token_ids(fields, "eos_token_id");
  }
  read_pad_token(fields, config);
}

}  // namespace detail

/// Reads a text model's fields; `family` is its model_type. Throws `error` naming file and key for values
/// that are missing, of another type, out of bounds, contradictory or not supported.
inline llama_config parse_llama_config(const io::json_object& fields, std::string_view family) {
  using namespace detail;
  llama_config config = llama_defaults(fields, family);
  if (fields.has("quantization_config"))
    fields.refuse("quantization_config", "none: weights are F32, F16 or BF16");
  config.vocab_size = read_size(fields, "vocab_size", config.vocab_size, max_vocab);
  config.hidden_size = read_size(fields, "hidden_size", config.hidden_size, max_width);
  config.intermediate_size = read_size(fields, "intermediate_size", config.intermediate_size, max_width);
  config.layers = read_size(fields, "num_hidden_layers", config.layers, max_layers);
  config.max_positions = read_size(fields, "max_position_embeddings", config.max_positions, max_length);
  config.rms_norm_eps = fields.number_or("rms_norm_eps", config.rms_norm_eps, 1e-12, 1);
  config.hidden_act = read_activation(fields, "hidden_act", "silu");
  config.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
  config.rope = read_rope(fields, config.max_positions);
  read_heads(fields, family, config);
  read_biases(fields, family, config);
  read_sliding_window(fields, family, config);
  check_layer_types(fields, family, config);
  read_special_tokens(fields, config);
  return config;
}

}  // namespace corematching
