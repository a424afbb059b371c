// SPDX-License-Identifier: Apache-2.0
// Models of GGUF files against models of checkpoints with the same weights.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "corematching/model/config.hpp"
#include "corematching/model/gguf/reader.hpp"
#include "corematching/model/packed/gguf_layout.hpp"
#include "corematching/model/packed/identity.hpp"
#include "corematching/model/packed/pack.hpp"
#include "corematching/model/packed/reader.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"
#include "support/tiny_gguf.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using io::ggml_type;
using support::gguf_types;
using support::tiny_gguf;

io::gguf_file parsed(const std::string& bytes) {
  return io::gguf_file::parse(test::bytes_of(bytes), "m.gguf");
}

/// Of a prompt, where products have many tokens, and of a token behind it.
std::vector<float> gguf_logits(B& be, const llama<B>& model) {
  auto seq = model.start(be, 4);
  const std::vector<std::int32_t> ids{3, 1, 60, 7, 7, 12};
  matrix<B> x(be, std::ssize(ids), model.config().hidden_size);
  model.embed(be, x.view(), ids);
  std::vector<float> logits = model.prefill(be, seq, x.view(), 1000);
  const std::vector<float> next = model.decode(be, seq, 5);
  logits.insert(logits.end(), next.begin(), next.end());
  return logits;
}

std::vector<float> logits_of_file(B& be, const io::gguf_file& file, std::optional<dtype> wanted = {}) {
  const llama_config config = read_gguf_config(file);
  gguf_reader<B> reader(be, file, config, 2, {}, wanted);
  return gguf_logits(be, llama<B>(be, config, reader));
}

std::vector<float> logits_of_checkpoint(B& be, const llama_config& config, const support::tensor_map& tensors,
                                        std::optional<dtype> wanted = {}) {
  const io::checkpoint from = support::unlinked_checkpoint(tensors);
  weight_reader<B> reader(be, from, {}, wanted);
  return gguf_logits(be, llama<B>(be, config, reader));
}

/// Whether no logit is off by more than `unit` of the largest.
void expect_alike(const std::vector<float>& logits, const std::vector<float>& expected, double unit) {
  ASSERT_EQ(logits.size(), expected.size());
  double largest = 0;
  for (const float logit : expected) largest = std::max(largest, std::fabs(double{logit}));
  for (std::size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], unit * largest) << i;
}
/// Few tokens are off by 2^-16 of their largest element where weights are blocks, in seven products of each
/// of two layers and in the head, one after the other: three times what independent errors of that size add
/// up to.
const double rounded_once = 3 * std::sqrt(15) * 0x1p-16;
/// The same for rows that are kept as `type`, whose tokens may be rounded to 8.
double unit_of_rows(dtype type) {
  return support::rounds_few_tokens_to_bytes(type) ? 32767.0 / 127 * rounded_once : rounded_once;
}

/// Types of each kind.
gguf_types mixed_with(ggml_type embedding, ggml_type keys) {
  return {{"token_embd", embedding},   {"attn_q", ggml_type::q4_1},      {"attn_k", keys},
          {"attn_v", ggml_type::q2_k}, {"attn_output", ggml_type::q5_1}, {"ffn_gate", ggml_type::q4_k},
          {"ffn_up", ggml_type::q5_k}, {"ffn_down", ggml_type::q6_k},    {"output.", ggml_type::q3_k}};
}
const gguf_types moved = mixed_with(ggml_type::q5_0, ggml_type::q5_0);
const gguf_types mixed = mixed_with(ggml_type::q6_k, ggml_type::q5_k);  // of which those two are kept

TEST(gguf_model, computes_as_the_checkpoint_of_its_weights) {
  for (const char* architecture : {"llama", "qwen2", "qwen3"})
    for (const bool tied : {false, true})
      for (const auto& [types, unit] : std::vector<std::pair<gguf_types, double>>{
               {{}, 1e-6}, {moved, rounded_once}, {mixed, unit_of_rows(dtype::q5_k)}}) {
        SCOPED_TRACE(testing::Message() << architecture << ", " << tied << ", " << types.size());
        llama_config config = support::gguf_config();
        config.tie_word_embeddings = tied;
        config.qk_norm = std::string(architecture) == "qwen3";
        config.qkv_bias = !config.qk_norm && (!types.empty() || tied);
        config.o_bias = tied;
        const tiny_gguf made(architecture, config, types);
        const std::string bytes = made.file.bytes();
        const auto file = parsed(bytes);
        const llama_config read = read_gguf_config(file);
        EXPECT_EQ(read.qkv_bias, config.qkv_bias);
        EXPECT_EQ(read.o_bias, config.o_bias);
        EXPECT_EQ(read.qk_norm, config.qk_norm);
        EXPECT_EQ(read.tie_word_embeddings, tied);
        EXPECT_EQ(read.vocab_size, config.vocab_size);
        B be = support::make_backend(2);
        expect_alike(logits_of_file(be, file), logits_of_checkpoint(be, config, made.tensors), unit);
      }
}

