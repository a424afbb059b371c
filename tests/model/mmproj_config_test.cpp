// SPDX-License-Identifier: Apache-2.0
// What an mmproj file says of its tower and projector, and what of it is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "corematching/model/config.hpp"
#include "corematching/model/gguf/mmproj_config.hpp"
#include "corematching/model/gguf/mmproj_tensors.hpp"
#include "support/error_text.hpp"
#include "support/llava_gguf.hpp"
#include "support/paths.hpp"

namespace corematching {
namespace {

using support::mmproj_parsed;
using support::mmproj_scheme;
using support::written_llava;

/// What becomes of the metadata and tensors of a file of `scheme` after `change`.
template <class Change>
mmproj_config read_after(Change&& change, mmproj_scheme scheme = mmproj_scheme::old_converter) {
  const support::mmproj_description what{{8, 16, 3, 2, 4, 2, 1e-5f, activation::quick_gelu}, 2, 8, scheme};
  auto file = support::mmproj_file(what, [](const std::string&, const std::vector<std::int64_t>& shape) {
    std::int64_t size = 1;
    for (const std::int64_t side : shape) size *= side;
    return support::stored_tensor{0,
                                  support::float_bytes(std::vector<float>(static_cast<std::size_t>(size)))};
  });
  change(file);
  const std::string bytes = file.bytes();
  return read_whole_mmproj_config(mmproj_parsed(bytes));
}

TEST(mmproj_config, is_read_from_both_schemes) {
  const auto unchanged = [](auto&) {};
  const mmproj_config old = read_after(unchanged);
  const mmproj_config todays = read_after(unchanged, mmproj_scheme::todays);
  EXPECT_EQ(old.vision.layers, 2);
  EXPECT_EQ(todays.vision.layers, 3);
  for (const mmproj_config& config : {old, todays}) {
    EXPECT_EQ(config.layers, 2);
    EXPECT_EQ(config.token_size, 8);
    EXPECT_TRUE(config.projector_bias);
    EXPECT_EQ(config.vision.hidden_act, activation::quick_gelu);
    EXPECT_EQ(config.image.fit, image_fit::pad);
    EXPECT_EQ(config.image.resize_shortest_edge, 4);
  }
  EXPECT_TRUE(old.names.down_is_first);
  EXPECT_FALSE(todays.names.down_is_first);
}

TEST(mmproj_config, says_what_is_computed) {
  const auto todays = [](auto&& change) { return read_after(change, mmproj_scheme::todays); };
  EXPECT_EQ(todays([](auto& file) { file.boolean("clip.use_gelu", true); }).vision.hidden_act,
            activation::gelu_erf);
  EXPECT_EQ(todays([](auto& file) { file.boolean("clip.use_silu", true); }).vision.hidden_act,
            activation::silu);
  for (const int layer : {0, 1, 3})
    EXPECT_EQ(todays([&](auto& file) { file.integers("clip.vision.feature_layer", {layer}); }).layers, layer);
  EXPECT_EQ(read_after([](auto& file) { file.integers("clip.vision.feature_layer", {2}); }).layers, 2);
  EXPECT_EQ(read_after([](auto& file) { file.text("clip.vision.image_aspect_ratio", "square"); }).image.fit,
            image_fit::crop);
  EXPECT_EQ(read_after([](auto& file) { file.text("clip.vision.mm_patch_merge_type", "flat"); }).layers, 2);
}

template <class Change>
std::string mmproj_refusal(Change&& change, mmproj_scheme scheme = mmproj_scheme::old_converter) {
  return support::error_text([&] { read_after(change, scheme); });
}

TEST(mmproj_config, refuses_what_it_does_not_know) {
  const auto todays = [](auto&& change) { return mmproj_refusal(change, mmproj_scheme::todays); };
  for (const char* type : {"ldp", "ldpv2", "resampler", "adapter", "qwen2vl_merger", "gemma3", "pixtral"})
    EXPECT_EQ(todays([&](auto& file) { file.text("clip.projector_type", type); }),
              "mm.gguf: the projector \"" + std::string(type) + "\" is not supported; mlp, LLaVA-1.5's, is");
  EXPECT_EQ(mmproj_refusal([](auto& file) {
              file.integers("clip.vision.image_grid_pinpoints", {336, 672});
            }),
            "mm.gguf: clip.vision.image_grid_pinpoints says that pictures are cut into tiles, as LLaVA-1.6 "
            "does, which is not supported");
  EXPECT_EQ(mmproj_refusal([](auto& file) { file.text("clip.vision.mm_patch_merge_type", "spatial_unpad"); }),
            "mm.gguf: clip.vision.mm_patch_merge_type says that pictures are cut into tiles, as LLaVA-1.6 "
            "does, which is not supported");
  EXPECT_EQ(mmproj_refusal([](auto& file) {
              file.integers("clip.vision.feature_layer", {1, 2});
            }),
            "mm.gguf: clip.vision.feature_layer names 2 layers, and LLaVA-1.5 takes the features of one");
  EXPECT_EQ(mmproj_refusal([](auto& file) { file.integers("clip.vision.feature_layer", {3}); }),
            "mm.gguf: clip.vision.feature_layer is 3, and there are 2 layers");
  EXPECT_EQ(todays([](auto& file) { file.boolean("clip.use_silu", true).boolean("clip.use_gelu", true); }),
            "mm.gguf: clip.use_gelu and clip.use_silu are both true");
  EXPECT_EQ(mmproj_refusal([](auto& file) { file.text("clip.vision.image_aspect_ratio", "anyres"); }),
            "mm.gguf: clip.vision.image_aspect_ratio is \"anyres\", supported are pad and square");
  const std::string ones(4, '\x01');
  EXPECT_EQ(
      mmproj_refusal([&](auto& file) { file.tensor("mm.3.weight", {1}, 0, ones); }),
      "mm.gguf: tensor \"mm.3.weight\" is of a projector with norms, as Yi-VL's, which is not supported");
  EXPECT_EQ(mmproj_refusal([&](auto& file) { file.tensor("v.patch_embd.bias", {1}, 0, ones); }),
            "mm.gguf: tensor \"v.patch_embd.bias\" is none that a tower of CLIP and a projector have here");
  EXPECT_EQ(mmproj_refusal([&](auto& file) { file.tensor("v.blk.2.ln1.weight", {1}, 0, ones); }),
            "mm.gguf: tensor \"v.blk.2.ln1.weight\" is none that a tower of CLIP and a projector have here");
}

/// A file of the old converter of which keys and tensors are others, or missing.
class changed_mmproj {
 public:
  /// A whole number of the metadata is another one.
  changed_mmproj& number(const std::string& key, std::uint32_t value) {
    numbers_[key] = value;
    return *this;
  }
  changed_mmproj& without(const std::string& name) {
    removed_.push_back(name);
    return *this;
  }
  changed_mmproj& tensor(const std::string& name, const std::vector<std::uint64_t>& dimensions,
                         std::uint32_t type, const std::string& bytes) {
    added_.push_back([=](test::raw_gguf& file) { file.tensor(name, dimensions, type, bytes); });
    return without(name);
  }
  changed_mmproj& flag(const std::string& key, bool value) {
    flags_[key] = value;
    return *this;
  }
  std::string refusal() const {
    return support::error_text([&] { read(); });
  }
  mmproj_config read() const {
    const support::mmproj_description what{{8, 16, 3, 2, 4, 2, 1e-5f, activation::quick_gelu}, 2, 8};
    test::raw_gguf file;
    file.text("general.architecture", "clip");
    const auto has = [&](const std::string& name) { return std::ranges::count(removed_, name) == 0; };
    if (has("clip.projector_type")) file.text("clip.projector_type", "mlp");
    for (const auto& [key, value] : std::map<std::string, std::uint32_t>{{"image_size", 4},
                                                                         {"patch_size", 2},
                                                                         {"embedding_length", 8},
                                                                         {"feed_forward_length", 16},
                                                                         {"attention.head_count", 2},
                                                                         {"block_count", 2}}) {
      const auto other = numbers_.find(key);
      if (has(key)) file.integer("clip.vision." + key, other == numbers_.end() ? value : other->second);
    }
    for (const auto& [key, value] : flags_) file.boolean(key, value);
    file.real("clip.vision.attention.layer_norm_epsilon", 1e-5);
    visit_mmproj_file(what, [&](const std::string& name, const std::string&, const auto& shape) {
      std::int64_t size = 1;
      for (const std::int64_t side : shape) size *= side;
      if (has(name))
        file.tensor(name, std::vector<std::uint64_t>(shape.rbegin(), shape.rend()), 0,
                    support::float_bytes(std::vector<float>(static_cast<std::size_t>(size))));
    });
    for (const auto& add : added_) add(file);
    const std::string bytes = file.bytes();
    return read_whole_mmproj_config(mmproj_parsed(bytes));
  }

