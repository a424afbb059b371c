// SPDX-License-Identifier: Apache-2.0
// LLaVAs of two GGUF files against those of checkpoints with the same weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "corematching/core/formats/bf16.hpp"
#include "corematching/io/safetensors_writer.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/gguf/mmproj_reader.hpp"
#include "corematching/model/gguf/reader.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/llava/multimodal_prompt.hpp"
#include "corematching/nn/transfer.hpp"
#include "support/error_text.hpp"
#include "support/llava_gguf.hpp"
#include "support/paths.hpp"
#include "support/random_blocks.hpp"
#include "support/temporary_directory.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using mmproj_backend = support::test_backend;
using support::mmproj_scheme;

constexpr std::array both_schemes{mmproj_scheme::old_converter, mmproj_scheme::todays};

io::gguf_file mmproj_parsed(const std::string& bytes) {
  return io::gguf_file::parse(test::bytes_of(bytes), "mm.gguf");
}

std::vector<float> downloaded(mmproj_backend& be, const matrix<mmproj_backend>& from) {
  std::vector<float> values;
  download_values(be, matrix_view<const float, mmproj_backend::space>(from.view()), values);
  return values;
}

std::vector<float> some_pixels(index side) {
  std::vector<float> pixels(static_cast<std::size_t>(3 * side * side));
  std::mt19937 random(3);
  for (float& value : pixels) value = std::uniform_real_distribution<float>(-2, 2)(random);
  return pixels;
}

/// A checkpoint of the tests and the two files that it is written as.
struct written_llava {
  std::filesystem::path directory;
  model_config config = read_model_config(directory);
  io::checkpoint files = io::checkpoint::open(directory);
  std::string decoder_bytes = support::decoder_of(files, config.text()).bytes();
  io::gguf_file decoder = io::gguf_file::parse(test::bytes_of(decoder_bytes), "d.gguf");
};

/// Features of a picture, and logits behind a prompt with it.
std::vector<float> seen_and_said(mmproj_backend& be, const llava<mmproj_backend>& model) {
  const llava_config& config = model.config();
  const auto features = model.encode_image(be, some_pixels(config.vision.image_size));
  std::vector<float> result = downloaded(be, features);
  const std::vector<std::int32_t> ids{1, 7, config.image_token_index, 9, 12};
  const auto prompt = expand_images(ids, config.image_token_index, config.image_tokens());
  auto x = embed_prompt(be, model.language(), prompt, features.view());
  auto seq = model.language().start(be, 4);
  const std::vector<float> logits = model.language().prefill(be, seq, x.view(), 1000);
  result.insert(result.end(), logits.begin(), logits.end());
  return result;
}

TEST(mmproj_model, computes_as_the_checkpoint_of_its_weights) {
  for (const std::filesystem::path& directory :
       {support::source_directory() / "models/demo", support::test_directory() / "reference/data/tiny_mha"}) {
    const written_llava from{directory};
    const llava_config& expected = *from.config.llava();
    mmproj_backend be = support::make_backend(2);
    weight_reader<mmproj_backend> checkpoint(be, from.files);
    const auto said = seen_and_said(be, llava<mmproj_backend>(be, expected, checkpoint));
    for (const mmproj_scheme scheme : both_schemes) {
      SCOPED_TRACE(testing::Message() << directory << ", " << (scheme == mmproj_scheme::todays));
      const std::string bytes = support::mmproj_of(from.files, expected, scheme).bytes();
      const auto file = mmproj_parsed(bytes);
      const model_config joined = join_mmproj(from.decoder, file);
      const llava_config& config = *joined.llava();
      EXPECT_EQ(config.vision_layers(), expected.vision_layers());
      EXPECT_EQ(config.vision.layers,
                scheme == mmproj_scheme::todays ? expected.vision.layers : expected.vision_layers());
      EXPECT_EQ(config.image_tokens(), expected.image_tokens());
      EXPECT_EQ(config.image_token_index, expected.text.vocab_size);
      EXPECT_EQ(joined.image.fit, image_fit::pad);
      EXPECT_EQ(joined.image.crop_width, expected.vision.image_size);
      gguf_reader<mmproj_backend> language(be, from.decoder, config.text, 2);
      mmproj_reader<mmproj_backend> reader(be, file, 2);
      const llava<mmproj_backend> model(be, config, reader, llama<mmproj_backend>(be, config.text, language));
      EXPECT_EQ(seen_and_said(be, model), said);
    }
  }
}

