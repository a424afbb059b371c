// SPDX-License-Identifier: Apache-2.0
// The shape of a decoder from the metadata of a GGUF file. What a config.json says in words of its own is a
// key of the architecture here, or follows from which tensors there are: a head that is not stored is the
// embedding, and biases are where they are stored.
//
// Source: https://github.com/ggml-org/ggml (docs/gguf.md) for keys and their defaults.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/model/gguf/names.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/llama/config.hpp"

namespace corematching {

namespace detail {

/// The keys of a file's architecture.
class gguf_fields {
 public:
  gguf_fields(const io::gguf_metadata& from, std::string_view architecture)
      : from_(from), prefix_(std::string(architecture) + ".") {}

  bool has(std::string_view key) const { return from_.has(name(key)); }
  index size(std::string_view key, std::int64_t most) const {
    return static_cast<index>(from_.integer(name(key), 1, most));
  }
  index size_or(std::string_view key, index fallback, std::int64_t most) const {
    return has(key) ? size(key, most) : fallback;
  }
  double number(std::string_view key, double least, double most) const {
    return from_.number(name(key), least, most);
  }
  std::string_view text(std::string_view key) const { return from_.text(name(key)); }
  template <class... Parts>
  void demand(bool holds, std::string_view key, const Parts&... parts) const {
    if (!holds) fail(from_.file(), ": ", name(key), " ", parts...);
  }

 private:
  std::string name(std::string_view key) const { return prefix_ + std::string(key); }

