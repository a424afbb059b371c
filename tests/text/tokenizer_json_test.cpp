// SPDX-License-Identifier: Apache-2.0
#include "corematching/text/tokenizer_json.hpp"

#include <gtest/gtest.h>

#include <string>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"

namespace corematching::text {
namespace {

using ids = std::vector<token_id>;

io::json document_of(const std::string& text) {
  return io::json::parse(text);
}

/// A file with a vocabulary of a few letters and whatever else a test puts in.
io::json with(const std::string& fields) {
  io::json document =
      document_of(R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": null, "truncation": null, "padding": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "▁": 4, "▁a": 5, "?": 6}, "merges": ["a b", ["▁", "a"]],
              "unk_token": "?", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
              "fuse_unk": null, "byte_fallback": null, "ignore_merges": null}})");
  document.merge_patch(document_of("{" + fields + "}"));
  return document;
}

std::unique_ptr<pipeline_tokenizer> tokens_of(const io::json& document, const char* config = nullptr) {
  if (config == nullptr) return read_tokenizer_json({document, "t.json"}, nullptr);
  const io::json settings = document_of(config);
  const named_json named{settings, "c.json"};
  return read_tokenizer_json({document, "t.json"}, &named);
}

ids encoded(const std::string& fields, std::string_view text,
            special_tokens how = special_tokens::are_tokens) {
  return tokens_of(with(fields))->encode(text, how);
}

std::string refusal(const io::json& document, const char* config = nullptr) {
  try {
    tokens_of(document, config);
  } catch (const error& problem) {
    return problem.what();
  }
  return "no error";
}

TEST(tokenizer_json, takes_null_for_absent) {
  EXPECT_EQ(encoded("", "abz"), (ids{3, 6}));
}

TEST(tokenizer_json, makes_one_replacement_character_of_broken_bytes) {
  EXPECT_EQ(encoded("",
                    "a\xff\xfe"
                    "b"),
            (ids{0, 6, 6, 1}));
  EXPECT_EQ(encoded(R"("model": {"fuse_unk": true})",
                    "a\xff\xfe"
                    "b"),
            (ids{0, 6, 1}));
}

TEST(tokenizer_json, knows_metaspace_as_older_files_have_it) {
  EXPECT_EQ(
      encoded(
          R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true, "str_rep": "▁"})",
          "a a"),
      (ids{5, 5}));
  EXPECT_EQ(
      encoded(
          R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": false, "prepend_scheme": "never"})",
          "a a"),
      (ids{0, 5}));
}

TEST(tokenizer_json, knows_a_model_without_its_type) {
  EXPECT_EQ(encoded(R"("model": {"type": null})", "ab"), ids{3});
}

constexpr const char* special_ones = R"("added_tokens": [
  {"id": 7, "content": "<s>", "special": true, "normalized": false}, {"id": 8, "content": "<image>", "special": true, "normalized": false},
  {"id": 9, "content": "<x>", "special": false, "normalized": false}])";

TEST(tokenizer_json, leaves_special_tokens_text_where_they_are) {
  EXPECT_EQ(encoded(special_ones, "a<s>b<x>"), (ids{0, 7, 1, 9}));
  EXPECT_EQ(encoded(special_ones, "a<s>b<x>", special_tokens::are_text), (ids{0, 6, 6, 6, 1, 9}));
  const auto tokens = tokens_of(with(special_ones));
  const std::vector<text_part> parts{
      {"<s>a", special_tokens::are_text},     {"<image>", special_tokens::are_tokens},
      {"b<x><ima", special_tokens::are_text}, {"ge>", special_tokens::are_tokens},
      {"<s>", special_tokens::are_tokens},    {"\xff<s", special_tokens::are_text},
      {">", special_tokens::are_text}};
  EXPECT_EQ(tokens->encode(parts), (ids{6, 6, 6, 0, 8, 1, 9, 6, 6, 6, 0, 6, 6, 6, 7, 6, 6, 6, 6}))
      << "a special token is one where no part of it is text";
}