/// A random tower whose rows all of ggml's blocks fit into, its matrices of one type and its vectors
/// binary32.
struct tiny_mmproj {
  support::mmproj_description what{{}, 2, 256};
  std::map<std::string, std::vector<float>> values;  // by their names in transformers
  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::string bytes;

  explicit tiny_mmproj(const support::block_type* blocks) {
    what.tower = {256, 512, 3, 4, 32, 16, 1e-5f, activation::quick_gelu};
    std::mt19937 random(11);
    bytes = support::mmproj_file(what, [&](const std::string& name, const std::vector<std::int64_t>& shape) {
              shapes[name] = shape;
              return tensor(name, shape, blocks, random);
            }).bytes();
  }

  io::checkpoint checkpoint() const {
    const support::temporary_directory directory;
    std::vector<io::named_tensor> tensors;
    for (const auto& [name, stored] : values) tensors.push_back(io::as_tensor(name, shapes.at(name), stored));
    io::write_safetensors(directory.path() / "model.safetensors", tensors);
    return io::checkpoint::open(directory.path());
  }

 private:
  support::stored_tensor tensor(const std::string& name, const std::vector<std::int64_t>& shape,
                                const support::block_type* blocks, std::mt19937& random) {
    if (blocks != nullptr && shape.size() == 2) {
      const support::blocks_matrix matrix(*blocks, shape[0], shape[1], random);
      values[name] = matrix.values();
      return {static_cast<std::uint32_t>(blocks->type), matrix.bytes};
    }
    std::int64_t size = 1;
    for (const std::int64_t side : shape) size *= side;
    std::vector<float>& numbers = values[name];
    for (std::int64_t i = 0; i < size; ++i)
      numbers.push_back(std::uniform_real_distribution<float>(-0.1f, 0.1f)(random));
    return {0, support::float_bytes(numbers)};
  }
};

/// The same file with its matrices in bf16, which their numbers in `made` are rounded to.
std::string rounded_to_bf16(tiny_mmproj& made) {
  test::raw_gguf file = support::mmproj_metadata(made.what);
  visit_mmproj_file(made.what, [&](const std::string& name, const std::string& theirs, const auto& shape) {
    std::vector<float>& numbers = made.values.at(theirs);
    const std::vector<std::uint64_t> dimensions(shape.rbegin(), shape.rend());
    if (shape.size() == 1) {
      file.tensor(name, dimensions, 0, support::float_bytes(numbers));
      return;
    }
    std::vector<bf16> rounded;
    for (float& number : numbers) number = to_float(rounded.emplace_back(to_bf16(number)));
    file.tensor(name, dimensions, 30,
                {reinterpret_cast<const char*>(rounded.data()), rounded.size() * sizeof(bf16)});
  });
  return file.bytes();
}

template <class Reader>
std::vector<float> features_through(mmproj_backend& be, const mmproj_config& config, Reader& reader) {
  llava_config whole;
  whole.vision = config.vision;
  whole.text.hidden_size = config.token_size;
  const clip_vision<mmproj_backend> tower(be, config.vision, config.layers, reader);
  const projector<mmproj_backend> project(whole, reader);
  const auto hidden = tower.forward(be, some_pixels(config.vision.image_size));
  const index patches = config.vision.patches();
  return downloaded(be, project(be, hidden.view().middle_rows(hidden.rows() - patches, patches)));
}

TEST(mmproj_model, widens_blocks_of_every_type_exactly) {
  for (const support::block_type& of : support::block_types) {
    SCOPED_TRACE(io::name_of(of.type));
    const tiny_mmproj made(&of);
    const auto file = mmproj_parsed(made.bytes);
    const mmproj_config config = read_whole_mmproj_config(file);
    const io::checkpoint same = made.checkpoint();
    mmproj_backend be = support::make_backend(2);
    for (const std::optional<dtype> wanted :
         {std::optional<dtype>(), std::optional(dtype::f16), std::optional(dtype::q8_0)}) {
      mmproj_reader<mmproj_backend> blocks(be, file, 2, {}, wanted);
      weight_reader<mmproj_backend> numbers(be, same, {}, wanted);
      EXPECT_EQ(features_through(be, config, blocks), features_through(be, config, numbers));
    }
  }
}

