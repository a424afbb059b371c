// SPDX-License-Identifier: Apache-2.0
#include "corematching/model/packed/file.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "corematching/model/packed/pack.hpp"
#include "corematching/model/packed/reader.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using support::error_text;
using support::expect_parts;

/// Sizes that the block formats allow, and nothing else.
llama_config blocks_config() {
  llama_config config = support::tiny_config();
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.heads = 4;
  config.head_dim = 16;
  return config;
}

/// A checkpoint on disk that can be packed.
class packing : public testing::Test {
 protected:
  llama_config config = blocks_config();
  support::temporary_directory directory;
  io::checkpoint from = support::write_checkpoint(directory.path(), support::random_tensors(config, 5));
  std::filesystem::path path = directory.path() / "model.packed";
  B be = support::make_backend(1);

  void pack_as(dtype type) { pack(be, config, from, type, path); }
  packed_file open(dtype type) const { return {path, config, type, checkpoint_identity(from)}; }

  /// The metadata text `was` overwritten in the file's header, byte for byte.
  void damage(const std::string& was, const std::string& with) const {
    ASSERT_EQ(was.size(), with.size());
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const auto at = text.find(was);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, was.size(), with);
    std::ofstream(path, std::ios::binary) << text;
  }
};

std::vector<float> logits_of(B& be, const llama<B>& model) {
  auto seq = model.start(be, 4);
  const std::vector<std::int32_t> ids{3, 1, 60, 7, 7};
  matrix<B> x(be, std::ssize(ids), model.config().hidden_size);
  model.embed(be, x.view(), ids);
  std::vector<float> logits = model.prefill(be, seq, x.view(), 1000);
  const std::vector<float> next = model.decode(be, seq, 5);
  logits.insert(logits.end(), next.begin(), next.end());
  return logits;
}

TEST_F(packing, gives_the_model_that_converting_gives) {
  for (const bool tied : {false, true})
    for (const dtype type : {dtype::f32, dtype::bf16, dtype::f16, dtype::q8_0, dtype::q4_0,
                             dtype::q8_0_planes, dtype::q4_0_planes, dtype::f16_planes}) {
      SCOPED_TRACE(name_of(type));
      config.tie_word_embeddings = tied;
      from = support::write_checkpoint(directory.path(), support::random_tensors(config, 5));
      pack_as(type);
      const packed_file file = open(type);
      packed_reader<B> packed(be, file);
      weight_reader<B> converting(be, from, {}, type);
      const llama<B> a(be, config, packed), b(be, config, converting);
      EXPECT_EQ(a.weight_type(), whole_of(type));
      EXPECT_EQ(logits_of(be, a), logits_of(be, b));
      EXPECT_EQ(packed_weights(path), type);
    }
}

TEST_F(packing, ties_what_is_stored_once_whatever_the_configuration_says) {
  config.tie_word_embeddings = true;
  from = support::write_checkpoint(directory.path(), support::random_tensors(config, 5));
  config.tie_word_embeddings = false;
  pack_as(dtype::f32);
  EXPECT_THROW(open(dtype::f32), error);
  config.tie_word_embeddings = stored_word_embeddings(config, from).tied();
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_NO_THROW(open(dtype::f32));
}

TEST_F(packing, lays_out_layers_in_one_piece_and_aligned) {
  pack_as(dtype::q4_0);
  const packed_file file = open(dtype::q4_0);
  EXPECT_EQ(file.data_start() % packed_layer_alignment, 0u);
  std::uint64_t position = 0;
  for (const packed_tensor& t : file.layout().tensors()) {
    EXPECT_EQ(t.entry.begin, position) << t.entry.name;
    position = t.entry.end;
    const bool may_lie_anywhere = t.is_padding();
    EXPECT_TRUE(may_lie_anywhere || t.entry.begin % 64 == 0) << t.entry.name;
  }
  for (index i = 0; i < config.layers; ++i) {
    EXPECT_EQ(file.layout().layer(i).first % packed_layer_alignment, 0u);
    EXPECT_EQ(file.layout().layer(i).size(), file.layout().layer(0).size());
  }
}

TEST_F(packing, refuses_another_type_version_or_file) {
  pack_as(dtype::q8_0);
  expect_parts(error_text([&] { open(dtype::q4_0); }), path.string(), "holds \"q8_0\" weights",
               "asked for are q4_0");
  damage("\"version\":\"2\"", "\"version\":\"1\"");
  expect_parts(error_text([&] { open(dtype::q8_0); }), path.string(), "version \"1\"", "reads version 2");
  damage(packed_format, "corematching-pocket");
  expect_parts(error_text([&] { open(dtype::q8_0); }), path.string(), "not a packed file");
  expect_parts(error_text([&] { packed_weights(directory.path() / "model.safetensors"); }),
               "model.safetensors", "not a packed file");
}

TEST_F(packing, shows_control_characters_of_a_header_escaped) {
  pack_as(dtype::q8_0);
  damage("model.norm.weight", "model.nor\\u001bht");
  expect_parts(error_text([&] { open(dtype::q8_0); }), "in its place is \"model.nor\\u001bht\"");
}

