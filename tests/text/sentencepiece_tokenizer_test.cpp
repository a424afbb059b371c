// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/sentencepiece_tokenizer.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "support/paths.hpp"

namespace corematching::text {
namespace {

using ids = std::vector<std::int32_t>;

const std::filesystem::path data = support::test_directory() / "reference/data/tokenizer";
constexpr std::int32_t first_byte = 3;  // the id of <0x00>
constexpr std::int32_t image = 340;

class sentencepiece : public ::testing::Test {
 protected:
  const std::unique_ptr<tokenizer> opened_ = sentencepiece_tokenizer::open(data);
  const tokenizer& tokens_ = *opened_;
  const io::json reference_ =
      io::parse_json(io::mapped_file::open(data / "reference.json").bytes(), "reference.json");

  ids encode(std::string_view text) const { return tokens_.encode(text, special_tokens::are_tokens); }
  /// One token per byte.
  ids bytes(std::string_view text) const {
    ids result;
    for (const char c : text) result.push_back(first_byte + static_cast<unsigned char>(c));
    return result;
  }
};

/// A directory with the reference's tokenizer.model and whatever else a test writes; gone after the test.
class sentencepiece_files : public ::testing::Test {
 protected:
  sentencepiece_files() {
    std::string name = (std::filesystem::temp_directory_path() / "tokenizer_XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    std::filesystem::copy_file(data / "tokenizer.model", directory_ / "tokenizer.model");
  }
  ~sentencepiece_files() override { std::filesystem::remove_all(directory_); }

  void write(const char* name, std::string_view content) const {
    std::ofstream(directory_ / name) << content;
  }
  std::string open_message() const {
    try {
      sentencepiece_tokenizer::open(directory_);
    } catch (const error& problem) {
      const std::string text = problem.what();
      return text.starts_with(directory_.string()) ? text.substr(directory_.string().size() + 1) : text;
    }
    return "no error";
  }

  std::filesystem::path directory_;
};

TEST_F(sentencepiece, encodes_as_the_reference_does) {
  for (const io::json& text : reference_.at("cases"))
    EXPECT_EQ(encode(text.at("text").get<std::string>()), text.at("ids").get<ids>()) << text.dump();
}

TEST_F(sentencepiece, decodes_as_the_reference_does) {
  for (const io::json& text : reference_.at("cases"))
    EXPECT_EQ(tokens_.decode(text.at("ids").get<ids>()), text.at("decoded")) << text.dump();
}

TEST_F(sentencepiece, knows_its_tokens) {
  EXPECT_EQ(tokens_.size(), reference_.at("size"));
  EXPECT_EQ(tokens_.find("<image>"), image);
  EXPECT_EQ(tokens_.find("<absent>"), -1);
  EXPECT_EQ(tokens_.frame().eos, 2);
  EXPECT_EQ(tokens_.frame().prefix, ids{1});
}

TEST_F(sentencepiece, streams_whole_characters_only) {
  for (const io::json& text : reference_.at("cases")) {
    const auto stream = tokens_.detokenize();
    std::string all, bytes;
    for (const std::int32_t id : text.at("ids").get<ids>()) {
      bytes += stream->bytes_of(id);
      const std::string part = stream->push(id);
      EXPECT_NO_THROW(io::json(part).dump()) << "not UTF-8";
      all += part;
    }
    EXPECT_EQ(stream->finish(), "");
    EXPECT_EQ(all, text.at("decoded"));
    EXPECT_EQ(bytes, text.at("decoded"));
  }
}

TEST_F(sentencepiece, holds_a_character_back_until_its_last_byte) {
  const auto stream = tokens_.detokenize();
  const ids parts = bytes("\xf0\x9f\x99\x82");
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(stream->push(parts[i]), "");
  EXPECT_EQ(stream->push(parts[3]), "\xf0\x9f\x99\x82");
}

TEST_F(sentencepiece, shows_bytes_that_make_no_character) {
  const std::string bad = "\xef\xbf\xbd";
  EXPECT_EQ(tokens_.decode(bytes("\xff")), bad);
  EXPECT_EQ(tokens_.decode(bytes("\xc0\xaf")), bad + bad) << "overlong";
  EXPECT_EQ(tokens_.decode(bytes("\xed\xa0\x80")), bad + bad + bad) << "surrogate";
  EXPECT_EQ(tokens_.decode(bytes("\xf4\x90\x80\x80")), bad + bad + bad + bad) << "beyond U+10FFFF";
  EXPECT_EQ(tokens_.decode(bytes("\xe6\x97")), bad + bad) << "unfinished at the end";
  EXPECT_EQ(tokens_.decode(bytes("\xe6\x97"
                                 "a")),
            bad + bad + "a")
      << "unfinished before another";
}

TEST_F(sentencepiece, an_unfinished_character_precedes_the_next_token) {
  ids parts = bytes("\xe6\x97");
  const ids word = encode("red");
  parts.insert(parts.end(), word.begin(), word.end());
  EXPECT_EQ(tokens_.decode(parts), "\xef\xbf\xbd\xef\xbf\xbd red");
}

TEST_F(sentencepiece, keeps_all_but_the_first_space) {
  EXPECT_EQ(tokens_.decode(encode("  a")), "  a");
  ids parts{1};
  const ids word = encode("red");
  parts.insert(parts.end(), word.begin(), word.end());
  EXPECT_EQ(tokens_.decode(parts), "red") << "a special token in front is not text";
}

TEST_F(sentencepiece, refuses_ids_outside_of_the_vocabulary) {
  for (const std::int32_t id : {-1, 346, 32000}) {
    try {
      tokens_.decode(ids{id});
      ADD_FAILURE() << id;
    } catch (const error& problem) {
      EXPECT_EQ(problem.what(),
                "token id " + std::to_string(id) + " is outside of the vocabulary of 346 tokens");
    }
  }
}

TEST_F(sentencepiece_files, needs_nothing_but_the_model) {
  const auto tokens = sentencepiece_tokenizer::open(directory_);
  EXPECT_EQ(tokens->size(), image);
  EXPECT_EQ(tokens->find("</s>"), 2);
  EXPECT_EQ(tokens->find("<image>"), -1);
}

TEST_F(sentencepiece_files, takes_added_tokens_from_each_file) {
  write("added_tokens.json", R"({"<image>": 340})");
  write("tokenizer.json", R"({"added_tokens": [{"id": 340, "content": "<image>", "special": true},
                                               {"id": 341, "content": "<pad>", "special": true}]})");
  write("tokenizer_config.json", R"({"add_bos_token": false,
      "added_tokens_decoder": {"342": {"content": "<x>", "special": true}}})");
  const auto tokens = sentencepiece_tokenizer::open(directory_);
  EXPECT_EQ(tokens->encode("<x><pad><image>", special_tokens::are_tokens), (ids{342, 341, 340}));
  EXPECT_EQ(tokens->size(), 343);
  EXPECT_TRUE(tokens->frame().prefix.empty());
}

