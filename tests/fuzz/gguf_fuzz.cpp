// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as a GGUF file: its metadata, its tensors, the vocabulary if there is one, and what it says
// of a vision tower and a projector are accepted or refused with corematching::error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/gguf_metadata.hpp"
#include "corematching/model/gguf/mmproj_config.hpp"
#include "corematching/model/gguf/mmproj_tensors.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "corematching/text/gguf_tokenizer.hpp"

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

/// Runs `body`, which may refuse the input in one line.
template <class Body>
void may_refuse(Body&& body) {
  try {
    body();
  } catch (const corematching::error& refused) {
    const std::string text = refused.what();
    check(text.starts_with("input: ") && text.find('\n') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace corematching;
  const auto bytes = std::as_bytes(std::span(data, size));
  may_refuse([&] {
    const auto file = io::gguf_file::parse(bytes, "input");
    std::uint64_t covered = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      check(tensor.bytes.data() >= bytes.data() &&
            tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
      covered += tensor.bytes.size();
    }
    check(covered <= size);
  });
  may_refuse([&] {
    const auto file = io::gguf_file::parse(bytes, "input");
    const mmproj_config config = read_mmproj_config(file);
    check(config.layers <= config.vision.layers && config.token_size > 0);
    image_processor{config.image};
    for (const std::string& problem : mmproj_problems(file, config))
      check(problem.starts_with("input: ") && problem.find('\n') == std::string::npos);
  });
  may_refuse([&] {
    const auto metadata = io::gguf_metadata::parse(bytes, "input");
    check(metadata.end() <= size);
    const auto tokens = text::read_gguf_tokenizer(metadata);
    for (const auto id :
         tokens->encode("Hello <s> world's 1234\n\xe4\xb8\xad", text::special_tokens::are_tokens))
      check(id >= 0 && id < tokens->size());
  });
  return 0;
}
