// SPDX-License-Identifier: Apache-2.0
#include "llava/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/stand_in.hpp"

namespace corematching::driver {
namespace {

constexpr std::string_view replacement_character = "\xef\xbf\xbd";  // U+FFFD
constexpr std::string_view space_symbol = "\xe2\x96\x81";           // U+2581, SentencePiece's space
constexpr std::string_view white_space = " \t\n\r\v\f";
constexpr std::int64_t largest_id = (1 << 24) - 1;  // far beyond any vocabulary

std::optional<io::json> read_json(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return io::parse_json(io::mapped_file::open(path).bytes(), path.string());
}

/// The fields that tokenizer.json's list and tokenizer_config.json's dictionary share.
added_token token_of(const io::json_object& entry, std::int64_t id) {
  return {.id = static_cast<std::int32_t>(id),
          .special = entry.boolean_or("special", false),
          .strips_left = entry.boolean_or("lstrip", false),
          .strips_right = entry.boolean_or("rstrip", false)};
}

/// A key of added_tokens_decoder.
std::int64_t id_from_key(const std::string& key, const std::string& file) {
  std::int64_t id = -1;
  const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
  require(parsed.ec == std::errc() && parsed.ptr == key.data() + key.size() && id >= 0 && id <= largest_id,
          file, ": added_tokens_decoder has the key ", io::in_quotes(key), ", which is no token id");
  return id;
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const std::size_t symbol = piece.find(space_symbol);
    text += piece.substr(0, symbol);
    if (symbol == piece.npos) break;
    text += ' ';
    piece.remove_prefix(symbol + space_symbol.size());
  }
  return text;
}

/// How many bytes the character has that begins `bytes`; 0 where they can begin none, also none that is still
/// incomplete (RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF).
std::size_t character_length(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const std::size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  for (std::size_t i = 1; i < std::min(length, bytes.size()); ++i)
    if ((at(i) & 0xc0) != 0x80) return 0;
  if (bytes.size() < 2) return length;
  const unsigned char second = at(1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool beyond = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
  return overlong || beyond ? 0 : length;
}

/// Takes every character that `bytes` completes from its front.
std::string take_characters(std::string& bytes) {
  std::string text;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::size_t length = character_length(rest);
    if (length > rest.size()) break;
    text += length == 0 ? replacement_character : rest.substr(0, length);
    rest.remove_prefix(std::max<std::size_t>(length, 1));
  }
  bytes = std::string(rest);
  return text;
}

std::string replaced(const std::string& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) text += replacement_character;
  return text;
}

}  // namespace

tokenizer::tokenizer() : model_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {}
tokenizer::tokenizer(tokenizer&&) noexcept = default;
tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;
tokenizer::~tokenizer() = default;

