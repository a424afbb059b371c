// SPDX-License-Identifier: Apache-2.0
#include "llava/inspect_command.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "corematching/chat/template_file.hpp"
#include "corematching/cpu_linked.hpp"
#include "corematching/io/ggml_type.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/gguf/mmproj_config.hpp"
#include "corematching/model/gguf/mmproj_tensors.hpp"
#include "corematching/model/gguf/tensors.hpp"
#include "corematching/model/llava/llava.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/gguf_layout.hpp"
#include "corematching/model/packed/identity.hpp"
#include "corematching/text/checkpoint_tokenizer.hpp"
#include "corematching/text/sentencepiece_tokenizer.hpp"
#include "llava/file_option.hpp"
#include "llava/loaded_model.hpp"
#include "llava/option_groups.hpp"
#include "llava/options.hpp"

namespace corematching::driver {
namespace {

namespace fs = std::filesystem;

template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream text;
  text << std::setprecision(3);
  (text << ... << parts);
  return text.str();
}

std::string gigabytes(std::uint64_t bytes) {
  return text_of(static_cast<double>(bytes) / 1e9, " GB");
}

/// What is found out, and everything that is wrong: one fault does not hide another.
class inspection {
 public:
  inspection(fs::path checkpoint, fs::path mmproj)
      : checkpoint_(std::move(checkpoint)), mmproj_(std::move(mmproj)) {}

  bool run() {
    if (fs::is_directory(checkpoint_)) {
      read_directory();
    } else {
      attempt([&] { read_gguf(); });
    }
    for (const auto& [name, value] : rows_) print(name, value);
    print("runs", problems_.empty() ? "yes, by names, types and shapes: numbers are not looked at" : "no");
    for (const std::string& problem : problems_) std::cout << "  " << problem << '\n';
    std::cout.flush();
    return problems_.empty();
  }

 private:
  static void print(const std::string& name, const std::string& value) {
    std::cout << std::left << std::setw(18) << name << value << '\n';
  }
  void row(const std::string& name, const std::string& value) { rows_.emplace_back(name, value); }

