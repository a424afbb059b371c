// SPDX-License-Identifier: Apache-2.0
// How much an engine takes on at once.
#pragma once

#include <cstdint>

#include "corematching/core/view.hpp"
#include "llava/picture_file.hpp"

namespace corematching::driver {

struct engine_limits {
  index running = 8;                                   // sequences in a batch
  index waiting = 64;                                  // questions in the queue
  std::uint64_t cache_bytes = std::uint64_t{4} << 30;  // of keys and values, of all sequences that run
  std::uint64_t picture_bytes = std::uint64_t{256}
                                << 20;                    // of features kept of pictures seen before; 0: none
  std::uint64_t prefix_bytes = std::uint64_t{256} << 20;  // of keys and values kept of prompts' first text
  index pictures = 16;                                    // of one question
  std::int64_t picture_pixels = max_picture_pixels;       // of one picture
  index layers_at_once = 4;  // of a prompt that is read, between two steps of those that answer

  /// Throws `error` for numbers that nothing could be done with.
  void validate() const {
    require(running > 0 && waiting > 0 && layers_at_once > 0 && pictures >= 0 && picture_pixels > 0,
            "limits: ", running, " sequences, ", waiting, " waiting questions, ", layers_at_once,
            " layers at once, ", pictures, " pictures of ", picture_pixels, " pixels");
  }
};

}  // namespace corematching::driver
