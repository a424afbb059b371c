// SPDX-License-Identifier: Apache-2.0
// LLaVAs as two GGUF files, a decoder's and an mmproj file, as the old converter and today's write them.
// Names and keys are spelled out here, so that nothing is taken from what is tested.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "corematching/core/dtype.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/llava/config.hpp"
#include "support/gguf_decoder.hpp"
#include "support/raw_gguf.hpp"

namespace support {

/// A tensor as a GGUF file stores it.
struct stored_tensor {
  std::uint32_t type = 0;
  std::string bytes;
};

inline std::string float_bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

enum class mmproj_scheme : std::uint8_t { old_converter, todays };

/// What an mmproj file is made of. The old converter keeps the layers that run, today's keeps all and the
/// final normalisation.
struct mmproj_description {
  corematching::clip_vision_config tower;
  corematching::index layers_that_run;
  corematching::index token_size;
  mmproj_scheme scheme = mmproj_scheme::old_converter;

  bool is_old() const { return scheme == mmproj_scheme::old_converter; }
  corematching::index stored_layers() const { return is_old() ? layers_that_run : tower.layers; }
};

/// Calls visit(name in the file, name in transformers, shape) for every tensor of such a file.
template <class Visitor>
void visit_mmproj_file(const mmproj_description& what, Visitor&& visit) {
  using shape = std::vector<std::int64_t>;
  const auto d = what.tower.hidden_size, m = what.tower.intermediate_size, p = what.tower.patch_size;
  const std::string theirs = "vision_tower.vision_model.";
  const auto both = [&](const std::string& ours, const std::string& name, const shape& weight) {
    visit(ours + ".weight", name + ".weight", weight);
    visit(ours + ".bias", name + ".bias", shape{weight.front()});
  };
  visit("v.class_embd", theirs + "embeddings.class_embedding", shape{d});
  visit("v.patch_embd.weight", theirs + "embeddings.patch_embedding.weight", shape{d, 3, p, p});
  visit("v.position_embd.weight", theirs + "embeddings.position_embedding.weight",
        shape{1 + what.tower.patches(), d});
  both("v.pre_ln", theirs + "pre_layrnorm", {d});
  for (corematching::index i = 0; i < what.stored_layers(); ++i) {
    const std::string ours = "v.blk." + std::to_string(i) + ".";
    const std::string layer = theirs + "encoder.layers." + std::to_string(i) + ".";
    both(ours + "ln1", layer + "layer_norm1", {d});
    both(ours + "ln2", layer + "layer_norm2", {d});
    both(ours + "attn_q", layer + "self_attn.q_proj", {d, d});
    both(ours + "attn_k", layer + "self_attn.k_proj", {d, d});
    both(ours + "attn_v", layer + "self_attn.v_proj", {d, d});
    both(ours + "attn_out", layer + "self_attn.out_proj", {d, d});
    both(ours + (what.is_old() ? "ffn_down" : "ffn_up"), layer + "mlp.fc1", {m, d});
    both(ours + (what.is_old() ? "ffn_up" : "ffn_down"), layer + "mlp.fc2", {d, m});
  }
  if (!what.is_old()) both("v.post_ln", theirs + "post_layernorm", {d});
  both(what.is_old() ? "mm.0" : "mm.1", "multi_modal_projector.linear_1", {what.token_size, d});
  both("mm.2", "multi_modal_projector.linear_2", {what.token_size, what.token_size});
}

/// The metadata of such a file.
inline corematching::test::raw_gguf mmproj_metadata(const mmproj_description& what) {
  corematching::test::raw_gguf file;
  const auto size = [&](const char* key, corematching::index value) {
    file.integer(std::string("clip.vision.") + key, static_cast<std::uint32_t>(value));
  };
  file.text("general.architecture", "clip").boolean("clip.has_vision_encoder", true);
  if (what.is_old())
    file.boolean("clip.has_text_encoder", false)
        .boolean("clip.has_llava_projector", true)
        .text("clip.projector_type", "mlp")
        .boolean("clip.use_gelu", false);
  else
    file.text("general.type", "mmproj").text("clip.vision.projector_type", "mlp");
  size("image_size", what.tower.image_size);
  size("patch_size", what.tower.patch_size);
  size("embedding_length", what.tower.hidden_size);
  size("feed_forward_length", what.tower.intermediate_size);
  size("projection_dim", what.is_old() ? 768 : what.token_size);
  size("attention.head_count", what.tower.heads);
  size("block_count", what.stored_layers());
  file.real("clip.vision.attention.layer_norm_epsilon", what.tower.layer_norm_eps);
  file.floats("clip.vision.image_mean", {0.48145466f, 0.4578275f, 0.40821073f});
  file.floats("clip.vision.image_std", {0.26862954f, 0.26130258f, 0.27577711f});
  return file;
}

/// The file itself; tensor_of(name in transformers, shape) is what it holds.
template <class TensorOf>
corematching::test::raw_gguf mmproj_file(const mmproj_description& what, TensorOf&& tensor_of) {
  corematching::test::raw_gguf file = mmproj_metadata(what);
  visit_mmproj_file(what, [&](const std::string& name, const std::string& theirs,
                              const std::vector<std::int64_t>& shape) {
    const stored_tensor tensor = tensor_of(theirs, shape);
    file.tensor(name, std::vector<std::uint64_t>(shape.rbegin(), shape.rend()), tensor.type, tensor.bytes);
  });
  return file;
}

/// A tensor of a checkpoint as converters store it: vectors as binary32, others as they are.
inline stored_tensor as_converted(const corematching::io::tensor& tensor) {
  const corematching::dtype type = corematching::io::weight_dtype(tensor);
  const auto* const bytes = reinterpret_cast<const char*>(tensor.bytes.data());
  if (tensor.shape.size() == 1) {
    std::vector<float> values(tensor.bytes.size() / corematching::bytes_of(type, 1));
    corematching::visit_elements(type, [&]<class T>() {
      for (std::size_t i = 0; i < values.size(); ++i) {
        T stored;
        std::memcpy(&stored, bytes + i * sizeof(T), sizeof(T));
        values[i] = corematching::to_float(stored);
      }
    });
    return {0, float_bytes(values)};
  }
  const std::uint32_t number = type == corematching::dtype::f32   ? 0
                               : type == corematching::dtype::f16 ? 1
                                                                  : 30;
  return {number, {bytes, tensor.bytes.size()}};
}

/// Tower and projector of a LLaVA's checkpoint.
inline corematching::test::raw_gguf mmproj_of(const corematching::io::checkpoint& from,
                                              const corematching::llava_config& config,
                                              mmproj_scheme scheme) {
  return mmproj_file(
      {config.vision, config.vision_layers(), config.text.hidden_size, scheme},
      [&](const std::string& name, const auto&) {
        const std::string whole = "vision_tower.vision_model.";
        const bool shorter = !from.contains(name) && name.starts_with(whole);
        return as_converted(from.at(shorter ? "vision_tower." + name.substr(whole.size()) : name));
      });
}

/// Rows of queries and keys in GGUF's order: those that turn together lie side by side.
inline std::string turned_rows(const std::string& bytes, corematching::index rows,
                               corematching::index head_dim) {
  const std::size_t row = bytes.size() / static_cast<std::size_t>(rows);
  std::string turned;
  for (corematching::index i = 0; i < rows; ++i) {
    turned += bytes.substr(static_cast<std::size_t>(turned_row(i, head_dim)) * row, row);
  }
  return turned;
}

/// Its decoder, of the architecture llama, without a vocabulary.
inline corematching::test::raw_gguf decoder_of(const corematching::io::checkpoint& from,
                                               const corematching::llama_config& config) {
  corematching::test::raw_gguf file;
  add_decoder_metadata(file, "llama", config);
  corematching::visit_gguf_tensors(config, [&](const corematching::tensor_description& t) {
    const corematching::io::tensor& tensor = from.at("language_model." + t.name);
    const std::string name = corematching::gguf_name(t.name);
    stored_tensor stored = as_converted(tensor);
    if (has_turned_rows(name)) stored.bytes = turned_rows(stored.bytes, t.rows, config.head_dim);
    file.tensor(name, std::vector<std::uint64_t>(tensor.shape.rbegin(), tensor.shape.rend()), stored.type,
                stored.bytes);
  });
  return file;
}

/// The demo model's vocabulary, whose pieces are in the order of their merges, as a SentencePiece one. With
/// `names_image`, it has the token <image>, otherwise another in its place, as Vicuna's has none.
inline void add_demo_vocabulary(corematching::test::raw_gguf& file, const std::filesystem::path& demo,
                                bool names_image) {
  const auto tokenizer = *corematching::io::read_optional_json(demo / "tokenizer.json");
  std::map<std::int32_t, std::string> pieces;
  for (const auto& [piece, id] : tokenizer["model"]["vocab"].items()) pieces[id.get<std::int32_t>()] = piece;
  std::map<std::int32_t, std::int32_t> types;
  for (const auto& added : tokenizer["added_tokens"]) {
    const auto id = added["id"].get<std::int32_t>();
    pieces[id] = added["content"].get<std::string>();
    types[id] = id == 0 ? 2 : 3;
  }
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;
  for (const auto& [id, piece] : pieces) {
    const bool byte = piece.size() == 6 && piece.starts_with("<0x");
    const bool removed = piece == "<image>" && !names_image;
    tokens.push_back(removed ? "<unused>" : piece);
    scores.push_back(-static_cast<float>(id));
    kinds.push_back(removed ? 5 : types.contains(id) ? types[id] : byte ? 6 : 1);
  }
  file.text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", tokens)
      .floats("tokenizer.ggml.scores", scores)
      .integers("tokenizer.ggml.token_type", kinds)
      .integer("tokenizer.ggml.unknown_token_id", 0)
      .integer("tokenizer.ggml.bos_token_id", 1)
      .integer("tokenizer.ggml.eos_token_id", 2)
      .integer("tokenizer.ggml.padding_token_id", 540);
}

/// A checkpoint of the tests and the two files that it is written as.
struct written_llava {
  std::filesystem::path directory;
  corematching::model_config config = corematching::read_model_config(directory);
  corematching::io::checkpoint files = corematching::io::checkpoint::open(directory);
  std::string decoder_bytes = decoder_of(files, config.text()).bytes();
  corematching::io::gguf_file decoder =
      corematching::io::gguf_file::parse(corematching::test::bytes_of(decoder_bytes), "d.gguf");
};

inline corematching::io::gguf_file mmproj_parsed(const std::string& bytes) {
  return corematching::io::gguf_file::parse(corematching::test::bytes_of(bytes), "mm.gguf");
}

}  // namespace support
