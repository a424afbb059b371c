// SPDX-License-Identifier: Apache-2.0
// Layers, hooks and models on linked backends. What of them depends on no hook is compiled once, in the
// library that is linked with the kernels, and not by every program again.
#pragma once

#include "corematching/backend/linked/backend.hpp"
#include "corematching/models.hpp"

// `keyword`: extern, where they are used, or nothing, where they are made.
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
  keyword template class llama<backend>;                                                                    \
  keyword template class clip_vision<backend>;                                                              \
  keyword template class llava<backend>;                                                                    \
  keyword template class core_matching<backend>;

namespace corematching {

#if !defined(COREMATCHING_MAKES_LINKED_MODELS)
COREMATCHING_MODELS_ON(linked_backend<host_space>, extern)
COREMATCHING_MODELS_ON(linked_backend<device_space>, extern)
#endif

}  // namespace corematching
