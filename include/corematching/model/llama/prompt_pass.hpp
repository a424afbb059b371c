// SPDX-License-Identifier: Apache-2.0
// A prompt on its way through the layers. It can stand still between two of them while other sequences run:
// which tokens go on and which neurons are core is found from all rows of a layer, so a prompt is cut between
// layers, not between rows, and a prompt in parts gives the bits of one in a whole.
#pragma once

#include <algorithm>
#include <functional>

#include "corematching/model/llama/alive_tokens.hpp"
#include "corematching/model/llama/sequence.hpp"
#include "corematching/nn/decoder_layer.hpp"

namespace corematching {

/// Where the rows of a prompt stand that has `tokens` tokens: ascending, the last one at its end.
struct prompt_places {
  index_view<> rows;
  index tokens = 0;

  /// Throws `error` where these are no places of `count` rows.
  void validate(index count) const {
    require(rows.size == count && count > 0, "places of ", rows.size, " rows are given for ", count, " rows");
    require(rows[0] >= 0 && std::ranges::adjacent_find(rows, std::greater_equal{}) == rows.end(),
            "places of a prompt's rows must ascend from 0 or more");
    require(rows[count - 1] == tokens - 1, "the last row of a prompt of ", tokens, " tokens stands at place ",
            rows[count - 1], ", not at its end");
  }
};

template <backend B>
class llama;

template <backend B>
class prompt_pass {
 public:
  using view = matrix_view<float, typename B::space>;

  /// Of the embeddings x [T, D] (lost), of which llama::prefill says what they are; `seq` and the memory of x
  /// must stay where they are until the prompt is read. Throws `error` for a prompt that does not fit.
  prompt_pass(B& be, const llama<B>& model, sequence<B>& seq, view x, const prompt_places& places,
              index ffn_rows)
      : model_(&model),
        seq_(&seq),
        x_(checked(model, seq, x, places)),
        scratch_(be, shape_of(model.config()), x.rows, ffn_rows),
        alive_(be, places.tokens, seq.next_position, places.rows) {
    if (x.rows < places.tokens) model.require_dropping(alive_.end);
    model.layers_->begin_prompt(seq.subsets);
  }

  index layers_done() const { return done_; }
  bool complete() const { return done_ == model_->config().layers; }

  /// Runs at most so many further layers, with the same hook each time. Returns whether the prompt is read;
  /// its last token's logits then stand in the sequence. After an exception the sequence holds a part of the
  /// prompt and is of no further use.
  template <hook_of<B> H = no_hook>
  bool advance(B& be, index layers, H&& hook = {}) {
    const index last = std::min(done_ + layers, model_->config().layers);
    if (complete()) return true;
    for (; done_ < last; ++done_) run_layer(be, hook);
    if (!complete()) return false;
    seq_->next_position = alive_.renumbered ? alive_.rotary.back() + 1 : alive_.end;
    model_->compute_logits(be, seq_->one_token, seq_->logits.view(), x_.middle_rows(x_.rows - 1, 1));
    return true;
  }

 private:
  static view checked(const llama<B>& model, const sequence<B>& seq, view x, const prompt_places& places) {
    require(x.rows > 0, "the prompt is empty");
    places.validate(x.rows);
    model.require_room(seq, places.tokens);
    return x;
  }

  template <class H>
  void run_layer(B& be, H& hook) {
    layer_source<B>& layers = *model_->layers_;
    const layer_context<B> at{be, done_, {alive_.original.data(), x_.rows}, seq_->cache[done_]};
    const auto frequencies = model_->frequencies_.view();
    const token_selection kept =
        layers.prompt_layer(be, done_).forward(at, scratch_, x_, alive_.device_view(), frequencies, hook);
    layers.end_prompt_layer(be, done_, seq_->subsets,
                            [&] { return call_hook<site::decode_neurons>(hook, at); });
    if (!kept.rows) return;
    model_->require_dropping(alive_.end);
    x_ = alive_.keep(be, seq_->cache, x_, kept, done_, {frequencies, model_->config().kv_heads});
  }

  const llama<B>* model_;
  sequence<B>* seq_;
  view x_;  // what is left of it
  scratch<B> scratch_;
  detail::alive_tokens<B> alive_;
  index done_ = 0;  // layers
};

}  // namespace corematching
