// SPDX-License-Identifier: Apache-2.0
#include "llava/pack_command.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "corematching/cpu_linked.hpp"
#include "corematching/io/gguf_file.hpp"
#include "corematching/model/config.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/pack.hpp"
#include "llava/file_option.hpp"
#include "llava/loaded_model.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/option_values.hpp"
#include "llava/options.hpp"

namespace corematching::driver {
namespace {

struct pack_options {
  std::filesystem::path model;
  std::filesystem::path mmproj;  // what goes beside a GGUF file: checked, and no part of what is packed
  std::string weights;           // empty: as a GGUF file stores them
  std::filesystem::path output;  // empty: the file that a run looks for
  std::filesystem::path verify;  // a file to check; nothing is packed then
  int threads = 0;
};

pack_options parse(int argc, const char* const* argv) {
  pack_options o;
  CLI::App app("Converts the weights of a language model once, so that loading them is a memory map.",
               "llava pack");
  auto* model =
      add_file(app, "--model", o.model, "directory of the checkpoint, or a GGUF file")->type_name("DIR");
  auto* mmproj = add_mmproj(app, o.mmproj);
  auto* type = app.add_option("--weights", o.weights,
                              "type of the weights (of a GGUF file by default as they are stored)")
                   ->type_name(weights_types());
  add_file(app, "--output", o.output,
           "file to write (default: DIR/corematching-T.packed, FILE.gguf.packed or FILE.gguf-T.packed)")
      ->type_name("FILE");
  app.add_option("--threads", o.threads, "threads to work on (0: as many as may run at once)")
      ->check(CLI::Range(0, 1024));
  add_file(app, "--verify", o.verify, "read this packed file and say whether it is whole; pack nothing")
      ->type_name("FILE")
      ->excludes(model)
      ->excludes(mmproj)
      ->excludes(type)
      ->excludes("--output");
  try {
    app.parse(argc, argv);
    refuse_standard_output(o.output, "--output");
    std::error_code ignored;
    const bool has_types = std::filesystem::is_regular_file(o.model, ignored);
    if (o.verify.empty() && model->empty()) throw CLI::RequiredError(model->get_name());
    if (o.verify.empty() && type->empty() && !has_types) throw CLI::RequiredError(type->get_name());
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
  return o;
}

/// Packing anew replaces a packed file; anything else that has this name may be part of a model.
void require_replaceable(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return;  // writing says what is wrong with the others
  try {
    static_cast<void>(packed_weights(path));
  } catch (const error&) {
    fail(path.string(), ": exists and is no packed file, so it is not overwritten");
  }
}

}  // namespace

void run_pack(int argc, const char* const* argv, console& terminal) {
  const pack_options o = parse(argc, argv);
  if (!o.verify.empty()) {
    verify_packed(o.verify, [&](std::uint64_t done, std::uint64_t total) {
      terminal.progress("verifying", static_cast<double>(done), static_cast<double>(total));
    });
    return terminal.notice(o.verify.string() + " is whole");
  }
  const auto weights = o.weights.empty() ? std::nullopt : std::optional<dtype>(weights_type(o.weights));
  const auto path = o.output.empty() ? default_packed_file(o.model, weights) : o.output;
  require_replaceable(path);
  const model_config config = read_model_config(o.model, o.mmproj);
  auto be = cpu::make_linked_backend(o.threads);
  const auto progress_of = [&](std::uint64_t total) {
    return [&terminal, total](std::uint64_t done) {
      terminal.progress("packing", static_cast<double>(done), static_cast<double>(total));
    };
  };
  std::error_code ignored;
  if (std::filesystem::is_regular_file(o.model, ignored)) {
    const auto file = io::gguf_file::open(o.model);
    pack(be, config.text(), file, weights, path, be.describe().threads, progress_of(file.total_bytes()));
  } else {
    check_weights_of_directory(o.model, weights);
    const auto files = io::checkpoint::open(o.model);
    pack(be, config.text(), files, weights.value(), path, progress_of(files.total_bytes()));
  }
  terminal.notice(std::string("wrote ").append(path.string()));
}

}  // namespace corematching::driver
