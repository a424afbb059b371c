// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/answering_options.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "llava/converted_option.hpp"
#include "llava/option_groups.hpp"
#include "llava/option_values.hpp"
#include "llava/presets.hpp"

namespace corematching::driver {
namespace {

void add_engine(CLI::App& app, engine_limits& limits) {
  const std::string group = "Limits";
  app.add_option("--max-pixels", limits.picture_pixels, "largest picture")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, max_picture_pixels))
      ->group(group);
  app.add_option("--max-pictures", limits.pictures, "pictures of a request")
      ->capture_default_str()
      ->check(CLI::Range(index{0}, index{1} << 20))
      ->group(group);
  app.add_option("--max-queue", limits.waiting, "questions that wait")
      ->capture_default_str()
      ->check(CLI::Range(index{1}, index{1} << 20))
      ->group(group);
  app.add_option("--max-batch", limits.running,
                 "questions that are answered together; up to 12 get the bits that they get alone")
      ->capture_default_str()
      ->check(CLI::Range(index{1}, index{1} << 10))
      ->group(group);
  add_bytes(app, "--cache-limit", limits.cache_bytes,
            "keys and values of all questions that are answered together")
      ->group(group);
  add_bytes(app, "--picture-cache", limits.picture_bytes, "features that are kept of pictures seen before")
      ->group(group);
  add_bytes(app, "--prefix-cache", limits.prefix_bytes,
            "keys and values that are kept of the texts prompts begin with")
      ->group(group);
}

void add_request_defaults(CLI::App& app, options& o) {
  const std::string group = "Of requests that do not say it";
  app.add_option("--max-new-tokens", o.max_new_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(index{1}, index{1} << 30))
      ->group(group);
  add_sampling(app, o, group);
}

}  // namespace

CLI::Option* add_bytes(CLI::App& app, const std::string& name, std::uint64_t& bytes,
                       const std::string& help) {
  return add_converted(
             app, name,
             [&bytes, stem = name.substr(2)](const std::string& text) {
               bytes = byte_count(text, stem.c_str());
             },
             "N[K|M|G]", help)
      ->default_str(std::to_string(bytes >> 20) + "M");
}

void add_answering(CLI::App& app, options& base, engine_limits& limits) {
  base.max_new_tokens = 1024;
  base.messages = "messages";  // what requests are called where they are refused
  add_engine(app, limits);
  add_request_defaults(app, base);
  add_model_format(app, base);
  add_weights(app, base);
  add_sparsity(app, base);
  add_thinning(app, base);
  add_computing(app, base);
}

void parse_answering(CLI::App& app, int argc, const char* const* argv, options& base) {
  try {
    app.parse(argc, argv);
    refuse_empty_values(app);
    base.sampling.validate();
    const auto given = [&](const std::string& option) {
      const CLI::Option* known = app.get_option_no_throw(option);
      return known != nullptr && known->count() > 0;
    };
    // Requests say the temperature.
    settle_sparsity(base, [&](const std::string& option) {
      return option != "--top-k" && option != "--top-p" && given(option);
    });
  } catch (const CLI::ParseError& problem) {
    throw usage_exit{app.exit(problem)};
  }
}

}  // namespace corematching::driver