TEST(mmproj_model, keeps_numbers_where_they_are_mapped_and_copies_misaligned_ones) {
  const tiny_mmproj made(nullptr);
  const auto file = mmproj_parsed(made.bytes);
  mmproj_backend be = support::make_backend(1);
  const std::string name = "vision_tower.vision_model.encoder.layers.1.self_attn.out_proj.weight";
  mmproj_reader<mmproj_backend> reader(be, file, 1);
  EXPECT_EQ(reader.vision_matrix(name, {256, 256}).view.data,
            file.at("v.blk.1.attn_out.weight").bytes.data());
  const std::string shifted = "!" + made.bytes;
  const auto misaligned = io::gguf_file::parse(test::bytes_of(shifted).subspan(1), "mm.gguf");
  mmproj_reader<mmproj_backend> copying(be, misaligned, 1);
  const auto config = read_mmproj_config(misaligned);
  EXPECT_NE(copying.vision_matrix(name, {256, 256}).view.data,
            misaligned.at("v.blk.1.attn_out.weight").bytes.data());
  EXPECT_EQ(features_through(be, config, copying), features_through(be, config, reader));
}

TEST(mmproj_model, keeps_bf16_and_converts_to_what_is_asked_for) {
  tiny_mmproj made(nullptr);
  const std::string bytes = rounded_to_bf16(made);
  const auto file = mmproj_parsed(bytes);
  const mmproj_config config = read_whole_mmproj_config(file);
  const io::checkpoint same = made.checkpoint();
  mmproj_backend be = support::make_backend(2);
  for (const dtype type : {dtype::bf16, dtype::f32, dtype::f16}) {
    mmproj_reader<mmproj_backend> reader(be, file, 2, {},
                                         type == dtype::bf16 ? std::nullopt : std::optional(type));
    EXPECT_EQ(reader.vision_matrix("multi_modal_projector.linear_1.weight", {256, 256}).view.type, type);
    weight_reader<mmproj_backend> numbers(be, same, {}, type);
    EXPECT_EQ(features_through(be, config, reader), features_through(be, config, numbers));
  }
}

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

TEST(mmproj_reader, names_what_is_no_number) {
  const auto refusal = [](const std::string& name, std::uint32_t type, const std::string& numbers,
                          std::vector<std::uint64_t> dimensions, auto&& read) {
    tiny_mmproj made(nullptr);
    test::raw_gguf file = support::mmproj_metadata(made.what);
    visit_mmproj_file(made.what, [&](const std::string& ours, const std::string& theirs, const auto& shape) {
      if (ours != name)
        file.tensor(ours, std::vector<std::uint64_t>(shape.rbegin(), shape.rend()), 0,
                    support::float_bytes(made.values.at(theirs)));
    });
    const std::string bytes = file.tensor(name, dimensions, type, numbers).bytes();
    return support::error_text([&] {
      const auto wrong = mmproj_parsed(bytes);
      mmproj_backend be = support::make_backend(1);
      mmproj_reader<mmproj_backend> reader(be, wrong, 1);
      read(reader);
    });
  };
  const std::string tower = "vision_tower.vision_model.";
  EXPECT_EQ(refusal("v.pre_ln.bias", 0, std::string(1024, '\xff'), {256},
                    [&](auto& reader) { reader.vector(tower + "pre_layrnorm.bias", 256); })
                .substr(0, 45),
            "mm.gguf: tensor \"v.pre_ln.bias\" holds -nan, w");
  EXPECT_EQ(refusal("v.blk.0.attn_q.weight", 8, std::string(256 * 8 * 34, '\x7c'), {256, 256},
                    [&](auto& reader) {
                      reader.vision_matrix(tower + "encoder.layers.0.self_attn.q_proj.weight", {256, 256});
                    }),
            "mm.gguf: tensor \"v.blk.0.attn_q.weight\" Q8_0 [256, 256]: it holds a scale that is no finite "
            "number");
  EXPECT_EQ(refusal("v.position_embd.weight", 8, std::string(5 * 8 * 34, '\x7c'), {256, 5},
                    [&](auto& reader) {
                      reader.values(tower + "embeddings.position_embedding.weight", {5, 256});
                    }),
            "mm.gguf: tensor \"v.position_embd.weight\": it holds a scale that is no finite number");
}

}  // namespace
}  // namespace corematching
