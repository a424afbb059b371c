// SPDX-License-Identifier: Apache-2.0
// The shape of a CLIP tower and of LLaVA's projector from the metadata of an mmproj file, the GGUF file that
// llama.cpp wants beside a decoder's.
//
// The features are a hidden state of the tower, in LLaVA-1.5 the one in front of its last layer. A file may
// name it (clip.vision.feature_layer). The old converter leaves out what lies behind, and counts as
// block_count the layers that are left: all of them run, as they do in the original model. A tower that has
// its final normalisation is whole, and its last layer does not run. llama.cpp runs a layer less of files of
// the old converter, and has had the class token behind the patches instead of in front of them since its
// graphs were made anew (https://github.com/ggml-org/llama.cpp/pull/25845 and .../pull/25844), so features
// and answers may be others there.
//
// Source: https://github.com/ggml-org/llama.cpp (tools/mtmd/clip-impl.h and clip.cpp,
// tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py) for keys and their defaults,
// https://github.com/haotian-liu/LLaVA for what LLaVA-1.5 does with pictures.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/backend/backend.hpp"
#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/model/gguf/config.hpp"
#include "corematching/model/gguf/mmproj_names.hpp"
#include "corematching/model/llava/config.hpp"
#include "corematching/model/picture/image_processor.hpp"

