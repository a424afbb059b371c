// SPDX-License-Identifier: Apache-2.0
// Several sequences that take a step of decoding together (llama::step_together): who they are, and the
// memory that such steps need beside what each sequence has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/llama/sequence.hpp"
#include "corematching/nn/together.hpp"

namespace corematching {

/// One of them, and its next token. `wants` holds one entry for each layer, or none where all neurons are
/// computed.
template <backend B>
struct batch_member {
  sequence<B>* seq;
  std::int32_t id;
  std::vector<wanted_neurons<typename B::space>> wants = {};
};

/// What `hook` asks for where the next token of `seq` is decoded.
template <backend B, foretelling_hook H>
std::vector<wanted_neurons<typename B::space>> wants_of(B& be, sequence<B>& seq, H&& hook) {
  std::vector<wanted_neurons<typename B::space>> wants;
  wants.reserve(static_cast<std::size_t>(seq.cache.layers()));
  for (index i = 0; i < seq.cache.layers(); ++i)
    wants.push_back(ask_ahead<B>({be, i, {&seq.next_position, 1}, seq.cache[i]}, hook));
  return wants;
}

/// Memory for steps of up to `capacity` sequences of a model of this shape.
template <backend B>
class batch_memory {
 public:
  using space = typename B::space;

  batch_memory(B& be, const decoder_shape& shape, index vocabulary, index capacity)
      : scratch(be, shape, capacity),
        hidden(be, capacity, shape.hidden_size),
        logits(be, capacity, vocabulary),
        input(be.template allocate<std::int32_t>(2 * capacity)) {}

  index capacity() const { return hidden.rows(); }

  together_scratch<B> scratch;
  matrix<B> hidden;                                 // [capacity, D]
  matrix<B> logits;                                 // [capacity, vocabulary]
  typename B::template buffer<std::int32_t> input;  // ids, then positions
};

namespace detail {

/// The caches of a step's members as they were before it, unless the step comes to its end.
template <backend B>
class unfinished_step {
 public:
  explicit unfinished_step(std::span<const batch_member<B>> members) : members_(members) {
    for (const batch_member<B>& member : members)
      for (index i = 0; i < member.seq->cache.layers(); ++i)
        lengths_.push_back(member.seq->cache[i].length());
  }
  unfinished_step(const unfinished_step&) = delete;
  unfinished_step& operator=(const unfinished_step&) = delete;
  ~unfinished_step() {
    if (finished_) return;
    auto length = lengths_.begin();
    for (const batch_member<B>& member : members_)
      for (index i = 0; i < member.seq->cache.layers(); ++i) member.seq->cache[i].set_length(*length++);
  }

  void finish() { finished_ = true; }

 private:
  std::span<const batch_member<B>> members_;
  std::vector<index> lengths_;  // of every member those of every layer
  bool finished_ = false;
};

}  // namespace detail

}  // namespace corematching
