// SPDX-License-Identifier: Apache-2.0
// The same ids and texts as the tokenizers library, over the stored strings of
// tools/make_tokenizer_references.py and, where COREMATCHING_TOKENIZER_REFERENCES names a directory that it
// wrote with --offline, over those.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/text/tokenizer_json.hpp"
#include "support/paths.hpp"

namespace corematching::text {
namespace {

const std::filesystem::path stored = support::test_directory() / "text/data";

io::json json_of(const std::filesystem::path& path) {
  return io::parse_json(io::mapped_file::open(path).bytes(), path.string());
}

std::unique_ptr<pipeline_tokenizer> tokenizer_of(const std::filesystem::path& path) {
  const io::json document = json_of(path);
  return read_tokenizer_json({document, path.string()}, nullptr);
}

std::string joined(const std::vector<token_id>& ids) {
  std::ostringstream text;
  for (std::size_t i = 0; i < ids.size(); ++i) text << (i > 0 ? " " : "") << ids[i];
  return text.str();
}

special_tokens mode_of(bool as_text) {
  return as_text ? special_tokens::are_text : special_tokens::are_tokens;
}

class reference : public ::testing::TestWithParam<std::string> {};

TEST_P(reference, has_the_same_ids_and_texts) {
  const auto tokens = tokenizer_of(stored / (GetParam() + ".json"));
  const io::json cases = json_of(stored / "cases.json").at(GetParam());
  ASSERT_GT(cases.size(), 100U);
  for (const io::json& entry : cases) {
    const std::string text = entry[0];
    const std::vector<token_id> ids = tokens->encode(text, mode_of(entry[1]));
    EXPECT_EQ(joined(ids), entry[2]) << entry[0];
    EXPECT_EQ(tokens->decode(ids), entry.size() > 3 ? entry[3] : entry[0]) << entry[0];
  }
}

INSTANTIATE_TEST_SUITE_P(text, reference,
                         ::testing::Values("byte_gpt2", "byte_llama3", "byte_qwen2", "byte_tekken",
                                           "metaspace_always", "metaspace_first", "metaspace_never",
                                           "prepend_replace", "unigram_t5", "unigram_xlnet", "steps_bert",
                                           "steps_words", "steps_split", "steps_falcon"),
                         [](const auto& parameter) { return parameter.param; });

// Of a directory written with --offline: how many strings of `name` have other ids or another text.
void compare_offline(const std::filesystem::path& directory, const std::string& name) {
  const auto tokens = tokenizer_of(directory / (name + ".json"));
  const io::mapped_file texts = io::mapped_file::open(directory / (name + ".texts"));
  const io::mapped_file answers = io::mapped_file::open(directory / (name + ".answers"));
  std::string_view rest(reinterpret_cast<const char*>(texts.bytes().data()), texts.bytes().size());
  std::istringstream lines(
      std::string(reinterpret_cast<const char*>(answers.bytes().data()), answers.bytes().size()));
  std::size_t strings = 0, other_ids = 0, other_text = 0;
  for (std::string ids, decoded; !rest.empty() && std::getline(lines, ids) && std::getline(lines, decoded);
       ++strings) {
    std::uint32_t length = 0;
    std::memcpy(&length, rest.data() + 1, sizeof(length));
    const std::string_view text = rest.substr(5, length);
    const std::vector<token_id> made = tokens->encode(text, mode_of(rest[0] != 0));
    other_ids += joined(made) != ids ? 1 : 0;
    other_text += tokens->decode(made) != io::json::parse(decoded) ? 1 : 0;
    rest.remove_prefix(5 + length);
  }
  std::cout << name << ": " << strings << " strings, " << other_ids << " with other ids, " << other_text
            << " with another text\n";
  EXPECT_GT(strings, 0U);
  EXPECT_EQ(other_ids, 0U);
  EXPECT_EQ(other_text, 0U);
}

TEST(offline_reference, has_the_same_ids_and_texts) {
  const char* directory = std::getenv("COREMATCHING_TOKENIZER_REFERENCES");
  if (directory == nullptr) GTEST_SKIP() << "COREMATCHING_TOKENIZER_REFERENCES names no directory";
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (entry.path().extension() == ".texts") compare_offline(directory, entry.path().stem().string());
}

}  // namespace
}  // namespace corematching::text
