// SPDX-License-Identifier: Apache-2.0
#include "llava/batch/options.hpp"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <system_error>

#include "corematching/core/error.hpp"
#include "llava/file_option.hpp"
#include "llava/option_checks.hpp"
#include "llava/option_groups.hpp"
#include "llava/serve/answering_options.hpp"

namespace corematching::driver {

batch_options parse_batch_options(int argc, const char* const* argv) {
  batch_options o;
  CLI::App app(
      "Answers a file of requests, several at a time; each line is one as llava serve takes it, with an "
      "\"id\". "
      "A second start answers those that have no line in the output yet.",
      "llava batch");
  add_model(app, o.base);
  add_file(app, "--input", o.input,
           "requests, one JSON object a line; names of pictures' files begin where it lies")
      ->required()
      ->type_name("FILE.jsonl");
  add_file(app, "--output", o.output,
           "answers, one JSON object a line, in the order in which they are complete")
      ->required()
      ->type_name("FILE.jsonl");
  add_answering(app, o.base, o.engine);
  parse_answering(app, argc, argv, o.base);
  check_output(o.base, o.output, "--output");
  std::error_code ignored;
  require(!std::filesystem::equivalent(o.input, o.output, ignored), "--output: ", o.output.string(),
          ": is the file that --input reads");
  return o;
}

}  // namespace corematching::driver