TEST(gguf_model, reads_down_of_every_type_by_neuron) {
  for (const support::block_type& of : support::block_types) {
    SCOPED_TRACE(io::name_of(of.type));
    const llama_config config = support::gguf_config();
    const tiny_gguf made("llama", config, {{"ffn_down", of.type}});
    const std::string bytes = made.file.bytes();
    const auto file = parsed(bytes);
    EXPECT_TRUE(shares_scales(
        gguf_type(file, {tensor_kind::transposed, "model.layers.1.mlp.down_proj.weight", 256, 512})));
    B be = support::make_backend(2);
    expect_alike(logits_of_file(be, file), logits_of_checkpoint(be, config, made.tensors), rounded_once);
  }
}

TEST(gguf_model, has_gate_and_up_in_one_type) {
  const llama_config config = support::gguf_config();
  const auto type_of = [](const io::gguf_file& file, const std::string& name) {
    return gguf_type(file, {tensor_kind::neuron_matrix, "model.layers.0.mlp." + name + ".weight", 512, 256});
  };
  const std::vector<std::pair<gguf_types, dtype>> cases{
      {{{"ffn_gate", ggml_type::q4_k}, {"ffn_up", ggml_type::q4_k}}, dtype::q4_k},
      {{{"ffn_gate", ggml_type::q5_k}, {"ffn_up", ggml_type::q5_k}}, dtype::q5_k},
      {{{"ffn_gate", ggml_type::q6_k}, {"ffn_up", ggml_type::q6_k}}, dtype::q6_k},
      {{{"ffn_gate", ggml_type::q4_k}, {"ffn_up", ggml_type::q5_1}}, dtype::wide_32m},
      {{{"ffn_gate", ggml_type::q4_k}, {"ffn_up", ggml_type::q6_k}}, dtype::wide_16m},
      {{{"ffn_up", ggml_type::q6_k}}, dtype::f32}};
  for (const auto& [types, expected] : cases) {
    const tiny_gguf made("qwen2", config, types);
    const std::string bytes = made.file.bytes();
    const auto file = parsed(bytes);
    EXPECT_EQ(type_of(file, "gate_proj"), expected);
    EXPECT_EQ(type_of(file, "up_proj"), expected);
    B be = support::make_backend(1);
    expect_alike(logits_of_file(be, file), logits_of_checkpoint(be, config, made.tensors),
                 unit_of_rows(expected));
  }
}

TEST(gguf_model, keeps_numbers_where_they_are_mapped_and_rows_in_super_blocks_byte_for_byte) {
  const llama_config config = support::gguf_config();
  const tiny_gguf made(
      "llama", config,
      {{"attn_q", ggml_type::q5_k}, {"attn_v", ggml_type::q4_k}, {"ffn_up", ggml_type::q6_k}});
  const std::string bytes = made.file.bytes();
  const auto file = parsed(bytes);
  B be = support::make_backend(2);
  gguf_reader<B> reader(be, file, config, 2);
  const auto weight_of = [&](const char* ours) {
    return reader.matrix("model.layers.0." + std::string(ours) + ".weight", {});
  };
  const auto stored = [&](const char* theirs) {
    return file.at("blk.0." + std::string(theirs) + ".weight").bytes;
  };
  EXPECT_EQ(weight_of("self_attn.o_proj").view.data, stored("attn_output").data());
  for (const auto& [ours, theirs] :
       {std::pair("self_attn.v_proj", "attn_v"), std::pair("mlp.up_proj", "ffn_up")}) {
    const auto weight = weight_of(ours);
    EXPECT_NE(weight.view.data, stored(theirs).data());
    EXPECT_EQ(std::memcmp(weight.view.data, stored(theirs).data(), stored(theirs).size()), 0) << ours;
  }
  EXPECT_EQ(weight_of("self_attn.q_proj").view.type, dtype::q5_k);  // whose rows are in another order
}

