// SPDX-License-Identifier: Apache-2.0
// Keys and values of the text that prompts begin with, by its ids. Attention is causal, so they do not depend
// on what follows: a sequence may begin with them instead of reading them again. Hooks hear nothing of what
// is not read: this is for sequences whose hooks look at nothing of that text, which who asks has to know
// (they may look at pictures and at what follows them).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "corematching/model/batch/byte_cache.hpp"
#include "corematching/model/llama/llama.hpp"

namespace corematching {

template <backend B>
class text_prefixes {
 public:
  /// Keeps at most so many bytes of keys and values; 0: none.
  explicit text_prefixes(std::uint64_t limit) : kept_(limit), enabled_(limit > 0) {}

  bool enabled() const { return enabled_; }

  /// Begins the empty `seq` of `model` with the text `ids`. It is read, on its own, where it is not kept, so
  /// that the bits of what follows do not depend on whether it was. Returns whether it was. Throws `error` as
  /// prefill does.
  bool begin(B& be, const llama<B>& model, sequence<B>& seq, std::span<const std::int32_t> ids) {
    require(seq.next_position == 0, "a sequence that holds ", seq.next_position,
            " tokens does not begin with a text");
    std::vector<std::int32_t> key(ids.begin(), ids.end());
    if (const auto found = kept_.find(key)) {
      append(be, seq.cache, *found);
      seq.next_position = static_cast<std::int32_t>(ids.size());
      return true;
    }
    matrix<B> x(be, std::ssize(ids), model.config().hidden_size);
    model.embed(be, x.view(), ids);
    static_cast<void>(model.prefill(be, seq, x.view(), std::ssize(ids)));
    const kv_layer<B>& first = seq.cache[0];
    kv_cache<B> copy(seq.cache.layers(), first.size(), 0, first.type());
    append(be, copy, seq.cache);
    const std::uint64_t bytes = copy.capacity_bytes();
    static_cast<void>(kept_.put(std::move(key), std::move(copy), bytes));
    return false;
  }

  std::uint64_t bytes() const { return kept_.bytes(); }
  const cache_uses& uses() const { return kept_.uses(); }

 private:
  static void append(B& be, kv_cache<B>& to, const kv_cache<B>& from) {
    for (index i = 0; i < to.layers(); ++i) to[i].append(be, from[i]);
  }

  byte_cache<std::int32_t, kv_cache<B>> kept_;
  bool enabled_;
};

}  // namespace corematching
