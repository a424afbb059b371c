// SPDX-License-Identifier: Apache-2.0
// The steps by which a text is cut into words, each of which the model encodes on its own, as the tokenizers
// library names them. Source: https://github.com/huggingface/tokenizers (tokenizers/src/pre_tokenizers).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/text/byte_level.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/known_splits.hpp"
#include "corematching/text/pattern.hpp"
#include "corematching/text/pieces.hpp"
#include "corematching/text/unicode.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

namespace cut {

struct split {
  pattern at;
  split_behaviour behaviour;
  bool invert;  // matches are what lies between
};
/// A space in front, where there is none, and GPT-2's expression. Words then go to GPT-2's alphabet of bytes.
struct byte_level {
  bool prefix_space;
  bool cuts;
};
enum class prepend_scheme { always, first, never };
/// Spaces become `replacement`, which is also put in front where the scheme says so, and begins each word.
struct metaspace {
  std::string replacement;
  prepend_scheme scheme;
  bool cuts;
};
struct white_space {};  // goes
struct words {};        // \w+ and what is neither \w nor white space; white space goes
struct digits {
  bool individual;
};
struct punctuation {
  split_behaviour behaviour;
};

using step = std::variant<split, byte_level, metaspace, white_space, words, digits, punctuation>;

}  // namespace cut

class pre_tokenizer {
 public:
  explicit pre_tokenizer(std::vector<cut::step> steps = {}) : steps_(std::move(steps)) {}

  /// Whether the last step maps words to GPT-2's alphabet. That is left to whoever takes them, since most
  /// words were met before and need not be mapped again.
  bool leaves_bytes() const {
    return !steps_.empty() && std::holds_alternative<cut::byte_level>(steps_.back());
  }

  /// Calls `use(word)` for each word of `text`, which is well-formed; words are never empty. `at_start`: the
  /// text begins a prompt. Throws `error` where an expression takes more steps than are allowed.
  template <class Use>
  void operator()(std::string_view text, bool at_start, effort& allowed, Use&& use) const {
    taker<Use> to{use, allowed};
    run(0, text, at_start, to);
  }

 private:
  // Who takes the words, and what expressions may still spend on the way.
  template <class Take>
  struct taker {
    Take& take;
    effort& allowed;
    void operator()(std::string_view word) { take(word); }
  };

  template <class Use>
  void run(std::size_t index, std::string_view text, bool at_start, Use& use) const {
    if (text.empty()) return;
    if (index == steps_.size()) return use(text);
    std::visit([&](const auto& step) { apply(step, index, text, at_start, use); }, steps_[index]);
  }

  template <class Use>
  void go_on(std::size_t index, std::string_view text, const std::vector<piece>& pieces, bool at_start,
             Use& use) const {
    for (const piece& p : pieces)
      run(index + 1, text.substr(p.begin, p.end - p.begin), at_start && p.begin == 0, use);
  }

  template <class Use>
  void apply(const cut::split& step, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    // A known expression leaves nothing between its matches.
    if (step.at.known() && step.behaviour == split_behaviour::isolated)
      return apply_known(*step.at.known(), index, text, at_start, use);
    std::vector<piece> pieces = step.at.split(text, use.allowed);
    if (step.invert)
      for (piece& p : pieces) p.matched = !p.matched;
    go_on(index, text, arranged(std::move(pieces), step.behaviour), at_start, use);
  }

  template <class Use>
  void apply_known(known_split split, std::size_t index, std::string_view text, bool at_start,
                   Use& use) const {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t length = match_length(split, text.substr(begin));
      run(index + 1, text.substr(begin, length), at_start && begin == 0, use);
      begin += length;
    }
  }

  template <class Use>
  void apply(const cut::byte_level& step, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    std::string longer;
    if (step.prefix_space && text[0] != ' ') text = longer.append(" ").append(text);
    if (index + 1 == steps_.size())
      return step.cuts ? apply_known(known_split::gpt2, index, text, at_start, use)
                       : run(index + 1, text, at_start, use);
    for (std::size_t length = 0; !text.empty(); text.remove_prefix(length), at_start = false) {
      length = step.cuts ? match_length(known_split::gpt2, text) : text.size();
      run(index + 1, to_byte_level(text.substr(0, length)), at_start, use);
    }
  }

  template <class Use>
  void apply(const cut::metaspace& step, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    std::string marked;
    marked.reserve(text.size() + text.size() / 2);
    for (const char c : text) {
      if (c == ' ')
        marked += step.replacement;
      else
        marked += c;
    }
    const bool wanted =
        step.scheme == cut::prepend_scheme::always || (step.scheme == cut::prepend_scheme::first && at_start);
    if (wanted && !marked.starts_with(step.replacement)) marked.insert(0, step.replacement);
    if (!step.cuts) return run(index + 1, marked, at_start, use);
    go_on(index, marked, arranged(split_at_text(marked, step.replacement), split_behaviour::merged_with_next),
          at_start, use);
  }

  template <class Use>
  void apply(const cut::white_space&, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    go_on(index, text, arranged(split_at_characters(text, is_white_space), split_behaviour::removed),
          at_start, use);
  }

  template <class Use>
  void apply(const cut::words&, std::size_t index, std::string_view text, bool at_start, Use& use) const {
    enum class kind { white_space, word, other };
    std::size_t begin = 0, at = 0;
    kind run_of = kind::white_space;
    const auto end_run = [&] {
      if (run_of != kind::white_space)
        run(index + 1, text.substr(begin, at - begin), at_start && begin == 0, use);
      begin = at;
    };
    for_each_character(text, [&](char32_t code, std::string_view bytes) {
      const kind here = is_word(code) ? kind::word : is_white_space(code) ? kind::white_space : kind::other;
      if (here != run_of) end_run();
      run_of = here;
      at += bytes.size();
    });
    end_run();
  }

  template <class Use>
  void apply(const cut::digits& step, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    const auto behaviour = step.individual ? split_behaviour::isolated : split_behaviour::contiguous;
    go_on(index, text, arranged(split_at_characters(text, is_number), behaviour), at_start, use);
  }

  template <class Use>
  void apply(const cut::punctuation& step, std::size_t index, std::string_view text, bool at_start,
             Use& use) const {
    go_on(index, text, arranged(split_at_characters(text, is_punctuation), step.behaviour), at_start, use);
  }

  std::vector<cut::step> steps_;
};

}  // namespace corematching::text