TEST(gguf_model, is_converted_as_a_checkpoint_is) {
  const llama_config config = support::gguf_config();
  const tiny_gguf made("llama", config, mixed);
  const std::string bytes = made.file.bytes();
  const auto file = parsed(bytes);
  B be = support::make_backend(2);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::q8_0_planes, dtype::f16_planes}) {
    SCOPED_TRACE(name_of(type));
    EXPECT_EQ(logits_of_file(be, file, type), logits_of_checkpoint(be, config, made.tensors, type));
  }
}

TEST(gguf_model, names_rows_in_super_blocks_that_hold_no_number) {
  const llama_config config = support::gguf_config();
  for (const auto& [type, scale_at] : {std::pair(ggml_type::q4_k, 0), std::pair(ggml_type::q4_k, 2),
                                       std::pair(ggml_type::q5_k, 0), std::pair(ggml_type::q6_k, 208)}) {
    SCOPED_TRACE(io::name_of(type));
    std::string bytes = tiny_gguf("llama", config, {{"attn_v", type}}).file.bytes();
    const std::string name = "blk.1.attn_v.weight";
    const auto tensor = parsed(bytes).at(name).bytes;
    const auto at = tensor.data() - reinterpret_cast<const std::byte*>(bytes.data());
    const auto blocks = static_cast<std::ptrdiff_t>(io::facts_of(type).bytes);
    std::memcpy(bytes.data() + at + std::ssize(tensor) - blocks + scale_at, "\x00\x7e", 2);  // a NaN
    B be = support::make_backend(2);
    const auto file = parsed(bytes);
    gguf_reader<B> reader(be, file, config, 2);
    support::expect_parts(
        support::error_text([&] { reader.matrix("model.layers.1.self_attn.v_proj.weight", {}); }),
        "m.gguf: tensor \"" + name + "\"", "it holds a scale that is no finite number");
  }
}

/// Gate and up in one type, all others in another.
gguf_types with_neurons_in(ggml_type neurons) {
  return {{"token_embd", ggml_type::q6_k}, {"attn_q", ggml_type::q4_k}, {"attn_v", ggml_type::q5_0},
          {"ffn_gate", neurons},           {"ffn_up", neurons},         {"ffn_down", ggml_type::q6_k},
          {"output.", ggml_type::q6_k}};
}

TEST(gguf_model, splits_gate_and_up_into_planes_and_changes_no_number) {
  const llama_config config = support::gguf_config();
  for (const auto& [stored, planes] :
       {std::pair(ggml_type::q4_k, dtype::q4_k_planes), std::pair(ggml_type::q4_0, dtype::q4_0_planes),
        std::pair(ggml_type::q8_0, dtype::q8_0_planes)}) {
    SCOPED_TRACE(name_of(planes));
    const tiny_gguf made("llama", config, with_neurons_in(stored));
    const std::string bytes = made.file.bytes();
    const auto file = parsed(bytes);
    const gguf_weight_types types(file, config, planes), as_stored(file, config, std::nullopt);
    EXPECT_TRUE(types.splits() && !as_stored.splits());
    visit_gguf_tensors(config, [&](const tensor_description& t) {
      EXPECT_EQ(types(t), t.kind == tensor_kind::neuron_matrix ? planes : as_stored(t)) << t.name;
    });
    B be = support::make_backend(2);
    gguf_reader<B> whole(be, file, config, 2), split(be, file, config, 2, {}, planes);
    for (const char* name : {"model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"}) {
      const auto expected = whole.neuron_matrix(name, {}), found = split.neuron_matrix(name, {});
      EXPECT_EQ(found.view.type, planes);
      EXPECT_EQ(support::loaded(be, found.view).values, support::loaded(be, expected.view).values) << name;
    }
    expect_alike(logits_of_file(be, file, planes), logits_of_checkpoint(be, config, made.tensors),
                 32767.0 / 127 * rounded_once);
  }
}

