// SPDX-License-Identifier: Apache-2.0
// One decoder layer at the width of LLaVA-1.5-7B against transformers. Its 200 million weights come from a
// counter on both sides (tests/reference/layer_reference.py), so that only what comes out is stored.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "corematching/backend/cpu/threads/thread_pool.hpp"
#include "corematching/backend/host_buffer.hpp"
#include "support/reference_run.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using B = support::test_backend;

std::uint64_t splitmix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// The numbers that one entry of "streams" describes: offset + (24 random bits / 2^24 - 0.5) * scale.
class number_stream {
 public:
  explicit number_stream(const io::json& description)
      : base_(description.at("stream").get<std::uint64_t>() << 40),
        rows_(description.at("shape").at(0)),
        cols_(description.at("shape").size() > 1 ? description.at("shape").at(1).get<index>() : 1),
        scale_(description.at("scale")),
        offset_(description.at("offset")) {
    const auto first = description.at("first");
    EXPECT_EQ((*this)(0), first.at(0).get<float>());
    EXPECT_EQ((*this)(1), first.at(1).get<float>());
  }

  float operator()(index i) const {
    const std::uint64_t bits = splitmix64(base_ + static_cast<std::uint64_t>(i)) >> 40;
    return static_cast<float>(offset_ + (static_cast<double>(bits) * 0x1p-24 - 0.5) * scale_);
  }

  /// As a weight matrix, or as the transposed of one.
  weight<> matrix(cpu::thread_pool& pool, bool transposed = false) const {
    const index rows = transposed ? cols_ : rows_, cols = transposed ? rows_ : cols_;
    auto memory = std::make_shared<host_buffer<float>>(rows * cols);
    pool.for_ranges(rows, 1, [&](int, index first, index last) {
      for (index r = first; r < last; ++r)
        for (index c = 0; c < cols; ++c)
          memory->data()[r * cols + c] = (*this)(transposed ? c * cols_ + r : r * cols_ + c);
    });
    const auto* bytes = reinterpret_cast<const std::byte*>(memory->data());
    return {{bytes, dtype::f32, rows, cols, cols * index{sizeof(float)}}, memory};
  }

  host_buffer<float> vector() const {
    host_buffer<float> values(rows_ * cols_);
    for (index i = 0; i < values.size(); ++i) values.data()[i] = (*this)(i);
    return values;
  }

 private:
  std::uint64_t base_;
  index rows_, cols_;
  double scale_, offset_;
};

decoder_weights<B> make_weights(B& be, const io::json& streams) {
  cpu::thread_pool pool(2);
  const auto stream = [&](const char* name) { return number_stream(streams.at(name)); };
  decoder_weights<B> w;
  w.attention_norm = be.place_vector(stream("input_layernorm.weight").vector().view());
  w.ffn_norm = be.place_vector(stream("post_attention_layernorm.weight").vector().view());
  w.query = stream("self_attn.q_proj.weight").matrix(pool);
  w.key = stream("self_attn.k_proj.weight").matrix(pool);
  w.value = stream("self_attn.v_proj.weight").matrix(pool);
  w.output = stream("self_attn.o_proj.weight").matrix(pool);
  w.gate = stream("mlp.gate_proj.weight").matrix(pool);
  w.up = stream("mlp.up_proj.weight").matrix(pool);
  w.down_transposed = stream("mlp.down_proj.weight").matrix(pool, true);
  return w;
}

template <class T>
std::vector<T> stored(const io::checkpoint& file, const char* name) {
  const io::tensor& tensor = file.at(name);
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

TEST(layer_7b, agrees_with_transformers) {
  const io::json reference = test::reference_description("layer_7b");
  const auto expected = io::checkpoint::open(test::reference_directory("layer_7b") / "expected.safetensors");
  const index hidden = reference.at("hidden_size"), neurons = reference.at("intermediate_size");
  const index heads = reference.at("num_attention_heads"), head_dim = hidden / heads;
  const decoder_shape shape{
      hidden, neurons, {heads, heads, head_dim, 1 / std::sqrt(static_cast<float>(head_dim)), true}};
  B be = support::make_backend(2);
  const decoder_layer<B> layer(make_weights(be, reference.at("streams")), shape.attention, activation::silu,
                               reference.at("rms_norm_eps").get<float>());

  host_buffer<float> input = number_stream(reference.at("streams").at("input")).vector();
  const index tokens = input.size() / hidden;
  const matrix_view<float> x{input.data(), tokens, hidden, hidden};
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> frequencies =
      rotary_frequencies({.theta = reference.at("rope_theta").get<double>()}, head_dim);

  scratch<B> s(be, shape, tokens, tokens);
  kv_layer<B> cache(shape.attention.kv_size(), 0);
  core_matching<B> state(be, test::config_of(reference.at("options")), 1, shape);
  state.begin_prompt(0, std::vector<token_kind>(static_cast<std::size_t>(tokens), token_kind::text));
  layer_recording recording;
  chain hooks{record_hook<B>(recording), core_matching<B>::prefill_hook(state)};
  layer.forward({be, 0, {positions.data(), tokens}, cache}, s, x, {positions.data(), tokens},
                {frequencies.data(), std::ssize(frequencies)}, hooks);

  // Sums of 11008 terms in binary32; transformers' own binary32 run is 4e-7 away ("float32_error").
  const auto output = stored<float>(expected, "output");
  double difference = 0, norm = 0;
  for (index i = 0; i < input.size(); ++i) {
    const double right = output[static_cast<std::size_t>(i)];
    difference += std::pow(input.data()[i] - right, 2);
    norm += right * right;
  }
  EXPECT_LE(std::sqrt(difference / norm), 4e-6);

  const auto chosen = state.core_neurons(0);
  EXPECT_EQ(std::vector<std::int32_t>(chosen.begin(), chosen.end()),
            stored<std::int32_t>(expected, "core_neurons"));

  const auto& activation = recording.activations.at(0);
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(tokens * select::words_for(neurons)));
  std::vector<std::int32_t> counts(static_cast<std::size_t>(tokens)), overlaps(counts.size());
  const matrix_view<std::uint64_t> bit_rows{bits.data(), tokens, select::words_for(neurons),
                                            select::words_for(neurons)};
  be.activated_neurons(bit_rows, {counts.data(), tokens},
                       {activation.values.data(), tokens, neurons, neurons});
  EXPECT_EQ(counts, stored<std::int32_t>(expected, "activated"));
  std::vector<std::uint64_t> core(static_cast<std::size_t>(select::words_for(neurons)));
  select::indices_to_bits(chosen, core.data(), std::ssize(core));
  be.overlap({overlaps.data(), tokens}, bit_rows, {core.data(), std::ssize(core)});
  EXPECT_EQ(overlaps, stored<std::int32_t>(expected, "overlaps"));
}

}  // namespace
}  // namespace corematching