  const io::gguf_metadata& from_;
  std::string prefix_;
};

inline void read_gguf_heads(const gguf_fields& fields, llama_config& config) {
  config.heads = fields.size("attention.head_count", max_width);
  config.kv_heads = fields.size_or("attention.head_count_kv", config.heads, max_width);
  fields.demand(config.heads % config.kv_heads == 0, "attention.head_count_kv", "is ", config.kv_heads,
                ", which ", config.heads, " heads cannot share evenly");
  if (!fields.has("attention.key_length"))
    fields.demand(config.hidden_size % config.heads == 0, "embedding_length", "is ", config.hidden_size,
                  ", no multiple of ", config.heads, " heads");
  config.head_dim = fields.size_or("attention.key_length", config.hidden_size / config.heads, max_width);
  fields.demand(config.head_dim % 2 == 0 && config.heads * config.head_dim <= max_width,
                "attention.key_length", "makes heads of ", config.head_dim, ", which are odd or too wide");
  for (const char* key : {"attention.value_length", "rope.dimension_count"})
    fields.demand(fields.size_or(key, config.head_dim, max_width) == config.head_dim, key, "is ",
                  fields.size_or(key, config.head_dim, max_width), ", supported is a head's ",
                  config.head_dim);
}

inline void read_gguf_rope(const gguf_fields& fields, const io::gguf_file& file, llama_config& config) {
  rope_config& rope = config.rope;
  if (fields.has("rope.freq_base")) rope.theta = fields.number("rope.freq_base", 1, 1e12);
  const std::string_view type = fields.has("rope.scaling.type")   ? fields.text("rope.scaling.type")
                                : fields.has("rope.scale_linear") ? "linear"
                                                                  : "none";
  if (type == "linear") {
    rope.scaling = rope_scaling::linear;
    rope.factor = fields.number(
        fields.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear", 1, 1e6);
  }
  fields.demand(type == "linear" || type == "none", "rope.scaling.type", "is ", io::in_quotes(type),
                ", supported are none and linear");
  if (!file.contains(gguf_rope_divisors)) return;
  const io::gguf_tensor& divisors = file.at(gguf_rope_divisors);
  check_gguf_shape(divisors, {config.head_dim / 2});
  rope.divisors = gguf_values(divisors);
  for (const float divisor : rope.divisors)
    require(divisor > 0, divisors.file.string(), ": tensor ", io::in_quotes(divisors.name), " holds ",
            divisor, ", expected numbers above 0");
}

inline void read_gguf_tokens(const io::gguf_metadata& metadata, llama_config& config) {
  const auto id_of = [&](std::string_view key) {
    return static_cast<std::int32_t>(metadata.integer(key, 0, max_vocab));
  };
  config.bos_token_id.reset();
  config.eos_token_ids.clear();
  if (metadata.has("tokenizer.ggml.bos_token_id")) config.bos_token_id = id_of("tokenizer.ggml.bos_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (metadata.has(key)) config.eos_token_ids.push_back(id_of(key));
  if (metadata.has("tokenizer.ggml.padding_token_id"))
    config.pad_token_id = id_of("tokenizer.ggml.padding_token_id");
}

}  // namespace detail

/// An architecture of GGUF whose decoders are read.
struct gguf_architecture {
  std::string_view name;
  /// Whether query and key rows stand in the order in which GGUF turns them: neighbours, where we turn
  /// elements half a head apart.
  bool turns_neighbours;
  bool qk_norm;
};

inline constexpr std::array<gguf_architecture, 3> gguf_architectures{
    {{"llama", true, false}, {"qwen2", false, false}, {"qwen3", false, true}}};

/// The architecture of files that hold a vision tower and its projector (mmproj_config.hpp).
inline constexpr std::string_view gguf_mmproj_architecture = "clip";

/// That of `file`. Throws `error` naming file and architecture for one that is not read.
inline const gguf_architecture& gguf_architecture_of(const io::gguf_file& file) {
  const std::string_view name = file.metadata().text("general.architecture");
  require(name != gguf_mmproj_architecture, file.metadata().file(),
          ": is an mmproj file, a vision tower and its projector: it goes beside the file of a language "
          "model (--mmproj)");
  const auto* const found = std::ranges::find(gguf_architectures, name, &gguf_architecture::name);
  if (found == gguf_architectures.end())
    fail(file.metadata().file(), ": the architecture ", io::in_quotes(name),
         " is not supported; llama, qwen2 and qwen3 are");
  return *found;
}

/// Reads the metadata, and looks at names, shapes and types of tensors. Throws `error` naming file and key
/// for what is missing, out of bounds, contradictory or not supported.
inline llama_config read_gguf_config(const io::gguf_file& file) {
  using namespace detail;
  const io::gguf_metadata& metadata = file.metadata();
  const gguf_architecture& architecture = gguf_architecture_of(file);
  const gguf_fields fields(metadata, architecture.name);
  fields.demand(!fields.has("expert_count") || fields.number("expert_count", 0, 1e6) == 0, "expert_count",
                "says that there are experts, which are not supported");
  llama_config config;
  const io::gguf_tensor& embedding = file.at(gguf_embedding);
  require(embedding.shape.size() == 2 && embedding.shape.front() <= max_vocab, metadata.file(), ": tensor ",
          io::in_quotes(gguf_embedding), " has shape ", io::shape_text(embedding.shape),
          ", expected a row for each token");
  config.vocab_size = static_cast<index>(embedding.shape.front());
  config.hidden_size = fields.size("embedding_length", max_width);
  config.intermediate_size = fields.size("feed_forward_length", max_width);
  config.layers = fields.size("block_count", max_layers);
  config.max_positions = fields.size("context_length", max_length);
  config.rms_norm_eps = fields.number("attention.layer_norm_rms_epsilon", 1e-12, 1);
  config.tie_word_embeddings = !file.contains(gguf_head);
  config.qkv_bias = file.contains("blk.0.attn_q.bias");
  config.o_bias = file.contains("blk.0.attn_output.bias");
  config.qk_norm = architecture.qk_norm;
  if (fields.has("attention.sliding_window"))
    config.sliding_window = fields.size("attention.sliding_window", max_length);
  read_gguf_heads(fields, config);
  read_gguf_rope(fields, file, config);
  read_gguf_tokens(metadata, config);
  return config;
}

}  // namespace corematching