TEST(gguf_model, is_rounded_to_planes_where_it_holds_something_else) {
  const llama_config config = support::gguf_config();
  gguf_types types = with_neurons_in(ggml_type::q8_0);
  types["ffn_up"] = ggml_type::q5_k;
  const tiny_gguf made("llama", config, types);
  const std::string bytes = made.file.bytes();
  const auto file = parsed(bytes);
  const gguf_weight_types rounded(file, config, dtype::q8_0_planes);
  EXPECT_FALSE(rounded.splits());
  EXPECT_EQ(rounded({tensor_kind::matrix, "model.embed_tokens.weight", 64, 256}), dtype::q8_0);
  EXPECT_EQ(support::error_text([&] { gguf_weight_types(file, config, dtype::q4_k_planes); }),
            "m.gguf: tensor \"blk.1.ffn_up.weight\" is Q5_K: q4_k_planes split q4_k alone");
}

TEST(gguf_model, divides_frequencies_by_what_the_file_says) {
  llama_config config = support::gguf_config();
  tiny_gguf made("llama", config, {});
  const std::vector<float> divisors{1, 1, 1, 1, 2, 4, 8, 8};
  made.file.tensor("rope_freqs.weight", {8}, 0,
                   {reinterpret_cast<const char*>(divisors.data()), divisors.size() * sizeof(float)});
  const std::string bytes = made.file.bytes();
  const auto file = parsed(bytes);
  const llama_config read = read_gguf_config(file);
  EXPECT_EQ(read.rope.divisors, divisors);
  const auto plain = rotary_frequencies(config.rope, 16), divided = rotary_frequencies(read.rope, 16);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(divided[i], plain[i] / divisors[i]);
  config.rope.divisors = divisors;
  B be = support::make_backend(1);
  expect_alike(logits_of_file(be, file), logits_of_checkpoint(be, config, made.tensors), 1e-6);
}

TEST(gguf_model, packed_is_the_same_model) {
  const support::temporary_directory directory;
  const llama_config config = support::gguf_config();
  const auto types = with_neurons_in(ggml_type::q4_k);
  const auto path = directory.write("m.gguf", tiny_gguf("llama", config, types).file.bytes());
  const auto file = io::gguf_file::open(path);
  const llama_config read = read_gguf_config(file);
  EXPECT_EQ(read_model_config(path).text(), read);
  B be = support::make_backend(2);
  for (const std::optional<dtype> type :
       {std::optional<dtype>(), std::optional(dtype::q8_0), std::optional(dtype::q4_k_planes)}) {
    const auto packed_path = directory.path() / "m.packed";
    pack(be, read, file, type, packed_path, 2);
    EXPECT_EQ(packed_weights(packed_path), type);
    const packed_file packed(packed_path, gguf_layout(file, read, type), type, gguf_identity(file));
    packed_reader<B> reader(be, packed);
    EXPECT_EQ(gguf_logits(be, llama<B>(be, read, reader)), logits_of_file(be, file, type));
    verify_packed(packed_path);
  }
  const auto other = directory.write("other.gguf", tiny_gguf("llama", config, types, 6).file.bytes());
  EXPECT_NE(gguf_identity(file), gguf_identity(io::gguf_file::open(other)));
  EXPECT_EQ(model_identity(path), gguf_identity(file));
  support::expect_parts(support::error_text([&] { pack(be, read, file, std::nullopt, path, 1); }),
                        "m.gguf: is a file of the checkpoint, so it is not overwritten");
}

/// What is wrong with a file after `change`.
template <class Change>
std::string refusal_after(Change&& change, const gguf_types& types = {}, const char* architecture = "llama") {
  tiny_gguf made(architecture, support::gguf_config(), types);
  change(made.file);
  const std::string bytes = made.file.bytes();
  return support::error_text([&] {
    const auto file = parsed(bytes);
    B be = support::make_backend(1);
    const llama_config config = read_gguf_config(file);
    gguf_reader<B>(be, file, config, 1);
  });
}

