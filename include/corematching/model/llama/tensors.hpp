// SPDX-License-Identifier: Apache-2.0
// The tensors of a decoder by name, shape and place: the one list of them, for whoever reads or writes them.
#pragma once

#include <cstdint>
#include <string>

#include "corematching/core/view.hpp"
#include "corematching/model/llama/config.hpp"

namespace corematching {

/// What a model computes with: a vector, a matrix as it is stored, one whose rows are neurons that can be
/// foretold, so that its weights may stand in two planes, or the transposed of a matrix.
enum class tensor_kind : std::uint8_t { vector, matrix, neuron_matrix, transposed };

/// A tensor as checkpoints store it. A vector is one row.
struct tensor_description {
  tensor_kind kind;
  std::string name;
  index rows;
  index cols;
};

/// Bytes of a layer's weights: its attention projections, and each of its neurons.
struct layer_bytes {
  std::uint64_t attention = 0;
  std::uint64_t neuron = 0;
};

inline std::string layer_prefix(const std::string& prefix, index layer) {
  return prefix + "layers." + std::to_string(layer) + ".";
}

/// Calls visit(description, member) for every tensor of a layer whose names begin with `prefix`; member(w) is
/// its place in decoder_weights w.
template <class Visitor>
void visit_layer(const llama_config& config, const std::string& prefix, Visitor&& visit) {
  const index d = config.hidden_size, n = config.intermediate_size;
  const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const auto vector = [&](const std::string& name, index size, auto member) {
    visit(tensor_description{tensor_kind::vector, name, 1, size}, member);
  };
  const auto matrix = [&](const std::string& name, index rows, index cols, auto member) {
    visit(tensor_description{tensor_kind::matrix, name, rows, cols}, member);
  };
  vector(
      prefix + "input_layernorm.weight", d, [](auto& w) -> auto& { return w.attention_norm; });
  vector(
      prefix + "post_attention_layernorm.weight", d, [](auto& w) -> auto& { return w.ffn_norm; });
  if (config.qkv_bias) {
    vector(
        attention + "q_proj.bias", q, [](auto& w) -> auto& { return w.query_bias; });
    vector(
        attention + "k_proj.bias", kv, [](auto& w) -> auto& { return w.key_bias; });
    vector(
        attention + "v_proj.bias", kv, [](auto& w) -> auto& { return w.value_bias; });
  }
  if (config.o_bias)
    vector(
        attention + "o_proj.bias", d, [](auto& w) -> auto& { return w.output_bias; });
  if (config.qk_norm) {
    vector(
        attention + "q_norm.weight", config.head_dim, [](auto& w) -> auto& { return w.query_norm; });
    vector(
        attention + "k_norm.weight", config.head_dim, [](auto& w) -> auto& { return w.key_norm; });
  }
  matrix(
      attention + "q_proj.weight", q, d, [](auto& w) -> auto& { return w.query; });
  matrix(
      attention + "k_proj.weight", kv, d, [](auto& w) -> auto& { return w.key; });
  matrix(
      attention + "v_proj.weight", kv, d, [](auto& w) -> auto& { return w.value; });
  matrix(
      attention + "o_proj.weight", d, q, [](auto& w) -> auto& { return w.output; });
  visit(
      tensor_description{tensor_kind::neuron_matrix, mlp + "gate_proj.weight", n, d},
      [](auto& w) -> auto& { return w.gate; });
  visit(
      tensor_description{tensor_kind::neuron_matrix, mlp + "up_proj.weight", n, d},
      [](auto& w) -> auto& { return w.up; });
  visit(
      tensor_description{tensor_kind::transposed, mlp + "down_proj.weight", d, n},
      [](auto& w) -> auto& { return w.down_transposed; });
}

}  // namespace corematching
