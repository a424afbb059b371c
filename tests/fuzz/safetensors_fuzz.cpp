// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as a safetensors file and as a shard index: accepted or refused with corematching::error,
// and what is accepted can be read to the last byte.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "corematching/core/error.hpp"
#include "corematching/io/safetensors.hpp"

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

// A refusal is one line that starts with the name of the file.
template <class Body>
void refuse_or(Body&& body) {
  try {
    body();
  } catch (const corematching::error& refused) {
    const std::string text = refused.what();
    check(text.starts_with("input: ") && text.find('\n') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace corematching::io;
  const auto bytes = std::as_bytes(std::span(data, size));
  refuse_or([&] {
    const auto file = safetensors_file::parse(bytes, "input", nullptr);
    std::size_t covered = 0;
    volatile unsigned char sink = 0;
    for (const tensor& t : file.tensors()) {
      covered += t.bytes.size();
      check(tensor_bytes(t.shape, t.type, t.name) == t.bytes.size());
      for (const std::byte b : t.bytes)
        sink = static_cast<unsigned char>(sink ^ std::to_integer<unsigned char>(b));
    }
    check(covered <= size);
  });
  refuse_or([&] {
    for (const auto& [name, shard] : parse_shard_index(bytes, "input"))
      check(!shard.empty() && shard.find('/') == std::string::npos);
  });
  return 0;
}