namespace corematching {

struct mmproj_config {
  clip_vision_config vision;
  index layers = 0;  // of the tower's, those that run
  bool projector_bias = true;
  index token_size = 0;  // of an image token: the hidden size of the decoder that it is for
  image_processor_options image;
  mmproj_names names;
};

namespace detail {

/// Throws `error` unless the file says that it holds a tower for pictures and a projector as LLaVA-1.5's.
inline void check_mmproj_kind(const io::gguf_metadata& metadata) {
  const std::string_view architecture = metadata.text("general.architecture");
  if (architecture != gguf_mmproj_architecture)
    fail(metadata.file(), ": the architecture ", io::in_quotes(architecture),
         " is no vision tower with a projector, which an mmproj file holds (",
         io::in_quotes(gguf_mmproj_architecture), ")");
  const auto says = [&](std::string_view key, bool fallback) {
    return metadata.has(key) ? metadata.boolean(key) : fallback;
  };
  require(says("clip.has_vision_encoder", true), metadata.file(),
          ": clip.has_vision_encoder is false: it holds no vision tower");
  // The first files have no type, and one kind of projector.
  std::string_view type = says("clip.has_llava_projector", false) ? "mlp" : "";
  for (const char* key : {"clip.vision.projector_type", "clip.projector_type"})
    if (metadata.has(key)) type = metadata.text(key);
  require(!type.empty(), metadata.file(), ": clip.projector_type is missing: it says nothing of a projector");
  if (type != "mlp")
    fail(metadata.file(), ": the projector ", io::in_quotes(type), " is not supported; mlp, LLaVA-1.5's, is");
  for (const char* key : {"clip.vision.image_grid_pinpoints", "clip.vision.mm_patch_merge_type"}) {
    const bool tiles = metadata.has(key) && (std::string_view(key).ends_with("pinpoints") ||
                                             metadata.text(key) == "spatial_unpad");
    require(!tiles, metadata.file(), ": ", key,
            " says that pictures are cut into tiles, as LLaVA-1.6 does, which is not supported");
  }
}

inline activation mmproj_activation(const io::gguf_metadata& metadata) {
  const auto says = [&](std::string_view key) { return metadata.has(key) && metadata.boolean(key); };
  const bool gelu = says("clip.use_gelu"), silu = says("clip.use_silu");
  require(!gelu || !silu, metadata.file(), ": clip.use_gelu and clip.use_silu are both true");
  return gelu ? activation::gelu_erf : silu ? activation::silu : activation::quick_gelu;
}

inline void read_mmproj_channels(const gguf_fields& fields, const io::gguf_metadata& metadata,
                                 const std::string& key, double least, std::array<float, 3>& channels) {
  if (!fields.has(key)) return;
  const std::vector<double>& values = metadata.numbers("clip.vision." + key);
  fields.demand(values.size() == channels.size(), key, "has ", values.size(), " values, expected 3");
  for (std::size_t i = 0; i < channels.size(); ++i) {
    fields.demand(values[i] >= least && values[i] <= 1e3, key, "has a value of ", values[i]);
    channels[i] = static_cast<float>(values[i]);
  }
}

/// Original LLaVA-1.5 pads pictures to squares, and so does llama.cpp.
inline image_fit mmproj_fit(const gguf_fields& fields) {
  if (!fields.has("image_aspect_ratio")) return image_fit::pad;
  const std::string_view ratio = fields.text("image_aspect_ratio");
  fields.demand(ratio == "pad" || ratio == "square", "image_aspect_ratio", "is ", io::in_quotes(ratio),
                ", supported are pad and square");
  return ratio == "pad" ? image_fit::pad : image_fit::crop;
}

inline index mmproj_layers(const gguf_fields& fields, const io::gguf_file& file, index stored) {
  index layers = file.contains("v.post_ln.weight") ? stored - 1 : stored;
  if (fields.has("feature_layer")) {
    const auto& listed = file.metadata().integers("clip.vision.feature_layer");
    fields.demand(listed.size() == 1, "feature_layer", "names ", listed.size(),
                  " layers, and LLaVA-1.5 takes the features of one");
    fields.demand(listed.front() >= 0 && listed.front() <= stored, "feature_layer", "is ", listed.front(),
                  ", and there are ", stored, " layers");
    layers = static_cast<index>(listed.front());
  }
  // What follows takes as long as there are layers.
  fields.demand(layers <= std::ssize(file.tensors()), "block_count", "is ", stored, ", but there are ",
                file.tensors().size(), " tensors");
  return layers;
}

inline clip_vision_config read_mmproj_tower(const gguf_fields& fields, const io::gguf_metadata& metadata) {
  clip_vision_config config;
  config.hidden_size = fields.size("embedding_length", max_width);
  config.intermediate_size = fields.size("feed_forward_length", max_width);
  config.layers = fields.size("block_count", max_layers);
  config.heads = fields.size("attention.head_count", max_width);
  config.image_size = fields.size("image_size", max_picture);
  config.patch_size = fields.size("patch_size", max_picture);
  config.layer_norm_eps = fields.number("attention.layer_norm_epsilon", 1e-12, 1);
  config.hidden_act = mmproj_activation(metadata);
  fields.demand(config.hidden_size % config.heads == 0, "embedding_length", "is ", config.hidden_size,
                ", no multiple of ", config.heads, " heads");
  fields.demand(config.image_size % config.patch_size == 0, "image_size", "is ", config.image_size,
                ", no multiple of patches of ", config.patch_size);
  return config;
}

}  // namespace detail

/// Reads the metadata of an mmproj file; its tensors are mmproj_problems()' to check, but for the width of
/// the projector's result. Throws `error` naming file and key for what is missing, out of bounds,
/// contradictory or not supported.
inline mmproj_config read_mmproj_config(const io::gguf_file& file) {
  using namespace detail;
  const io::gguf_metadata& metadata = file.metadata();
  check_mmproj_kind(metadata);
  const gguf_fields fields(metadata, "clip.vision");
  mmproj_config config;
  config.vision = read_mmproj_tower(fields, metadata);
  config.layers = mmproj_layers(fields, file, config.vision.layers);
  image_processor_options& image = config.image;
  image.resize_shortest_edge = image.crop_height = image.crop_width =
      static_cast<int>(config.vision.image_size);
  image.fit = mmproj_fit(fields);
  read_mmproj_channels(fields, metadata, "image_mean", -1e3, image.mean);
  read_mmproj_channels(fields, metadata, "image_std", 1e-6, image.std);
  config.names = mmproj_names_of(file, config.vision.hidden_size);
  config.projector_bias = file.contains(config.names.first + ".bias");
  require(!file.contains("mm.3.weight"), metadata.file(),
          ": tensor \"mm.3.weight\" is of a projector with norms, as Yi-VL's, which is not supported");
  const io::gguf_tensor& last = file.at(config.names.second + ".weight");
  require(last.shape.size() == 2 && last.shape.front() <= max_width, gguf_place(last), " has shape ",
          io::shape_text(last.shape), ", expected a row for each element of an image token");
  config.token_size = static_cast<index>(last.shape.front());
  return config;
}

}  // namespace corematching
