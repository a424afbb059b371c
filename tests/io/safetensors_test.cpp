// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/safetensors.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/raw_safetensors.hpp"
#include "support/error_text.hpp"
#include "support/temporary_directory.hpp"

namespace {

using corematching::io::checkpoint;
using corematching::io::element_type;
using corematching::io::parse_shard_index;
using corematching::io::safetensors_file;
using corematching::io::tensor;
using support::bytes_of;
using support::error_text;
using support::expect_parts;
using support::raw_safetensors;

std::string text_of(const tensor& t) {
  return {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()};
}

// A file with one tensor of bytes.
std::string one_tensor(const std::string& name, const std::string& content) {
  const std::string size = std::to_string(content.size());
  return raw_safetensors(
      "{\"" + name + R"(":{"dtype":"U8","shape":[)" + size + R"(],"data_offsets":[0,)" + size + "]}}",
      content);
}

TEST(safetensors_file, shows_tensors_with_type_shape_bytes_and_file) {
  const support::temporary_directory directory;
  const auto path = directory.write(
      "m.safetensors",
      raw_safetensors(R"({"a":{"dtype":"U8","shape":[2,2],"data_offsets":[2,6]},)"
                      R"("b":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"__metadata__":{"k":"v"}})",
                      "hhABCD"));
  const auto file = safetensors_file::open(path);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(text_of(file.tensors()[0]), "hh");
  EXPECT_EQ(file.tensors()[0].type, element_type::f16);
  EXPECT_TRUE(file.tensors()[0].shape.empty());
  EXPECT_EQ(text_of(file.tensors()[1]), "ABCD");
  EXPECT_EQ(file.tensors()[1].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(file.tensors()[1].file, path);
}

TEST(safetensors_file, keeps_its_mapping_as_long_as_a_tensor_lives) {
  const support::temporary_directory directory;
  std::optional<tensor> kept;
  {
    const auto file = safetensors_file::open(directory.write("m.safetensors", one_tensor("a", "alive")));
    kept = file.tensors()[0];
  }
  EXPECT_EQ(text_of(*kept), "alive");
  const std::weak_ptr<const void> mapping = kept->storage;
  kept.reset();
  EXPECT_TRUE(mapping.expired());
}

TEST(tensor, tells_whether_its_data_are_aligned) {
  // The mapping starts at a page, the data after 8 bytes and the header.
  const support::temporary_directory directory;
  for (std::size_t padding = 0; padding < 8; ++padding) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})" + std::string(padding, ' ');
    const float value = 1.5f;
    std::string data(4, '\0');
    std::memcpy(data.data(), &value, 4);
    const auto file = safetensors_file::open(directory.write("m.safetensors", raw_safetensors(header, data)));
    EXPECT_EQ(file.tensors()[0].is_aligned(), header.size() % 4 == 0);
    float read = 0;
    std::memcpy(&read, file.tensors()[0].bytes.data(), 4);
    EXPECT_EQ(read, value);
  }
}

TEST(tensor, of_bytes_is_always_aligned) {
  const std::string file = one_tensor("a", "x");
  EXPECT_TRUE(safetensors_file::parse(bytes_of(file), "f", nullptr).tensors()[0].is_aligned());
}

TEST(tensor, gives_the_dtype_of_weights_and_refuses_other_types) {
  tensor t{"w", element_type::bf16, {}, {}, "m.safetensors", nullptr};
  EXPECT_EQ(weight_dtype(t), corematching::dtype::bf16);
  t.type = element_type::f16;
  EXPECT_EQ(weight_dtype(t), corematching::dtype::f16);
  t.type = element_type::f32;
  EXPECT_EQ(weight_dtype(t), corematching::dtype::f32);
  t.type = element_type::i64;
  expect_parts(error_text([&] { weight_dtype(t); }),
               "m.safetensors: tensor \"w\" is I64, expected F32, F16 or BF16");
}

TEST(checkpoint, opens_a_file_or_the_directory_that_holds_it) {
  const support::temporary_directory directory;
  const auto path = directory.write("model.safetensors", one_tensor("a", "abc"));
  for (const auto& name : {path, directory.path()}) {
    const auto opened = checkpoint::open(name);
    EXPECT_EQ(opened.path(), name);
    EXPECT_EQ(opened.size(), 1u);
    EXPECT_EQ(text_of(opened.at("a")), "abc");
    EXPECT_EQ(opened.total_bytes(), 3u);
  }
}

TEST(checkpoint, follows_symbolic_links_as_download_caches_make_them) {
  const support::temporary_directory directory;
  directory.write("blob", one_tensor("a", "abc"));
  std::filesystem::create_symlink("blob", directory.path() / "model.safetensors");
  EXPECT_EQ(text_of(checkpoint::open(directory.path()).at("a")), "abc");
}

TEST(checkpoint, says_what_it_looked_for) {
  const support::temporary_directory directory;
  expect_parts(error_text([&] { checkpoint::open(directory.path()); }), directory.path().string(),
               "holds neither model.safetensors nor model.safetensors.index.json");
  directory.write("pytorch_model.bin.index.json", "{}");
  expect_parts(error_text([&] { checkpoint::open(directory.path()); }), "convert them to safetensors");
  const auto absent = directory.path() / "absent";
  expect_parts(error_text([&] { checkpoint::open(absent); }), absent.string(), "cannot open");
}