tokenizer tokenizer::open(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.model";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored) &&
      std::filesystem::exists(directory / "tokenizer.json", ignored))
    fail(path.string(), ": no such file; a tokenizer.json alone is not read");
  const io::mapped_file file = io::mapped_file::open(path);
  tokenizer result;
  const auto bytes = file.bytes();
  io::refuse_stand_in(bytes, path.string());
  const auto status =
      result.model_->LoadFromSerializedProto({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  // An empty file is a valid message without pieces.
  require(status.ok() && result.model_->GetPieceSize() > 0, path.string(), ": not a SentencePiece model");
  for (int id = 0; id < result.model_->GetPieceSize(); ++id)
    if (result.model_->IsControl(id) || result.model_->IsUnknown(id))
      result.add(result.model_->IdToPiece(id), {.id = id}, path.string());
  result.size_ = result.model_->GetPieceSize();
  if (result.model_->bos_id() >= 0) result.prefix_ = {result.model_->bos_id()};
  result.read_added_tokens(directory);
  return result;
}

void tokenizer::read_added_tokens(const std::filesystem::path& directory) {
  const auto path = [&](const char* name) { return directory / name; };
  if (const auto document = read_json(path("added_tokens.json"))) {
    const std::string file = path("added_tokens.json").string();
    const io::json_object tokens(*document, file);
    for (const auto& item : document->items())
      add(item.key(), {.id = static_cast<std::int32_t>(tokens.integer(item.key(), 0, largest_id))}, file);
  }
  if (const auto document = read_json(path("tokenizer.json"));
      document && document->contains("added_tokens")) {
    const std::string file = path("tokenizer.json").string();
    const io::json& list = (*document)["added_tokens"];
    require(list.is_array(), file, ": added_tokens is not a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const io::json_object entry(list[i], file, "added_tokens[" + std::to_string(i) + "]");
      add(entry.string("content"), token_of(entry, entry.integer("id", 0, largest_id)), file);
    }
  }
  if (const auto document = read_json(path("tokenizer_config.json"))) {
    const std::string file = path("tokenizer_config.json").string();
    const io::json_object config(*document, file);
    if (!config.boolean_or("add_bos_token", true)) prefix_.clear();
    if (!config.has("added_tokens_decoder")) return;
    const io::json_object entries = config.object("added_tokens_decoder");
    for (const auto& item : (*document)["added_tokens_decoder"].items()) {
      const io::json_object entry = entries.object(item.key());
      add(entry.string("content"), token_of(entry, id_from_key(item.key(), file)), file);
    }
  }
}

// A later file repeats what an earlier one says, with more detail.
void tokenizer::add(const std::string& content, const added_token& token, const std::string& where) {
  require(!content.empty(), where, ": the added token ", token.id, " is empty");
  const auto known = added_content_.emplace(token.id, content).first;
  require(known->second == content, where, ": token ", token.id, " is ", io::in_quotes(content),
          ", but also ", io::in_quotes(known->second));
  const auto [place, is_new] = added_.try_emplace(content, token);
  require(is_new || place->second.id == token.id, where, ": the added token ", io::in_quotes(content),
          " has id ", token.id, ", but also ", place->second.id);
  place->second = token;
  size_ = std::max(size_, token.id + 1);
}

std::int32_t tokenizer::eos() const {
  return model_->eos_id();
}

std::int32_t tokenizer::find(std::string_view content) const {
  const auto found = added_.find(content);
  return found == added_.end() ? -1 : found->second.id;
}

std::vector<std::int32_t> tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  const auto append = [&](std::string_view segment) {
    std::vector<int> segment_ids;
    const auto status = model_->Encode({segment.data(), segment.size()}, &segment_ids);
    require(status.ok(), "SentencePiece cannot encode the text: ", status.ToString());
    ids.insert(ids.end(), segment_ids.begin(), segment_ids.end());
  };
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    // The longest added token that begins here.
    const std::pair<const std::string, added_token>* match = nullptr;
    for (const auto& candidate : added_)
      if (text.substr(i).starts_with(candidate.first) &&
          (match == nullptr || candidate.first.size() > match->first.size()))
        match = &candidate;
    if (match == nullptr) {
      ++i;
      continue;
    }
    std::string_view before = text.substr(begin, i - begin);
    if (match->second.strips_left) before = before.substr(0, before.find_last_not_of(white_space) + 1);
    append(before);
    ids.push_back(match->second.id);
    i += match->first.size();
    if (match->second.strips_right) i = std::min(text.find_first_not_of(white_space, i), text.size());
    begin = i;
  }
  append(text.substr(begin));
  return ids;
}

tokenizer::fragment tokenizer::fragment_of(std::int32_t id) const {
  if (const auto content = added_content_.find(id); content != added_content_.end()) {
    const bool special = added_.find(content->second)->second.special;
    return {special ? "" : content->second, false};
  }
  require(id >= 0 && id < model_->GetPieceSize(), "token id ", id, " is outside of the vocabulary of ", size_,
          " tokens");
  const std::string& piece = model_->IdToPiece(id);
  // A byte's piece is <0xAB>.
  if (model_->IsByte(id))
    return {std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16))), true};
  return {with_spaces(piece), false};
}

std::string tokenizer::decode(std::span<const std::int32_t> ids) const {
  detokenizer stream(*this);
  std::string text;
  for (const std::int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

std::string detokenizer::push(std::int32_t id) {
  const tokenizer::fragment fragment = source_->fragment_of(id);
  if (fragment.is_byte) {
    bytes_ += fragment.text;
    return without_dummy_space(take_characters(bytes_));
  }
  if (fragment.text.empty()) return "";  // a special token, which does not separate the bytes around it
  const std::string unfinished = replaced(std::exchange(bytes_, ""));
  return without_dummy_space(unfinished + fragment.text);
}

std::string detokenizer::finish() {
  return without_dummy_space(replaced(std::exchange(bytes_, "")));
}

std::string detokenizer::without_dummy_space(std::string text) {
  if (text.empty()) return text;
  if (!std::exchange(started_, true) && text.front() == ' ') text.erase(0, 1);
  return text;
}

}  // namespace corematching::driver