TEST_F(sentencepiece_files, refuses_contradictions) {
  write("added_tokens.json", R"({"<image>": 340, "<pad>": 340})");
  EXPECT_EQ(open_message(), R"(added_tokens.json: token 340 is "<pad>", but also "<image>")");
  write("added_tokens.json", R"({"</s>": 340})");
  EXPECT_EQ(open_message(), R"(added_tokens.json: the added token "</s>" has id 340, but also 2)");
  write("added_tokens.json", R"({"": 340})");
  EXPECT_EQ(open_message(), "added_tokens.json: the added token 340 is empty");
  write("added_tokens.json", R"({"<image>": -1})");
  EXPECT_EQ(open_message(), "added_tokens.json: <image> is -1, expected an integer from 0 to 16777215");
}

TEST_F(sentencepiece_files, names_a_key_that_is_no_id) {
  write("tokenizer_config.json", R"({"added_tokens_decoder": {"34x": {"content": "<x>"}}})");
  EXPECT_EQ(open_message(),
            R"(tokenizer_config.json: added_tokens_decoder has the key "34x", which is no token id)");
}

TEST_F(sentencepiece_files, names_what_is_no_model) {
  for (const char* content : {"", "hello", "\x0a\xff\xff"}) {
    write("tokenizer.model", content);
    EXPECT_EQ(open_message(), "tokenizer.model: not a SentencePiece model");
  }
  write("tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_EQ(open_message(),
            "tokenizer.model: is a Git LFS pointer, not the file itself (git lfs pull fetches it)");
  std::filesystem::remove(directory_ / "tokenizer.model");
  EXPECT_EQ(open_message(), "tokenizer.model: cannot open: No such file or directory");
}

}  // namespace
}  // namespace corematching::text