  template <class Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const std::exception& problem) {
      problems_.emplace_back(problem.what());
    }
  }

  void read_directory() {
    std::optional<model_config> config;
    attempt([&] {
      config = read_model_config(checkpoint_, mmproj_);
      describe(*config);
    });
    attempt([&] { read_weights(config); });
    attempt([&] {
      const auto words = text::open_tokenizer(checkpoint_, text::sentencepiece_tokenizer::open);
      row("tokenizer", words ? text_of(words->name(), ", ", words->size(), " ids")
                             : "none: prompts are given as --prompt-ids");
    });
    attempt([&] {
      if (!config) return;  // whose model it would be for
      const bool sees = config->llava() != nullptr;
      const auto found = chat::find_template(checkpoint_, sees);
      const chat::chosen_format chosen = chat::choose_format(checkpoint_, sees);
      row("chat format",
          text_of(chosen.format->name, !found                  ? " (the checkpoint has no template)"
                                       : chosen.notice.empty() ? ", a template that is known"
                                                               : ", by the template's markers"));
    });
  }

  void describe(const model_config& config) {
    const llama_config& text = config.text();
    row("language model", text_of(text.layers, " layers of ", text.intermediate_size,
                                  " neurons, hidden size ", text.hidden_size, ", ", text.heads, " heads, ",
                                  text.kv_heads, " of keys and values, vocabulary ", text.vocab_size));
    row("context",
        text_of(text.context(), " tokens",
                text.sliding_window ? text_of(", of which each sees the last ", *text.sliding_window)
                                    : std::string()));
    const llava_config* llava = config.llava();
    row("pictures", llava == nullptr
                        ? "none: a text model"
                        : text_of(llava->image_tokens(), " tokens of ", llava->vision.image_size, " x ",
                                  llava->vision.image_size, " pixels, ", llava->vision_layers(), " of ",
                                  llava->vision.layers, " layers"));
  }

  // Reads names, types and shapes; no weights.
  void read_weights(const std::optional<model_config>& config) {
    const auto files = io::checkpoint::open(checkpoint_);
    std::map<std::string, std::size_t> types;
    for (const std::string_view name : files.names()) ++types[std::string(io::name_of(files.at(name).type))];
    std::string list;
    for (const auto& [type, count] : types) list += text_of(list.empty() ? "" : ", ", count, " in ", type);
    row("weights", text_of(files.size(), " tensors (", list, "), ", gigabytes(files.total_bytes())));
    if (!config) return;
    auto be = cpu::make_linked_backend(1);
    using backend = decltype(be);
    weight_reader<backend> reader(be, files, problems_);
    if (const llava_config* described = config->llava())
      static_cast<void>(llava<backend>(be, *described, reader));
    else
      static_cast<void>(llama<backend>(be, config->text(), reader));
    const word_embeddings named = stored_word_embeddings(config->text(), files);
    if (!named.notice.empty()) row("note", named.notice);
    llama_config stored = config->text();
    stored.tie_word_embeddings = named.tied();
    for (const dtype type : weight_types)
      describe_packed(
          type, [&] { return packed_layout(stored, type); }, [&] { return checkpoint_identity(files); });
  }

  /// layout() and identity() are those of the model.
  template <class Layout, class Identity>
  void describe_packed(std::optional<dtype> type, Layout&& layout, Identity&& identity) {
    std::error_code ignored;
    const fs::path path = default_packed_file(checkpoint_, type);
    if (!fs::exists(path, ignored)) return;
    try {
      const packed_file file(path, layout(), type, identity());
      row("packed file", text_of(path.filename().string(), ", ", gigabytes(file.layout().size())));
    } catch (const error& problem) {
      row("packed file", text_of("not used: ", problem.what()));
    }
  }

  void read_gguf() {
    const io::gguf_file file = io::gguf_file::open(checkpoint_);
    const io::gguf_metadata& metadata = file.metadata();
    row("GGUF", text_of("version ", metadata.version(), ", ", file.tensors().size(), " tensors"));
    if (metadata.has("general.architecture"))
      row("architecture", std::string(metadata.text("general.architecture")));
    attempt([&] { read_gguf_weights(file); });
    attempt([&] {
      const auto words = text::open_tokenizer(checkpoint_);
      row("tokenizer", words ? text_of(words->name(), ", ", words->size(), " ids")
                             : "none: prompts are given as --prompt-ids");
    });
    attempt([&] {
      const auto found = chat::template_in_gguf(checkpoint_);
      const chat::chosen_format chosen = chat::choose_format(checkpoint_, !mmproj_.empty());
      row("chat format", text_of(chosen.format->name, found ? "" : " (the file has no template)"));
    });
  }

  static std::string contents_of(const io::gguf_file& file) {
    std::map<std::string, std::size_t> types;
    for (const auto& [name, tensor] : file.tensors()) ++types[std::string(io::name_of(tensor.type))];
    std::string list;
    for (const auto& [type, count] : types) list += text_of(list.empty() ? "" : ", ", count, " in ", type);
    return text_of(list, ", ", gigabytes(file.total_bytes()));
  }

  /// What the file and the mmproj file beside it are together; where they do not fit, the decoder alone.
  model_config read_with_mmproj(const io::gguf_file& file) {
    model_config config{read_gguf_config(file), {}};
    if (mmproj_.empty()) return config;
    attempt([&] {
      const io::gguf_file with = io::gguf_file::open(mmproj_);
      row("mmproj", contents_of(with));
      const auto problems = mmproj_problems(with, read_mmproj_config(with));
      problems_.insert(problems_.end(), problems.begin(), problems.end());
      if (problems.empty()) config = join_mmproj(file, with);
    });
    return config;
  }

  void read_gguf_weights(const io::gguf_file& file) {
    row("weights", contents_of(file));
    const model_config whole = read_with_mmproj(file);
    describe(whole);
    const llama_config& config = whole.text();
    const auto problems = gguf_problems(file, config);
    problems_.insert(problems_.end(), problems.begin(), problems.end());
    if (!problems.empty()) return;
    row("computed with", text_of(gigabytes(gguf_layout(file, config, std::nullopt).size()),
                                 " of quants and scales, the same numbers"));
    describe_packed(
        std::nullopt, [&] { return gguf_layout(file, config, std::nullopt); },
        [&] { return gguf_identity(file); });
    const auto describe_packed_as = [&](dtype type) {
      describe_packed(
          type, [&] { return gguf_layout(file, config, type); }, [&] { return gguf_identity(file); });
    };
    std::ranges::for_each(weight_types, describe_packed_as);
    std::ranges::for_each(split_types, describe_packed_as);
  }

  fs::path checkpoint_;
  fs::path mmproj_;  // empty: none
  std::vector<std::pair<std::string, std::string>> rows_;
  std::vector<std::string> problems_;
};

}  // namespace

bool run_inspect(int argc, const char* const* argv) {
  fs::path checkpoint, mmproj;
  CLI::App app("Says what a checkpoint holds, whether it can be run, and if not, why.", "llava inspect");
  add_file(app, "PATH", checkpoint, "directory of the checkpoint, or a GGUF file")->required();
  add_mmproj(app, mmproj);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  std::error_code ignored;
  require(fs::exists(checkpoint, ignored), checkpoint.string(), ": there is no such file or directory");
  return inspection(checkpoint, mmproj).run();
}

}  // namespace corematching::driver