TEST(checkpoint, lists_names_in_order) {
  const support::temporary_directory directory;
  const auto path = directory.write("m.safetensors",
                                    raw_safetensors(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                                    R"("a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                                                    "xyz"));
  const auto opened = checkpoint::open(path);
  EXPECT_EQ(opened.names(), (std::vector<std::string_view>{"a", "b"}));
  EXPECT_EQ(opened.total_bytes(), 3u);
  EXPECT_TRUE(opened.contains("a"));
  EXPECT_EQ(opened.find("c"), nullptr);
}

TEST(checkpoint, names_a_near_miss) {
  const support::temporary_directory directory;
  const auto path =
      directory.write("m.safetensors", one_tensor("language_model.model.layers.0.mlp.up_proj.weight", "x"));
  const auto opened = checkpoint::open(path);
  const std::string near = "; the nearest name is \"language_model.model.layers.0.mlp.up_proj.weight\"";
  expect_parts(error_text([&] { opened.at("model.language_model.layers.0.mlp.up_proj.weight"); }),
               path.string(), "no tensor \"model.language_model.layers.0.mlp.up_proj.weight\"", near);
  expect_parts(error_text([&] { opened.at("language_model.model.layers.0.mlp.up_porj.weight"); }), near);
  const auto far = error_text([&] { opened.at("lm_head"); });
  EXPECT_EQ(far.find("nearest"), std::string::npos) << far;
  expect_parts(error_text([&] { opened.at(""); }), "no tensor \"\"");
}

class sharded_checkpoint : public testing::Test {
 protected:
  void write_index(const std::string& weight_map) {
    directory.write("model.safetensors.index.json",
                    R"({"metadata":{"total_size":5},"weight_map":)" + weight_map + "}");
  }
  std::string refusal() {
    return error_text([&] { checkpoint::open(directory.path()); });
  }
  support::temporary_directory directory;
};

TEST_F(sharded_checkpoint, finds_each_tensor_in_its_shard) {
  directory.write("one.safetensors", one_tensor("a", "ab"));
  directory.write("two.safetensors", one_tensor("b", "cde"));
  write_index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const auto opened = checkpoint::open(directory.path());
  EXPECT_EQ(text_of(opened.at("a")), "ab");
  EXPECT_EQ(text_of(opened.at("b")), "cde");
  EXPECT_EQ(opened.at("b").file, directory.path() / "two.safetensors");
  EXPECT_EQ(opened.total_bytes(), 5u);
}

TEST_F(sharded_checkpoint, takes_each_tensor_from_the_shard_that_the_index_names) {
  directory.write("one.safetensors", one_tensor("a", "old"));
  directory.write("two.safetensors", one_tensor("a", "new"));
  write_index(R"({"a":"two.safetensors"})");
  EXPECT_EQ(text_of(checkpoint::open(directory.path()).at("a")), "new");
}

TEST_F(sharded_checkpoint, needs_every_shard) {
  write_index(R"({"a":"one.safetensors"})");
  expect_parts(refusal(), "model.safetensors.index.json: shard \"one.safetensors\" does not exist");
}

TEST_F(sharded_checkpoint, needs_every_tensor_in_its_shard) {
  directory.write("one.safetensors", one_tensor("a", "ab"));
  write_index(R"({"a":"one.safetensors","b":"one.safetensors"})");
  expect_parts(refusal(), "model.safetensors.index.json: tensor \"b\" is not in \"one.safetensors\"");
}

TEST_F(sharded_checkpoint, names_the_shard_that_is_damaged) {
  directory.write("one.safetensors", one_tensor("a", "ab").substr(0, 20));
  write_index(R"({"a":"one.safetensors"})");
  expect_parts(refusal(), (directory.path() / "one.safetensors").string() + ": truncated");
}

TEST_F(sharded_checkpoint, refuses_shards_outside_its_directory) {
  for (const char* shard :
       {"../one.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "one\\u0000"}) {
    write_index(R"({"a":")" + std::string(shard) + "\"}");
    expect_parts(refusal(), "model.safetensors.index.json: weight_map \"a\": shard ",
                 "is not a plain file name");
  }
}

TEST(shard_index, must_map_names_to_files) {
  const auto refusal = [](const char* text) {
    return error_text([&] { parse_shard_index(bytes_of(text), "index.json"); });
  };
  expect_parts(refusal("[]"), "index.json: the document is a list");
  expect_parts(refusal("{}"), "index.json: weight_map is missing");
  expect_parts(refusal(R"({"weight_map":[]})"), "index.json: weight_map is a list");
  expect_parts(refusal(R"({"weight_map":{"a":1}})"), "index.json: weight_map \"a\" is not a string");
  expect_parts(refusal(R"({"weight_map":{"a":"x","a":"y"}})"), "index.json: duplicate key \"a\"");
}

}  // namespace
