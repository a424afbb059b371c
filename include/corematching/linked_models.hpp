// SPDX-License-Identifier: Apache-2.0
// Layers, hooks and models on linked backends. What of them depends on no hook is compiled once, in the
// library that is linked with the kernels, and not by every program again.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "corematching/backend/linked/backend.hpp"
#include "corematching/core/compiled_once.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/models.hpp"

// What reads a checkpoint before there is a backend, and what models are made of on each. `keyword`: extern,
// where they are used, or nothing, where they are made.
#define COREMATCHING_READING(keyword)                                                                      \
  keyword template std::string io::as_utf8<compiled_once>(std::string_view);                               \
  keyword template std::string io::in_quotes<compiled_once>(std::string_view);                             \
  keyword template io::json io::parse_json<compiled_once>(std::span<const std::byte>, const std::string&); \
  keyword template io::checkpoint io::checkpoint::open<compiled_once>(const std::filesystem::path&);       \
  keyword template const io::tensor& io::checkpoint::at<compiled_once>(std::string_view) const;            \
  keyword template io::gguf_file io::gguf_file::open<compiled_once>(const std::filesystem::path&);         \
  keyword template model_config read_model_config<compiled_once>(const std::filesystem::path&);            \
  keyword template model_config read_model_config<compiled_once>(const std::filesystem::path&,             \
                                                                 const std::filesystem::path&);

#define COREMATCHING_MODELS_ON(backend, keyword)                                                            \
  keyword template class kv_layer<backend>;                                                                 \
  keyword template class kv_cache<backend>;                                                                 \
  keyword template class scratch<backend>;                                                                  \
  keyword template class decoder_layer<backend>;                                                            \
  keyword template class encoder_layer<backend>;                                                            \
  keyword template class weight_reader<backend>;                                                            \
  keyword template class packed_reader<backend>;                                                            \
  keyword template class layer_stream<backend>;                                                             \
  keyword template class resident_layers<backend>;                                                          \
  keyword template class streamed_layers<backend>;                                                          \
  keyword template llama_weights<backend> read_llama_weights(const llama_config&, weight_reader<backend>&); \
  keyword template llama_weights<backend> read_llama_weights(const llama_config&, packed_reader<backend>&); \
  keyword template class step_together<backend>;                                                            \
  keyword template class prompt_pass<backend>;                                                              \
  keyword template class llama<backend>;                                                                    \
  keyword template class clip_vision<backend>;                                                              \
  keyword template clip_vision<backend>::clip_vision(backend&, const clip_vision_config&, index,            \
                                                     weight_reader<backend>&);                              \
  keyword template class llava<backend>;                                                                    \
  keyword template class core_matching<backend>;

namespace corematching {

#if !defined(COREMATCHING_MAKES_LINKED_MODELS)
COREMATCHING_READING(extern)
COREMATCHING_MODELS_ON(linked_backend<host_space>, extern)
COREMATCHING_MODELS_ON(linked_backend<device_space>, extern)
#endif

}  // namespace corematching
