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
using support::mmproj_parsed;
using support::mmproj_scheme;
using support::written_llava;

constexpr std::array both_schemes{mmproj_scheme::old_converter, mmproj_scheme::todays};

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
