// SPDX-License-Identifier: Apache-2.0
// How a packed file of a GGUF file is laid out.
#pragma once

#include <optional>

#include "corematching/core/dtype.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/packed/layout.hpp"

namespace corematching {

/// With weights as gguf_weight_types has them.
inline packed_layout gguf_layout(const io::gguf_file& from, const llama_config& config,
                                 std::optional<dtype> weights) {
  return {config, gguf_weight_types(from, config, weights)};
}

}  // namespace corematching
