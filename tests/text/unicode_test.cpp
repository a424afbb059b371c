// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/unicode.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "corematching/text/utf8.hpp"

namespace corematching::text {
namespace {

const std::string acute = "\xcc\x81", dot_below = "\xcc\xa3";  // of the classes 230 and 220

std::string repeated(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

/// The normal form as utf8proc makes it in one call.
std::string normalized_by_library(int options, const std::string& text) {
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), std::ssize(text),
                                   &result, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  return {reinterpret_cast<const char*>(result), static_cast<std::size_t>(length)};
}

TEST(normal_forms, are_those_of_the_library) {
  const std::pair<normal_form, int> forms[] = {
      {normal_form::nfc, UTF8PROC_STABLE | UTF8PROC_COMPOSE},
      {normal_form::nfd, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
      {normal_form::nfkc, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
      {normal_form::nfkd, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
  for (const auto& [form, options] : forms)
    for (char32_t code = 0x80; code < 0xfffe; ++code) {
      if (code == 0x3400) code = 0xac00;  // most ideographs and syllables are like their neighbours
      if (code == 0xad00) code = 0xf900;
      std::string text = "a";
      append_character(text, code);
      text += acute + dot_below;
      append_character(text, code);
      ASSERT_EQ(normalized_to(form, text), normalized_by_library(options, text))
          << static_cast<std::uint32_t>(code);
    }
}

// utf8proc's own sort takes the square of their number: minutes.
TEST(normal_forms, sort_as_many_marks_as_there_are) {
  constexpr int count = 100'000;
  EXPECT_EQ(normalized_to(normal_form::nfd, "a" + repeated(acute, count) + repeated(dot_below, count)),
            "a" + repeated(dot_below, count) + repeated(acute, count));
  // U+0F73, which is no mark of a class itself, is U+0F71 and U+0F72 of the classes 129 and 130.
  EXPECT_EQ(normalized_to(normal_form::nfc, repeated("\xe0\xbd\xb3", count)),
            repeated("\xe0\xbd\xb1", count) + repeated("\xe0\xbd\xb2", count));
}

}  // namespace
}  // namespace corematching::text