 private:
  std::map<std::string, std::uint32_t> numbers_;
  std::map<std::string, bool> flags_;
  std::vector<std::string> removed_;
  std::vector<std::function<void(test::raw_gguf&)>> added_;
};

TEST(mmproj_config, is_read_from_the_first_files_and_from_projectors_of_other_names) {
  const auto first = changed_mmproj().without("clip.projector_type");
  EXPECT_EQ(changed_mmproj(first).flag("clip.has_llava_projector", true).read().layers, 2);
  EXPECT_EQ(changed_mmproj(first).flag("clip.has_llava_projector", false).refusal(),
            "mm.gguf: clip.projector_type is missing: it says nothing of a projector");
  EXPECT_EQ(changed_mmproj().flag("clip.has_vision_encoder", false).refusal(),
            "mm.gguf: clip.has_vision_encoder is false: it holds no vision tower");
  auto unbiased = changed_mmproj().without("mm.0.bias").without("mm.2.bias");
  EXPECT_FALSE(unbiased.read().projector_bias);
  const std::string weights(8 * 8 * sizeof(float), '\0');
  for (const char* name : {"mm.0.weight", "mm.2.weight"})
    unbiased.without(name).tensor(std::string("mm.model.mlp.") + name[3] + ".weight", {8, 8}, 0, weights);
  EXPECT_EQ(unbiased.read().names.second, "mm.model.mlp.2");
}

TEST(mmproj_config, is_refused_where_metadata_and_tensors_disagree) {
  const auto refusal = [](const char* key, std::uint32_t value) {
    return changed_mmproj().number(key, value).refusal();
  };
  EXPECT_EQ(changed_mmproj().without("clip.projector_type").refusal(),
            "mm.gguf: clip.projector_type is missing: it says nothing of a projector");
  EXPECT_EQ(changed_mmproj().without("block_count").refusal(), "mm.gguf: clip.vision.block_count is missing");
  EXPECT_EQ(refusal("embedding_length", 12),
            "mm.gguf: tensor \"v.class_embd\" has shape [8], but the metadata ask for [12]");
  EXPECT_EQ(refusal("attention.head_count", 3),
            "mm.gguf: clip.vision.embedding_length is 8, no multiple of 3 heads");
  EXPECT_EQ(refusal("image_size", 5), "mm.gguf: clip.vision.image_size is 5, no multiple of patches of 2");
  EXPECT_EQ(refusal("image_size", 8),
            "mm.gguf: tensor \"v.position_embd.weight\" has shape [5, 8], but the metadata ask for [17, 8]");
  EXPECT_EQ(refusal("patch_size", 0), "mm.gguf: clip.vision.patch_size is not an integer from 1 to 16384");
  EXPECT_EQ(
      refusal("feed_forward_length", 24),
      "mm.gguf: tensor \"v.blk.0.ffn_down.weight\" has shape [16, 8], but the metadata ask for [24, 8]");
  EXPECT_EQ(refusal("block_count", 3), "mm.gguf: no tensor \"v.blk.2.ln1.weight\"");
  EXPECT_EQ(refusal("block_count", 1),
            "mm.gguf: tensor \"v.blk.1.attn_k.bias\" is none that a tower of CLIP and a projector have here");
  EXPECT_EQ(refusal("block_count", 4096),
            "mm.gguf: clip.vision.block_count is 4096, but there are 41 tensors");
  EXPECT_EQ(changed_mmproj().without("v.blk.1.attn_q.bias").refusal(),
            "mm.gguf: no tensor \"v.blk.1.attn_q.bias\"");
  EXPECT_EQ(changed_mmproj().without("mm.2.weight").refusal(), "mm.gguf: no tensor \"mm.2.weight\"");
  EXPECT_EQ(changed_mmproj().without("mm.2.bias").refusal(), "mm.gguf: no tensor \"mm.2.bias\"");
  EXPECT_EQ(
      changed_mmproj().tensor("mm.2.weight", {8}, 0, std::string(32, '\0')).refusal(),
      "mm.gguf: tensor \"mm.2.weight\" has shape [8], expected a row for each element of an image token");
  EXPECT_EQ(changed_mmproj().tensor("mm.2.weight", {8, 4}, 0, std::string(128, '\0')).refusal(),
            "mm.gguf: tensor \"mm.0.weight\" has shape [8, 8], but the metadata ask for [4, 8]");
  EXPECT_EQ(changed_mmproj().tensor("v.blk.0.ln1.bias", {8}, 26, std::string(32, '\0')).refusal(),
            "mm.gguf: tensor \"v.blk.0.ln1.bias\" is I32, expected F32, F16 or BF16");
}

TEST(mmproj_config, has_to_fit_the_decoder) {
  const written_llava small{support::test_directory() / "reference/data/tiny_mha"};
  const written_llava demo{support::source_directory() / "models/demo"};
  const std::string bytes =
      support::mmproj_of(demo.files, *demo.config.llava(), mmproj_scheme::old_converter).bytes();
  const auto file = mmproj_parsed(bytes);
  EXPECT_EQ(support::error_text([&] { join_mmproj(small.decoder, file); }),
            "mm.gguf: makes image tokens of 128 elements, but the hidden size of d.gguf is 64");
  EXPECT_EQ(support::error_text([&] { join_mmproj(file, file); }).substr(0, 49),
            "mm.gguf: is an mmproj file, a vision tower and it");
  EXPECT_EQ(
      support::error_text([&] { join_mmproj(demo.decoder, demo.decoder); }),
      "d.gguf: the architecture \"llama\" is no vision tower with a projector, which an mmproj file holds "
      "(\"clip\")");
  EXPECT_EQ(support::error_text([&] { read_model_config(demo.directory, "mm.gguf"); }),
            "mm.gguf: an mmproj file goes beside a GGUF file, which " + demo.directory.string() + " is not");
}

TEST(mmproj_config, takes_the_token_that_is_called_image) {
  const written_llava from{support::source_directory() / "models/demo"};
  const std::string bytes =
      support::mmproj_of(from.files, *from.config.llava(), mmproj_scheme::todays).bytes();
  for (const bool named : {true, false}) {
    auto decoder = support::decoder_of(from.files, from.config.text());
    support::add_demo_vocabulary(decoder, from.directory, named);
    const std::string decoder_bytes = decoder.bytes();
    const auto file = io::gguf_file::parse(test::bytes_of(decoder_bytes), "d.gguf");
    EXPECT_EQ(join_mmproj(file, mmproj_parsed(bytes)).llava()->image_token_index, named ? 539 : 576);
  }
}

}  // namespace
}  // namespace corematching