TEST(tokenizer_json, numbers_added_tokens_as_the_library_does) {
  const auto tokens = tokens_of(with(
      R"("added_tokens": [{"id": 50, "content": "<x>"}, {"id": 51, "content": "c"}, {"id": 60, "content": "<y>"}])"));
  EXPECT_EQ(tokens->find("<x>"), 7);
  EXPECT_EQ(tokens->find("c"), 2);
  EXPECT_EQ(tokens->find("<y>"), 8);
  EXPECT_EQ(tokens->size(), 9);
}

constexpr const char* begins_and_ends = R"("post_processor": {"type": "TemplateProcessing", "pair": [],
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}})";

TEST(tokenizer_json, puts_around_a_text_what_the_file_and_then_its_configuration_say) {
  const io::json document = with(std::string(special_ones) + "," + begins_and_ends);
  EXPECT_EQ(tokens_of(document)->frame().prefix, ids{7});
  const auto changed =
      tokens_of(document, R"({"bos_token": "<s>", "eos_token": {"content": "<x>"}, "add_bos_token": false,
                                               "add_eos_token": true})");
  EXPECT_EQ(changed->frame().prefix, ids{});
  EXPECT_EQ(changed->frame().suffix, ids{9});
  EXPECT_EQ(changed->frame().bos, 7);
  EXPECT_EQ(changed->frame().eos, 9);
  EXPECT_EQ(tokens_of(document, R"({"add_bos_token": null})")->frame().prefix, ids{7});
  EXPECT_EQ(
      tokens_of(with(R"("post_processor": {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0]})"))
          ->frame()
          .suffix,
      ids{1});
}

TEST(tokenizer_json, takes_flags_from_the_configuration) {
  const auto tokens = tokens_of(with(special_ones), R"({"added_tokens_decoder": {
      "9": {"content": "<x>", "special": true, "rstrip": true, "normalized": false}, "10": {"content": "<new>"}}})");
  EXPECT_EQ(tokens->encode("<x>  a<new>", special_tokens::are_tokens), (ids{9, 0, 10}));
  EXPECT_EQ(tokens->decode(ids{9, 0, 10}), "a <new>");
}

TEST(tokenizer_json, shows_a_character_with_its_last_byte) {
  const auto tokens =
      tokens_of(with(R"("model": {"byte_fallback": true, "vocab": {"<0xE4>": 7, "<0xB8>": 8, "<0xAD>": 9}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})"));
  EXPECT_EQ(tokens->encode("\xe4\xb8\xad", special_tokens::are_text), (ids{7, 8, 9}));
  const auto stream = tokens->detokenize();
  EXPECT_EQ(stream->push(5), "a");
  EXPECT_EQ(stream->push(7), "");
  EXPECT_EQ(stream->push(8), "");
  EXPECT_EQ(stream->push(9), "\xe4\xb8\xad");
  EXPECT_EQ(stream->push(5), " a");
  EXPECT_EQ(stream->push(7), "");
  EXPECT_EQ(stream->finish(), "\xef\xbf\xbd");
}