TEST_F(packing, finds_damaged_data_and_names_the_tensor) {
  for (const dtype type : {dtype::f32, dtype::q4_0}) {
    pack_as(type);
    verify_packed(path);
    const packed_file file = open(type);
    for (const packed_tensor& t : file.layout().tensors())
      for (const std::uint64_t at : {t.entry.begin, (t.entry.begin + t.entry.end) / 2, t.entry.end - 1}) {
        const auto flip = [&] {
          std::fstream stored(path, std::ios::binary | std::ios::in | std::ios::out);
          stored.seekg(static_cast<std::streamoff>(file.data_start() + at));
          const int byte = stored.get();
          stored.seekp(static_cast<std::streamoff>(file.data_start() + at));
          stored.put(static_cast<char>(byte ^ 1 << at % 8));
        };
        flip();
        expect_parts(error_text([&] { verify_packed(path); }), path.string(), "\"" + t.entry.name + "\"",
                     "damaged");
        flip();
      }
    verify_packed(path);
  }
}

TEST_F(packing, finds_a_damaged_header) {
  pack_as(dtype::q8_0);
  verify_packed(path);
  const std::string sums = io::safetensors_file::open(path).metadata().at(packed_checksums);
  const std::string own = sums.substr(sums.size() - 16), other = own.substr(1) + own.front();
  ASSERT_NE(own, other);
  const std::vector<std::pair<std::string, std::string>> damages{
      {"model.norm.weight", "model.norm_weight"},
      {"\"weights\":\"q8_0\"", "\"weights\":\"q4_0\""},
      {"\"format\"", "\"farmat\""},
      {"    ", "\t   "},
      {own, other}};
  for (const auto& [was, with] : damages) {
    damage(was, with);
    expect_parts(error_text([&] { verify_packed(path); }), path.string(), "its header is damaged");
    damage(with, was);
  }
  verify_packed(path);
}

TEST_F(packing, verifies_no_other_number_of_checksums) {
  pack_as(dtype::q8_0);
  const std::string sums = io::safetensors_file::open(path).metadata().at(packed_checksums);
  damage(sums.substr(sums.size() - 6), "\\u0030");
  expect_parts(error_text([&] { verify_packed(path); }), path.string(), "checksums", "earlier version");
}

TEST_F(packing, verifies_nothing_without_checksums) {
  expect_parts(error_text([&] { verify_packed(directory.path() / "model.safetensors"); }),
               "model.safetensors", "no checksums");
}

TEST_F(packing, refuses_data_that_lie_misaligned) {
  pack_as(dtype::f32);
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  // Eight spaces more behind the header, whose length the first two bytes tell.
  const auto length = static_cast<std::size_t>(static_cast<unsigned char>(text[0]) +
                                               256 * static_cast<unsigned char>(text[1]));
  text.insert(8 + length, 8, ' ');
  text[0] = static_cast<char>((length + 8) % 256);
  text[1] = static_cast<char>((length + 8) / 256);
  std::ofstream(path, std::ios::binary) << text;
  expect_parts(error_text([&] { open(dtype::f32); }), path.string(), std::to_string(8 + length + 8),
               "no multiple of 64");
}

TEST_F(packing, refuses_a_file_of_another_checkpoint) {
  pack_as(dtype::f16);
  // The same shapes with other numbers, as fine-tuning leaves them.
  from = support::write_checkpoint(directory.path(), support::random_tensors(config, 6));
  expect_parts(error_text([&] { open(dtype::f16); }), path.string(),
               "a model of other numbers or other file names");
}

TEST_F(packing, refuses_shapes_that_the_configuration_does_not_ask_for) {
  pack_as(dtype::f16);
  config.intermediate_size = 64;
  expect_parts(error_text([&] { open(dtype::f16); }), path.string(), "layers.0.mlp.gate_proj.weight",
               "F16 [96, 64]", "F16 [64, 64]");
  config = blocks_config();
  config.layers = 3;
  expect_parts(error_text([&] { open(dtype::f16); }), path.string(), "in its place is");
  config.layers = 4;
  config.tie_word_embeddings = true;
  expect_parts(error_text([&] { open(dtype::f16); }), path.string(),
               "tensors, but the model's configuration asks for");
}

TEST_F(packing, refuses_rows_that_are_no_whole_blocks) {
  config = support::tiny_config();
  from = support::write_checkpoint(directory.path(), support::random_tensors(config, 5));
  expect_parts(error_text([&] { pack_as(dtype::q8_0); }), "embed_tokens", "q8_0", "multiple of 32", "not 20");
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(packing, leaves_nothing_behind_on_a_full_disk) {
  const support::file_size_limit limit(10'000);
  expect_parts(error_text([&] { pack_as(dtype::f32); }), path.string(), "cannot write");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST_F(packing, does_not_overwrite_the_checkpoint) {
  path = directory.path() / "model.safetensors";
  expect_parts(error_text([&] { pack_as(dtype::f32); }), path.string(), "a file of the checkpoint");
}

TEST_F(packing, reports_the_bytes_read_so_far) {
  std::vector<std::uint64_t> reports;
  pack(be, config, from, dtype::q8_0, path, [&](std::uint64_t done) { reports.push_back(done); });
  ASSERT_EQ(reports.size(), from.size());
  EXPECT_TRUE(std::ranges::is_sorted(reports));
  EXPECT_EQ(reports.back(), from.total_bytes());
}

}  // namespace
}  // namespace corematching
