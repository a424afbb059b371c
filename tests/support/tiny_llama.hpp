// SPDX-License-Identifier: Apache-2.0
// Small random decoders, written to a checkpoint and read back as a user's model is, and a twin of them that
// removes nothing: it computes every token in every layer in binary64 and is told by masks who sees whom.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/safetensors.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "corematching/model/llama/llama.hpp"
#include "support/backend_data.hpp"
#include "support/scalar_twin.hpp"
#include "support/temporary_directory.hpp"

namespace support {

using tensor_map = std::map<std::string, real_matrix>;

/// Grouped queries, biases, sizes that are no multiples of anything.
inline corematching::llama_config tiny_config() {
  corematching::llama_config config;
  config.vocab_size = 61;
  config.hidden_size = 20;
  config.intermediate_size = 75;
  config.layers = 4;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 6;
  config.max_positions = 200;
  config.rms_norm_eps = 1e-5;
  config.qkv_bias = config.o_bias = true;
  return config;
}

/// Random tensors of a model under the names of transformers; a vector is a matrix of one row.
inline tensor_map random_tensors(const corematching::llama_config& config, unsigned seed) {
  std::mt19937 random(seed);
  tensor_map tensors;
  const index d = config.hidden_size, n = config.intermediate_size;
  const index q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  const auto add = [&](const std::string& name, index rows, index cols, double magnitude) {
    tensors[name] = random_matrix(rows, cols, random, magnitude);
  };
  const auto scaled = [](index in) { return 1.7 / std::sqrt(static_cast<double>(in)); };
  add("model.embed_tokens.weight", config.vocab_size, d, 1);
  for (index i = 0; i < config.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".", attention = layer + "self_attn.";
    add(layer + "input_layernorm.weight", 1, d, 1.5);
    add(layer + "post_attention_layernorm.weight", 1, d, 1.5);
    for (const auto& [name, rows] :
         {std::pair{"q_proj", q}, std::pair{"k_proj", kv}, std::pair{"v_proj", kv}}) {
      add(attention + name + ".weight", rows, d, scaled(d));
      if (config.qkv_bias) add(attention + name + ".bias", 1, rows, 0.5);
    }
    add(attention + "o_proj.weight", d, q, scaled(q));
    if (config.o_bias) add(attention + "o_proj.bias", 1, d, 0.5);
    if (config.qk_norm)
      for (const char* name : {"q_norm", "k_norm"})
        add(attention + name + ".weight", 1, config.head_dim, 1.5);
    add(layer + "mlp.gate_proj.weight", n, d, scaled(d));
    add(layer + "mlp.up_proj.weight", n, d, scaled(d));
    add(layer + "mlp.down_proj.weight", d, n, scaled(n));
  }
  add("model.norm.weight", 1, d, 1.5);
  if (!config.tie_word_embeddings) add("lm_head.weight", config.vocab_size, d, scaled(d));
  return tensors;
}

/// Writes the tensors as binary32 to model.safetensors in `directory` and opens it.
inline corematching::io::checkpoint write_checkpoint(const std::filesystem::path& directory,
                                                     const tensor_map& tensors) {
  std::map<std::string, std::vector<float>> values;
  std::vector<corematching::io::named_tensor> named;
  for (const auto& [name, m] : tensors) {
    const auto& stored = values[name] = std::vector<float>(m.values.begin(), m.values.end());
    const bool matrix = name.find("norm") == std::string::npos && !name.ends_with(".bias");
    named.push_back(corematching::io::as_tensor(
        name, matrix ? std::vector<std::int64_t>{m.rows, m.cols} : std::vector<std::int64_t>{m.cols},
        stored));
  }
  corematching::io::write_safetensors(directory / "model.safetensors", named);
  return corematching::io::checkpoint::open(directory);
}

/// A checkpoint whose file is already unlinked: the mapping keeps it.
inline corematching::io::checkpoint unlinked_checkpoint(const tensor_map& tensors) {
  const temporary_directory directory;
  return write_checkpoint(directory.path(), tensors);
}

/// A model on a backend with the tensors that it was made from.
template <class B>
struct tiny_llama {
  /// Weights are stored as binary32, or as `weights`.
  tiny_llama(corematching::llama_config config_, tensor_map tensors_,
             std::optional<corematching::dtype> weights = {})
      : config(std::move(config_)),
        tensors(std::move(tensors_)),
        be(make_backend<B>(2)),
        model(load(weights)) {}
  explicit tiny_llama(const corematching::llama_config& config_ = tiny_config(), unsigned seed = 1,
                      std::optional<corematching::dtype> weights = {})
      : tiny_llama(config_, random_tensors(config_, seed), weights) {}

