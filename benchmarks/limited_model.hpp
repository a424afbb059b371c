// SPDX-License-Identifier: Apache-2.0
// A model of which no more than some bytes of weights are in memory at a time.
#pragma once

#include <cstdint>
#include <filesystem>

#include "corematching/cpu_linked.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/llama/streamed_layers.hpp"
#include "corematching/model/llama/word_embeddings.hpp"
#include "corematching/model/packed/identity.hpp"
#include "corematching/model/packed/pack.hpp"

namespace corematching::bench {

/// The language model of the checkpoint in `directory`, with weights of `type` read from the packed file
/// beside it, which is written first where there is none.
template <backend B>
llama<B> limited_model(B& be, const std::filesystem::path& directory, dtype type, std::uint64_t memory_limit,
                       int threads) {
  llama_config config = read_model_config(directory).text();
  const auto files = io::checkpoint::open(directory);
  config.tie_word_embeddings =
      stored_word_embeddings(config, files).tied();  // packed files are laid out by it
  const auto path = directory / ("bench." + std::string(name_of(type)) + ".packed");
  if (!std::filesystem::exists(path)) {
    auto packing = cpu::make_linked_backend(threads);
    pack(packing, config, files, type, path);
  }
  const packed_file packed(path, packed_layout(config, type), type, checkpoint_identity(files));
  return streamed_llama(be, config, packed, memory_limit);
}

}  // namespace corematching::bench
