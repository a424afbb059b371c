// SPDX-License-Identifier: Apache-2.0
#include "corematching/io/stand_in.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "corematching/io/json.hpp"
#include "corematching/io/safetensors_header.hpp"
#include "io/raw_safetensors.hpp"
#include "support/error_text.hpp"

namespace {

using corematching::io::parse_json;
using corematching::io::parse_safetensors_header;
using corematching::io::stand_in;
using support::bytes_of;
using support::error_text;

const std::string pointer =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const std::string pointer_text = ": is a Git LFS pointer, not the file itself (git lfs pull fetches it)";

TEST(stand_in, is_an_html_page_however_it_is_written) {
  for (const char* page : {"<!DOCTYPE html><html></html>", "<!doctype HTML>\n", "<html lang=\"en\">",
                           "<HTML>", "\r\n \t<html>", "\xef\xbb\xbf<!DOCTYPE html>"})
    EXPECT_STREQ(stand_in(bytes_of(page)), "is an HTML page, not the file itself") << page;
}

TEST(stand_in, is_nothing_else) {
  for (const char* text : {"", " \n", "<", "<htm", "<svg></svg>", "{}", "version",
                           "version https://example.com/", "\xef\xbb\xbf", "a <html>"})
    EXPECT_EQ(stand_in(bytes_of(text)), nullptr) << text;
}

TEST(stand_in, is_named_in_place_of_weights) {
  const auto refusal = [](std::string_view bytes) {
    return error_text([&] { parse_safetensors_header(bytes_of(bytes), "w.safetensors"); });
  };
  EXPECT_EQ(refusal(pointer), "w.safetensors" + pointer_text);
  EXPECT_EQ(refusal("<!DOCTYPE html>"), "w.safetensors: is an HTML page, not the file itself");
}

TEST(stand_in, is_named_in_place_of_json) {
  const auto refusal = [](std::string_view bytes) {
    return error_text([&] { parse_json(bytes_of(bytes), "config.json"); });
  };
  EXPECT_EQ(refusal(pointer), "config.json" + pointer_text);
  EXPECT_EQ(refusal("\n<html>"), "config.json: is an HTML page, not the file itself");
}

}  // namespace
