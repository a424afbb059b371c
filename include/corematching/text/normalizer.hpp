// SPDX-License-Identifier: Apache-2.0
// The steps by which a text is made uniform before it is cut into words, as the tokenizers library names
// them. Source: https://github.com/huggingface/tokenizers (tokenizers/src/normalizers).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/text/byte_level.hpp"
#include "corematching/text/charsmap.hpp"
#include "corematching/text/effort.hpp"
#include "corematching/text/pattern.hpp"
#include "corematching/text/unicode.hpp"
#include "corematching/text/utf8.hpp"

namespace corematching::text {

namespace normalize {

struct to_form {
  normal_form form;
};
struct lower {};
struct bytes {};  // see byte_level.hpp
struct prepend {  // before every text that is not empty
  std::string what;
};
struct replace {
  pattern what;
  std::string by;
};
struct strip {
  bool left;
  bool right;
};
enum class dropped_marks { all, nonspacing };
struct drop_marks {
  dropped_marks which;
};
struct rules {
  std::shared_ptr<const charsmap> map;
};
struct nmt {};             // control characters go, other white space becomes a space
struct clean {};           // the same as BERT does it
struct spaced_chinese {};  // a space on each side of an ideograph, as BERT has it

using step = std::variant<to_form, lower, bytes, prepend, replace, strip, drop_marks, rules, nmt, clean,
                          spaced_chinese>;

namespace detail {

inline constexpr char32_t no_character = 0xffffffff;

/// The text of the characters that `change(code)` gives, `no_character` for none.
template <class Change>
std::string changed(std::string_view text, Change&& change) {
  std::string result;
  result.reserve(text.size());
  for_each_character(text, [&](char32_t code, std::string_view) {
    if (const char32_t other = change(code); other != no_character) append_character(result, other);
  });
  return result;
}

inline char32_t nmt_character(char32_t c) {
  if ((c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f ||
      c == 0x9f)
    return no_character;
  const bool space = c == 0x09 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 ||
                     (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xfeff || c == 0xfffd;
  return space ? U' ' : c;
}

inline char32_t clean_character(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return U' ';
  if (c == 0xfffd || is_control(c)) return no_character;
  return is_white_space(c) ? U' ' : c;
}

inline bool is_ideograph(char32_t c) {
  const auto within = [&](char32_t first, char32_t last) { return c >= first && c <= last; };
  return within(0x4e00, 0x9fff) || within(0x3400, 0x4dbf) || within(0x20000, 0x2a6df) ||
         within(0x2a700, 0x2b73f) || within(0x2b740, 0x2b81f) || within(0x2b920, 0x2ceaf) ||
         within(0xf900, 0xfaff) || within(0x2f800, 0x2fa1f);
}

inline std::string_view stripped(std::string_view text, const strip& ends) {
  while (ends.left && !text.empty() && is_white_space(first_character(text).code))
    text.remove_prefix(first_character(text).length);
  while (ends.right && !text.empty() && is_white_space(last_character(text).code))
    text.remove_suffix(last_character(text).length);
  return text;
}

}  // namespace detail

}  // namespace normalize

/// A sequence of steps; with none it leaves every text as it is.
class normalizer {
 public:
  /// `where` begins messages about texts that grow without bound.
  explicit normalizer(std::vector<normalize::step> steps = {}, std::string where = "")
      : steps_(std::move(steps)), where_(std::move(where)) {}

  bool empty() const { return steps_.empty(); }

  /// `text` must be well-formed. Throws `error` where an expression does not come to an end or the text grows
  /// beyond all use.
  std::string operator()(std::string_view text, effort& allowed) const {
    // U+FDFA grows the most in a normal form: 18 characters of 3 come from one.
    const std::size_t longest = (std::size_t{1} << 20) + 64 * text.size();
    std::string result(text);
    for (const normalize::step& step : steps_) {
      result = std::visit([&](const auto& s) { return apply(s, result, limits{longest, allowed}); }, step);
      require_length(result, longest);
    }
    return result;
  }

 private:
  struct limits {
    std::size_t longest;  // bytes of the text
    effort& allowed;
  };

  void require_length(const std::string& text, std::size_t longest) const {
    require(text.size() <= longest, where_, ": the normalizer makes more than ", longest, " bytes of a text");
  }

  static std::string apply(const normalize::to_form& s, std::string_view text, const limits&) {
    return normalized_to(s.form, text);
  }
  static std::string apply(const normalize::lower&, std::string_view text, const limits&) {
    return lower_case(text);
  }
  static std::string apply(const normalize::bytes&, std::string_view text, const limits&) {
    return to_byte_level(text);
  }
  static std::string apply(const normalize::prepend& s, std::string_view text, const limits&) {
    return text.empty() ? std::string() : s.what + std::string(text);
  }
  std::string apply(const normalize::replace& s, std::string_view text, const limits& most) const {
    std::string result;
    for (const piece& p : s.what.split(text, most.allowed)) {
      result += p.matched ? std::string_view(s.by) : text.substr(p.begin, p.end - p.begin);
      require_length(result, most.longest);
    }
    return result;
  }
  static std::string apply(const normalize::strip& s, std::string_view text, const limits&) {
    return std::string(normalize::detail::stripped(text, s));
  }
  static std::string apply(const normalize::drop_marks& s, std::string_view text, const limits&) {
    return normalize::detail::changed(text, [&](char32_t c) {
      const bool dropped =
          s.which == normalize::dropped_marks::all ? is_mark(c) : category_of(c) == UTF8PROC_CATEGORY_MN;
      return dropped ? normalize::detail::no_character : c;
    });
  }
  static std::string apply(const normalize::rules& s, std::string_view text, const limits&) {
    return (*s.map)(text);
  }
  static std::string apply(const normalize::nmt&, std::string_view text, const limits&) {
    return normalize::detail::changed(text, normalize::detail::nmt_character);
  }
  static std::string apply(const normalize::clean&, std::string_view text, const limits&) {
    return normalize::detail::changed(text, normalize::detail::clean_character);
  }
  static std::string apply(const normalize::spaced_chinese&, std::string_view text, const limits&) {
    std::string result;
    for_each_character(text, [&](char32_t code, std::string_view bytes) {
      const bool spaced = normalize::detail::is_ideograph(code);
      result.append(spaced ? " " : "").append(bytes).append(spaced ? " " : "");
    });
    return result;
  }

  std::vector<normalize::step> steps_;
  std::string where_;
};

}  // namespace corematching::text
