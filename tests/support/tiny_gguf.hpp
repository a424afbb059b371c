// SPDX-License-Identifier: Apache-2.0
// Small random decoders as GGUF files, and the tensors that they stand for as transformers names and orders
// them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "corematching/model/gguf/names.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/llama/config.hpp"
#include "support/gguf_decoder.hpp"
#include "support/random_blocks.hpp"
#include "support/raw_gguf.hpp"
#include "support/tiny_llama.hpp"

namespace support {

/// Sizes that all of ggml's blocks allow along the hidden state and along neurons.
inline corematching::llama_config gguf_config() {
  corematching::llama_config config = tiny_config();
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.layers = 2;
  config.head_dim = 16;
  config.rms_norm_eps = 1e-5f;
  return config;
}

/// Types of matrices by a part of their GGUF name; F32 where none is named.
using gguf_types = std::map<std::string, corematching::io::ggml_type>;

struct tiny_gguf {
  corematching::test::raw_gguf file;
  tensor_map tensors;  // as transformers has them

  tiny_gguf(const std::string& architecture, const corematching::llama_config& config,
            const gguf_types& types, unsigned seed = 5)
      : tensors(random_tensors(config, seed)) {
    add_decoder_metadata(file, architecture, config);
    std::mt19937 random(seed);
    corematching::visit_gguf_tensors(config, [&](const corematching::tensor_description& t) {
      const bool turned = architecture == "llama" && has_turned_rows(corematching::gguf_name(t.name));
      add(t, turned ? config.head_dim : 0, types, random);
    });
  }

 private:
  /// With a head_dim of 0 the rows are those of transformers.
  void add(const corematching::tensor_description& t, index head_dim, const gguf_types& types,
           std::mt19937& random) {
    const std::string name = corematching::gguf_name(t.name);
    real_matrix& ours = tensors.at(t.name);
    const auto theirs = [&](index i) { return head_dim == 0 ? i : turned_row(i, head_dim); };
    const bool is_vector = t.kind == corematching::tensor_kind::vector;
    const auto named = std::ranges::find_if(types, [&](const auto& type) {
      return name.starts_with(type.first) || name.find("." + type.first) != std::string::npos;
    });
    std::vector<std::uint64_t> dimensions{static_cast<std::uint64_t>(t.cols)};
    if (!is_vector) dimensions.push_back(static_cast<std::uint64_t>(t.rows));
    if (!is_vector && named != types.end() && !corematching::number_type_of(named->second)) {
      const auto* const of = std::ranges::find(block_types, named->second, &block_type::type);
      const blocks_matrix blocks(*of, t.rows, t.cols, random);
      file.tensor(name, dimensions, static_cast<std::uint32_t>(of->type), blocks.bytes);
      const std::vector<float> values = blocks.values();
      for (index i = 0; i < t.rows; ++i)
        for (index j = 0; j < t.cols; ++j)
          ours(theirs(i), j) = double{values[static_cast<std::size_t>(i * t.cols + j)]};
    } else {
      const index rows = is_vector ? t.cols : t.rows, cols = is_vector ? 1 : t.cols;
      std::vector<float> values;
      for (index i = 0; i < rows; ++i)
        for (index j = 0; j < cols; ++j)
          values.push_back(static_cast<float>(ours.values[static_cast<std::size_t>(theirs(i) * cols + j)]));
      file.tensor(name, dimensions, 0,
                  {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
    }
  }
};

}  // namespace support
