// SPDX-License-Identifier: Apache-2.0
// LLaMA's tokenizer.model by SentencePiece, as Hugging Face wraps it (`legacy` behaviour): text is cut at
// added tokens, and each piece between them is encoded on its own, with SentencePiece's dummy space in front.
// So "USER: <image>\n" ends in a lone space before the image and begins with one after it.
//
// The only header of this component that needs SentencePiece; whoever includes it links it.
#pragma once

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/stand_in.hpp"
#include "corematching/text/added_tokens.hpp"
#include "corematching/text/decoder.hpp"
#include "corematching/text/json_part.hpp"
#include "corematching/text/tokenizer.hpp"
#include "corematching/text/tokenizer_json.hpp"
#include "corematching/text/vocabulary.hpp"

namespace corematching::text {

class sentencepiece_tokenizer : public tokenizer {
 public:
  /// Reads tokenizer.model and, where they exist, the added tokens of tokenizer.json, added_tokens.json and
  /// tokenizer_config.json. Throws `error` naming the file.
  static std::unique_ptr<tokenizer> open(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "tokenizer.model";
    const io::mapped_file file = io::mapped_file::open(path);
    std::unique_ptr<sentencepiece_tokenizer> result(new sentencepiece_tokenizer(path.string()));
    result->load(file.bytes(), path.string());
    result->read_added_tokens(directory);
    result->added_.finish(normalizer());
    return result;
  }

  std::unique_ptr<detokenizer> detokenize() const override { return std::make_unique<stream>(*this); }

  token_id find(std::string_view content) const override { return added_.find(content); }
  std::string content_of(token_id id) const override {
    const added_token* token = added_.token(id);
    return token == nullptr ? std::string() : token->content;
  }
  token_id size() const override {
    const token_id pieces = model_.GetPieceSize();
    return added_.all().empty() ? pieces : std::max(pieces, added_.all().rbegin()->first + 1);
  }

 protected:
  std::vector<token_id> encode_whole(const std::string& text, const token_filter& filter) const override {
    std::vector<token_id> ids;
    added_.cut(text, filter, [&](std::string_view part, token_id id) {
      if (id != no_token) return ids.push_back(id);
      std::vector<int> part_ids;
      const auto status = model_.Encode({part.data(), part.size()}, &part_ids);
      require(status.ok(), "SentencePiece cannot encode the text: ", status.ToString());
      ids.insert(ids.end(), part_ids.begin(), part_ids.end());
    });
    return ids;
  }

 private:
  class stream : public detokenizer {
   public:
    explicit stream(const sentencepiece_tokenizer& source) : source_(&source), decoding_(source.decoder_) {}

    std::string push(token_id id) override {
      if (const added_token* token = source_->added_.token(id))
        return token->special ? std::string() : decoding_.push(token->content);
      if (id < 0 || id >= source_->model_.GetPieceSize()) refuse_id(id, source_->size());
      return decoding_.push(source_->model_.IdToPiece(id));
    }
    std::string finish() override { return decoding_.finish(); }
    std::string bytes_of(token_id id) const override {
      if (const added_token* token = source_->added_.token(id))
        return token->special ? std::string() : decoding_.bytes_of(token->content);
      if (id < 0 || id >= source_->model_.GetPieceSize()) return {};
      return decoding_.bytes_of(source_->model_.IdToPiece(id));
    }

   private:
    const sentencepiece_tokenizer* source_;
    decoding decoding_;
  };

  explicit sentencepiece_tokenizer(const std::string& path) : tokenizer(path + " (SentencePiece)") {
    decoder_ = {decode::replace{pattern::of_text("\xe2\x96\x81", path), " "}, decode::byte_fallback{},
                decode::strip{" ", 1, 0, true}};
  }

  void load(std::span<const std::byte> bytes, const std::string& path) {
    io::refuse_stand_in(bytes, path);
    const auto status =
        model_.LoadFromSerializedProto({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    // An empty file is a valid message without pieces.
    require(status.ok() && model_.GetPieceSize() > 0, path, ": not a SentencePiece model");
    for (int id = 0; id < model_.GetPieceSize(); ++id)
      if (model_.IsControl(id) || model_.IsUnknown(id))
        add({.content = model_.IdToPiece(id), .id = id, .special = true}, path);
    token_frame frame{.bos = model_.bos_id(), .eos = model_.eos_id()};
    if (frame.bos >= 0) frame.prefix = {frame.bos};
    set_frame(std::move(frame));
  }

  // A later file repeats what an earlier one says, with more detail.
  void read_added_tokens(const std::filesystem::path& directory) {
    if (const auto document = io::read_optional_json(directory / "added_tokens.json")) {
      const std::string file = (directory / "added_tokens.json").string();
      const io::json_object tokens(*document, file);
      for (const auto& item : document->items())
        add({.content = item.key(),
             .id = static_cast<token_id>(tokens.integer(item.key(), 0, largest_token_id)),
             .special = true},
            file);
    }
    if (const auto document = io::read_optional_json(directory / "tokenizer.json")) {
      const std::string file = (directory / "tokenizer.json").string();
      const detail::json_part part(*document, file, "");
      if (part.has("added_tokens"))
        part.for_each("added_tokens", [&](const detail::json_part& entry) {
          added_token token = detail::read_added_token(entry);
          token.id = static_cast<token_id>(entry.fields().integer("id", 0, largest_token_id));
          add(token, file);
        });
    }
    if (const auto document = io::read_optional_json(directory / "tokenizer_config.json"))
      configure(detail::json_part(*document, (directory / "tokenizer_config.json").string(), ""));
  }

  void configure(const detail::json_part& config) {
    token_frame changed = frame();
    if (!config.flag("add_bos_token", true)) changed.prefix.clear();
    if (config.flag("add_eos_token", false) && changed.eos >= 0) changed.suffix = {changed.eos};
    set_frame(std::move(changed));
    for (const auto& [id, token] : detail::read_configured_tokens(config)) add(token, config.file());
  }

  void add(added_token token, const std::string& where) {
    token.normalized = false;
    added_.add(token, where);
  }

  sentencepiece::SentencePieceProcessor model_;
  added_tokens added_;
  std::vector<decode::step> decoder_;
};

}  // namespace corematching::text
