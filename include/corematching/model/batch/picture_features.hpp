// SPDX-License-Identifier: Apache-2.0
// The features of pictures that were shown before, by what the model sees of them: pictures that differ in
// nothing but what preprocessing takes away share theirs.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "corematching/model/batch/byte_cache.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "corematching/model/picture/picture.hpp"

namespace corematching {

template <backend B>
class picture_features {
 public:
  /// Keeps at most so many bytes of features and of the pictures that they are of; 0: none.
  explicit picture_features(std::uint64_t limit) : kept_(limit) {}

  /// The image tokens [image_tokens, D] of `seen`, a picture that the processor has resized and cut. All
  /// pictures must have been normalised alike.
  std::shared_ptr<const matrix<B>> of(B& be, const llava<B>& model, const image_processor& processor,
                                      const picture& seen) {
    if (auto found = kept_.find(seen.rgb)) return found;
    const std::vector<float> pixels = processor.normalise(seen);
    matrix<B> features = model.encode_image(be, pixels);
    const std::uint64_t bytes = features.bytes() + seen.rgb.size();
    return kept_.put(seen.rgb, std::move(features), bytes);
  }

  std::uint64_t bytes() const { return kept_.bytes(); }
  const cache_uses& uses() const { return kept_.uses(); }

 private:
  byte_cache<std::uint8_t, matrix<B>> kept_;  // by the samples: all seen pictures have one size
};

}  // namespace corematching