TEST(tokenizer_json, tells_the_bytes_of_each_token) {
  const auto tokens =
      tokens_of(with(R"("model": {"byte_fallback": true, "vocab": {"<0xE4>": 7, "<0xB8>": 8, "<0xAD>": 9}},
    "added_tokens": [{"id": 10, "content": "<x>", "special": true}, {"id": 11, "content": "new"}],
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})"));
  const auto stream = tokens->detokenize();
  EXPECT_EQ(stream->bytes_of(5), "a") << "first";
  const auto next = [&](token_id id) {
    const std::string bytes = stream->bytes_of(id);
    EXPECT_EQ(stream->bytes_of(id), bytes) << "asking changes nothing";
    stream->push(id);
    return bytes;
  };
  EXPECT_EQ(next(7), "\xe4");
  EXPECT_EQ(next(5), " a") << "behind a byte that is held back";
  EXPECT_EQ(next(7), "\xe4");
  EXPECT_EQ(next(8), "\xb8");
  EXPECT_EQ(next(9), "\xad");
  EXPECT_EQ(next(11), "new");
  EXPECT_EQ(next(10), "");
  EXPECT_EQ(stream->bytes_of(12), "");
  EXPECT_EQ(stream->bytes_of(-1), "");

  const auto of_bytes = tokens_of(with(R"("model": {"vocab": {"ä¸": 7, "Ń": 8, "Ġ": 9}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})"));
  const auto other = of_bytes->detokenize();
  EXPECT_EQ(other->bytes_of(7), "\xe4\xb8");
  other->push(7);
  EXPECT_EQ(other->bytes_of(8), "\xad");
  EXPECT_EQ(other->bytes_of(9), " ");
}

TEST(tokenizer_json, refuses_ids_outside_of_the_vocabulary) {
  const auto tokens = tokens_of(with(""));
  EXPECT_THROW(tokens->decode(ids{7}), error);
  EXPECT_THROW(tokens->decode(ids{-1}), error);
}

TEST(tokenizer_json, names_what_it_does_not_know) {
  EXPECT_EQ(refusal(with(
                R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Odd"}]})")),
            "t.json: normalizer.normalizers[1]: the normalizer \"Odd\" is not supported");
  EXPECT_EQ(refusal(with(R"("pre_tokenizer": {"type": "UnicodeScripts"})")),
            "t.json: pre_tokenizer: the pre-tokenizer \"UnicodeScripts\" is not supported");
  EXPECT_EQ(refusal(with(R"("decoder": {"type": "WordPiece"})")),
            "t.json: decoder: the decoder \"WordPiece\" is not supported");
  EXPECT_EQ(refusal(with(R"("post_processor": {"type": "Odd"})")),
            "t.json: post_processor: the post-processor \"Odd\" is not supported");
  EXPECT_EQ(refusal(with(R"("model": {"type": "WordPiece"})")),
            "t.json: model: the model \"WordPiece\" is not supported; BPE and Unigram are");
  EXPECT_EQ(refusal(with(R"("version": "2.0")")), "t.json: version is \"2.0\", expected 1.0");
}

TEST(tokenizer_json, names_what_is_wrong) {
  EXPECT_EQ(
      refusal(with(R"("model": {"merges": ["a z"]})")),
      "t.json: model.merges[0]: the merge of \"a\" and \"z\" needs \"az\", which is not in the vocabulary");
  EXPECT_EQ(refusal(with(R"("model": {"vocab": {"z": 0}})")),
            "t.json: model.vocab: two tokens have the id 0");
  EXPECT_EQ(refusal(with(R"("model": {"dropout": 0.1})")),
            "t.json: model: a dropout other than 0 makes ids random, which is not supported");
  EXPECT_EQ(
      refusal(with(
          R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "["}, "behavior": "Isolated", "invert": false})")),
      "t.json: pre_tokenizer: the expression \"[\" cannot be compiled: premature end of char-class");
  EXPECT_EQ(refusal(with(""), R"({"added_tokens_decoder": {"x": {"content": "<x>"}}})"),
            "c.json: added_tokens_decoder has the key \"x\", which is no token id");
}

TEST(tokenizer_json, bounds_texts_that_grow) {
  std::string doubling;
  for (int i = 0; i < 60; ++i)
    doubling +=
        std::string(i > 0 ? "," : "") + R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  const auto tokens =
      tokens_of(with(R"("normalizer": {"type": "Sequence", "normalizers": [)" + doubling + "]}"));
  EXPECT_THROW(tokens->encode("a", special_tokens::are_text), error);
}

}  // namespace
}  // namespace corematching::text
