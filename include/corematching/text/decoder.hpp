// SPDX-License-Identifier: Apache-2.0
// The steps by which tokens become text, as the tokenizers library names them; each takes tokens one by one,
// so that text can be shown while it is made. Source: https://github.com/huggingface/tokenizers
// (tokenizers/src/decoders). It differs in one thing: of bytes in a row that are not all characters it keeps
// none, and here those that are stay, since they were shown already.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/text/byte_level.hpp"
#include "corematching/text/byte_tokens.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/pattern.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

namespace decode {

struct replace {
  pattern what;
  std::string by;
};
struct byte_fallback {};  // <0x41> is a byte; of bytes that make no character each is a U+FFFD
struct byte_level {};     // see byte_level.hpp; what Rust's from_utf8_lossy replaces is replaced
/// `replacement` is a space, and nothing at the first token's front where one was put in.
struct metaspace {
  std::string replacement;
  bool drops_first;
};
/// Takes up to so many of a character from both ends of each token, or of all the text where tokens are
/// fused.
struct strip {
  std::string character;
  std::size_t start;
  std::size_t stop;
  bool whole;
};
struct spaced {};  // a space between tokens, which is what a file without a decoder means

using step = std::variant<replace, byte_fallback, byte_level, metaspace, strip, spaced>;

}  // namespace decode

/// The text of tokens so far; see `detokenizer`.
class decoding {
 public:
  /// `steps` must outlive it.
  explicit decoding(const std::vector<decode::step>& steps) : steps_(&steps), states_(steps.size()) {}

  std::string push(std::string_view token) {
    run(0, token);
    return std::exchange(out_, {});
  }

  /// The bytes that `token` would add now, none of them held back or replaced.
  std::string bytes_of(std::string_view token) const {
    decoding copy = *this;
    copy.as_bytes_ = true;
    return copy.push(token);
  }

  std::string finish() {
    for (std::size_t i = 0; i < steps_->size(); ++i)
      std::visit([&](const auto& step) { end(step, i); }, (*steps_)[i]);
    return std::exchange(out_, {});
  }

 private:
  struct state {
    std::string held;          // bytes of an unfinished character, or what may be stripped from the end
    bool started = false;      // a token came by
    std::size_t stripped = 0;  // from the front
    bool front_done = false;
  };

  void run(std::size_t index, std::string_view token) {
    if (index == steps_->size()) {
      out_ += token;
      return;
    }
    std::visit([&](const auto& step) { apply(step, index, token); }, (*steps_)[index]);
  }

  void apply(const decode::replace& step, std::size_t index, std::string_view token) {
    if (as_bytes_ && !is_whole(token)) return run(index + 1, token);  // patterns read characters
    std::string result;
    effort allowed(token.size());
    for (const piece& p : step.what.split(token, allowed))
      result += p.matched ? std::string_view(step.by) : token.substr(p.begin, p.end - p.begin);
    run(index + 1, result);
  }

  void apply(const decode::byte_fallback&, std::size_t index, std::string_view token) {
    const int byte = byte_of_token(token);
    if (as_bytes_)
      return run_bytes(index, byte < 0 ? std::string(token) : std::string(1, static_cast<char>(byte)));
    if (byte < 0) {
      emit_unfinished(index, true);
      return run(index + 1, token);
    }
    states_[index].held += static_cast<char>(byte);
    emit_characters(index, true);
  }

  void apply(const decode::byte_level&, std::size_t index, std::string_view token) {
    if (as_bytes_) return run_bytes(index, from_byte_level(token));
    states_[index].held += from_byte_level(token);
    emit_characters(index, false);
  }

  // What is held belongs to tokens before, and is not theirs who come now; later steps see that it was there.
  void run_bytes(std::size_t index, const std::string& bytes) {
    if (const std::string& held = states_[index].held; !held.empty()) {
      run(index + 1, held);
      out_.clear();
    }
    run(index + 1, bytes);
  }

  // Hands on what is whole of the bytes that are held. `each`: a U+FFFD for each byte that is in no
  // character.
  void emit_characters(std::size_t index, bool each) {
    std::string& held = states_[index].held;
    std::string text;
    std::string_view rest = held;
    while (!rest.empty()) {
      const utf8_front front = front_of(rest);
      if (front.state == utf8_state::unfinished) break;
      const std::size_t length = front.state == utf8_state::broken && each ? 1 : front.length;
      text += front.state == utf8_state::whole ? rest.substr(0, length) : replacement_character;
      rest.remove_prefix(length);
    }
    held = std::string(rest);
    if (!text.empty()) run(index + 1, text);
  }

  void emit_unfinished(std::size_t index, bool each) {
    const std::string held = std::exchange(states_[index].held, {});
    std::string text;
    for (std::size_t i = 0; i < (each ? held.size() : held.empty() ? 0 : 1); ++i)
      text += replacement_character;
    if (!text.empty()) run(index + 1, text);
  }

  void apply(const decode::metaspace& step, std::size_t index, std::string_view token) {
    const bool drops = step.drops_first && !std::exchange(states_[index].started, true);
    std::string text;
    for (const piece& p : split_at_text(token, step.replacement))
      text += !p.matched ? token.substr(p.begin, p.end - p.begin) : drops ? "" : " ";
    run(index + 1, text);
  }

  void apply(const decode::strip& step, std::size_t index, std::string_view token) {
    state fresh;
    state& s = step.whole ? states_[index] : fresh;
    while (!s.front_done && s.stripped < step.start && token.starts_with(step.character)) {
      token.remove_prefix(step.character.size());
      ++s.stripped;
    }
    s.front_done = s.front_done || !token.empty();
    // What stands at the end goes, unless more follows.
    const std::string text = s.held.append(token);
    std::size_t end = text.size();
    for (std::size_t i = 0; i < step.stop && std::string_view(text).substr(0, end).ends_with(step.character);
         ++i)
      end -= step.character.size();
    s.held = text.substr(end);
    run(index + 1, std::string_view(text).substr(0, end));
  }

  void apply(const decode::spaced&, std::size_t index, std::string_view token) {
    const bool first = !std::exchange(states_[index].started, true);
    run(index + 1, std::string(first ? "" : " ").append(token));
  }

  void end(const decode::byte_fallback&, std::size_t index) { emit_unfinished(index, true); }
  void end(const decode::byte_level&, std::size_t index) { emit_unfinished(index, false); }
  template <class Step>
  void end(const Step&, std::size_t) {}

  const std::vector<decode::step>* steps_;
  std::vector<state> states_;
  std::string out_;
  bool as_bytes_ = false;
};

}  // namespace corematching::text