  corematching::llama_config config;
  tensor_map tensors;
  B be;
  corematching::llama<B> model;

 private:
  corematching::llama<B> load(std::optional<corematching::dtype> weights) {
    const corematching::io::checkpoint from = unlinked_checkpoint(tensors);
    corematching::weight_reader<B> reader(be, from, {}, weights);
    return {be, config, reader};
  }
};

/// Embeddings of text ids, ready for prefill.
template <class B>
corematching::matrix<B> embedded(tiny_llama<B>& tiny, const std::vector<std::int32_t>& ids) {
  corematching::matrix<B> x(tiny.be, std::ssize(ids), tiny.config.hidden_size);
  tiny.model.embed(tiny.be, x.view(), ids);
  return x;
}

inline std::vector<std::int32_t> random_ids(index count, index vocabulary, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids;
  for (index i = 0; i < count; ++i)
    ids.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)));
  return ids;
}

/// Bound of |logit - its binary64 twin|. Every layer adds to the hidden state, whose elements stay of order
/// 1, the errors of four products in a row of at most N terms each, and normalisation passes them on
/// undiminished.
inline double logit_error(const corematching::llama_config& config) {
  return static_cast<double>(config.layers + 1) * 4 * dot_error(config.intermediate_size, 0.2);
}

inline void expect_logits(const std::vector<float>& logits, const std::vector<double>& expected,
                          double tolerance) {
  ASSERT_EQ(logits.size(), expected.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    ASSERT_NEAR(logits[i], expected[i], tolerance) << "logit " << i;
}

/// What the twin computes: all tokens of a conversation at once.
struct masked_run {
  std::vector<std::int32_t> ids;

  /// Whether `query` sees `key` (never a later one) in a layer.
  std::function<bool(index layer, index query, index key)> sees = [](index, index, index) { return true; };
  /// Whether `query` sees key and value as zeros.
  std::function<bool(index layer, index query, index key)> sees_zeros = [](index, index, index) {
    return false;
  };
  /// Where `token` stands in the eyes of `query`.
  std::function<double(index layer, index query, index token)> position = [](index, index, index token) {
    return static_cast<double>(token);
  };
  /// Shown a layer's normed states [tokens, D], and act(gate) and up of them [tokens, N], before its neurons
  /// are asked for.
  std::function<void(index layer, const real_matrix& normed, const real_matrix& gates,
                     const real_matrix& ups)>
      watch = [](index, const real_matrix&, const real_matrix&, const real_matrix&) {};
  /// Whether a token computes a neuron.
  std::function<bool(index layer, index token, index neuron)> fires = [](index, index, index) {
    return true;
  };
};

class masked_llama {
 public:
  masked_llama(corematching::llama_config config, const tensor_map& tensors)
      : config_(std::move(config)),
        tensors_(tensors),
        frequencies_(corematching::rotary_frequencies(config_.rope, config_.head_dim)) {}

  /// Hidden states of every token behind the last layer, [tokens, D].
  real_matrix hidden(const masked_run& run) const {
    const real_matrix& table = at("model.embed_tokens.weight");
    real_matrix x(std::ssize(run.ids), config_.hidden_size);
    for (index i = 0; i < x.rows; ++i)
      for (index j = 0; j < x.cols; ++j) x(i, j) = table(run.ids[static_cast<std::size_t>(i)], j);
    for (index layer = 0; layer < config_.layers; ++layer) {
      add(x, attended(x, layer, run));
      add(x, fed_forward(x, layer, run));
    }
    return x;
  }

  /// Logits after every token of the run, [tokens, vocabulary].
  real_matrix logits(const masked_run& run) const {
    const real_matrix& head =
        at(config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    return twin::matmul(twin::rms_norm(hidden(run), at("model.norm.weight"), eps()), head);
  }

  /// Logits after the last token.
  std::vector<double> last_logits(const masked_run& run) const {
    const real_matrix all = logits(run);
    return {all.values.end() - all.cols, all.values.end()};
  }

 private:
  const real_matrix& at(const std::string& name) const { return tensors_.at(name); }
  double eps() const { return double{static_cast<float>(config_.rms_norm_eps)}; }
  static void add(real_matrix& x, const real_matrix& more) {
    for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += more.values[i];
  }

  real_matrix projected(const real_matrix& x, const std::string& name) const {
    const auto bias = tensors_.find(name + ".bias");
    return twin::matmul(x, at(name + ".weight"), bias == tensors_.end() ? real_matrix() : bias->second);
  }

  /// Heads as rows of their own, normalised where the model does so.
  real_matrix headwise(real_matrix x, const std::string& name) const {
    if (!config_.qk_norm) return x;
    const index cols = x.cols;
    x.rows *= x.cols / config_.head_dim;
    x.cols = config_.head_dim;
    real_matrix y = twin::rms_norm(x, at(name + ".weight"), eps());
    y.rows = x.rows * x.cols / cols;
    y.cols = cols;
    return y;
  }

  real_matrix attended(const real_matrix& x, index layer, const masked_run& run) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const real_matrix normed = twin::rms_norm(x, at(prefix + "input_layernorm.weight"), eps());
    const auto heads = [&](const std::string& one) {
      return headwise(projected(normed, prefix + "self_attn." + one + "_proj"),
                      prefix + "self_attn." + one + "_norm");
    };
    const real_matrix q = heads("q"), k = heads("k");
    const real_matrix v = projected(normed, prefix + "self_attn.v_proj");
    real_matrix y(x.rows, q.cols);
    for (index query = 0; query < x.rows; ++query) attend(y, q, k, v, layer, query, run);
    return projected(y, prefix + "self_attn.o_proj");
  }

  // Keys are rotated for each query anew, since it may see them elsewhere than another query does.
  void attend(real_matrix& y, real_matrix q, real_matrix k, const real_matrix& v, index layer, index query,
              const masked_run& run) const {
    const corematching::attention_shape shape{config_.heads, config_.kv_heads, config_.head_dim,
                                              1 / std::sqrt(static_cast<float>(config_.head_dim)), true};
    const auto zeros = [&](index key) { return run.sees_zeros(layer, query, key); };
    twin::rotate(&q(query, 0), config_.heads, run.position(layer, query, query), frequencies_);
    for (index key = 0; key <= query; ++key) {
      twin::rotate(&k(key, 0), config_.kv_heads, run.position(layer, query, key), frequencies_);
      if (zeros(key))
        for (index j = 0; j < k.cols; ++j) k(key, j) = 0;
    }
    const auto sees = [&](index key) { return key <= query && run.sees(layer, query, key); };
    for (index head = 0; head < config_.heads; ++head) {
      const auto weights = twin::attention_weights(q, query, head, k, shape, sees);
      const index first = head / (config_.heads / config_.kv_heads) * config_.head_dim;
      for (index key = 0; key <= query; ++key)
        for (index j = 0; j < config_.head_dim && !zeros(key); ++j)
          y(query, head * config_.head_dim + j) += weights[static_cast<std::size_t>(key)] * v(key, first + j);
    }
  }

  real_matrix fed_forward(const real_matrix& x, index layer, const masked_run& run) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const real_matrix normed = twin::rms_norm(x, at(prefix + "post_attention_layernorm.weight"), eps());
    real_matrix inner = twin::matmul(normed, at(prefix + "mlp.gate_proj.weight"));
    for (double& gate : inner.values) gate = twin::activated(config_.hidden_act, gate);
    const real_matrix ups = twin::matmul(normed, at(prefix + "mlp.up_proj.weight"));
    run.watch(layer, normed, inner, ups);
    for (std::size_t i = 0; i < inner.values.size(); ++i) inner.values[i] *= ups.values[i];
    for (index token = 0; token < x.rows; ++token)
      for (index n = 0; n < inner.cols; ++n)
        if (!run.fires(layer, token, n)) inner(token, n) = 0;
    return twin::matmul(inner, at(prefix + "mlp.down_proj.weight"));
  }

  corematching::llama_config config_;
  const tensor_map& tensors_;
  std::vector<float> frequencies_;
};

}  // namespace support