TEST(gguf_model, is_refused_by_what_it_has_beside) {
  const auto unchanged = [](auto&) {};
  EXPECT_EQ(refusal_after(unchanged, {}, "gemma3"),
            "m.gguf: the architecture \"gemma3\" is not supported; llama, qwen2 and qwen3 are");
  EXPECT_EQ(refusal_after(unchanged, {}, "qwen3moe"),
            "m.gguf: the architecture \"qwen3moe\" is not supported; llama, qwen2 and qwen3 are");
  EXPECT_EQ(refusal_after(unchanged, {}, "qwen3"), "m.gguf: no tensor \"blk.0.attn_q_norm.weight\"");
  EXPECT_EQ(refusal_after([](auto& file) { file.tensor("blk.0.attn_q_norm.weight", {1}, 0, "abcd"); }),
            "m.gguf: tensor \"blk.0.attn_q_norm.weight\" is none that such a model has here");
  EXPECT_EQ(refusal_after([](auto& file) { file.integer("llama.expert_count", 8); }),
            "m.gguf: llama.expert_count says that there are experts, which are not supported");
  EXPECT_EQ(refusal_after([](auto& file) { file.text("llama.rope.scaling.type", "yarn"); }),
            "m.gguf: llama.rope.scaling.type is \"yarn\", supported are none and linear");
  EXPECT_EQ(refusal_after([](auto& file) { file.integer("llama.rope.dimension_count", 8); }),
            "m.gguf: llama.rope.dimension_count is 8, supported is a head's 16");
  EXPECT_EQ(refusal_after([](auto& file) { file.tensor("blk.0.ffn_gate_inp.weight", {1}, 0, "abcd"); }),
            "m.gguf: tensor \"blk.0.ffn_gate_inp.weight\" is none that such a model has here");
  EXPECT_EQ(refusal_after([](auto& file) { file.tensor("blk.1.attn_rot_embd", {1}, 0, "abcd"); }),
            "m.gguf: tensor \"blk.1.attn_rot_embd\" is none that such a model has here");
}

TEST(gguf_model, is_refused_where_a_tensor_is_wrong) {
  const std::string ones(4, '\x01');
  const auto with = [&](const std::string& name, const std::vector<std::uint64_t>& dimensions,
                        std::uint32_t type, const std::string& bytes) {
    llama_config config = support::gguf_config();
    config.layers = 1;
    tiny_gguf made("llama", config, {});
    test::raw_gguf again;
    again.text("general.architecture", "llama");
    const std::string all = made.file.bytes();
    const auto file = parsed(all);
    for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                            "attention.head_count", "attention.head_count_kv", "attention.key_length"})
      again.integer(std::string("llama.") + key, static_cast<std::uint32_t>(file.metadata().integer(
                                                     std::string("llama.") + key, 0, 1000)));
    again.raw("llama.attention.layer_norm_rms_epsilon", 6, std::string("\xac\xc5\x27\x37", 4));
    for (const auto& [stored, tensor] : file.tensors())
      if (stored != name)
        again.tensor(stored, std::vector<std::uint64_t>(tensor.shape.rbegin(), tensor.shape.rend()), 0,
                     {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()});
    if (!bytes.empty()) again.tensor(name, dimensions, type, bytes);
    const std::string made_again = again.bytes();
    return support::error_text([&] {
      const auto wrong = parsed(made_again);
      B be = support::make_backend(1);
      const llama_config read = read_gguf_config(wrong);
      gguf_reader<B> reader(be, wrong, read, 1);
      llama<B>(be, read, reader);
    });
  };
  EXPECT_EQ(with("blk.0.ffn_up.weight", {}, 0, ""), "m.gguf: no tensor \"blk.0.ffn_up.weight\"");
  EXPECT_EQ(with("output_norm.weight", {1}, 0, ones),
            "m.gguf: tensor \"output_norm.weight\" has shape [1], but the metadata ask for [256]");
  EXPECT_EQ(with("blk.0.attn_v.weight", {256, 32}, 18, std::string(32 * 98, '\0')).substr(0, 59),
            "m.gguf: tensor \"blk.0.attn_v.weight\": IQ3_XXS is not read; ");
  EXPECT_EQ(with("blk.0.attn_norm.weight", {256}, 8, std::string(8 * 34, '\0')),
            "m.gguf: tensor \"blk.0.attn_norm.weight\" is Q8_0, expected F32, F16 or BF16");
  EXPECT_EQ(
      with("blk.0.attn_v.weight", {256, 32}, 8, std::string(32 * 8 * 34, '\x7c')),
      "m.gguf: tensor \"blk.0.attn_v.weight\" Q8_0 [32, 256]: it holds a scale that is no finite number");
}

}  // namespace
}  // namespace corematching
