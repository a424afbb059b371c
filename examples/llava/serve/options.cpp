// SPDX-License-Identifier: Apache-2.0
#include "llava/serve/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "corematching/core/error.hpp"
#include "llava/file_option.hpp"
#include "llava/option_groups.hpp"
#include "llava/serve/answering_options.hpp"
#include "llava/serve/http_head.hpp"

namespace corematching::driver {
namespace {

/// Refuses what no field of a request can hold, or not the way that it was meant.
void check_key_text(const std::string& key, const std::string& name) {
  require(!key.starts_with("\xef\xbb\xbf"), name, ": begins with a byte order mark");
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  require(std::ranges::none_of(key, is_control), name, ": has a control character");
  require(key.find_first_not_of(' ') == 0 && !key.ends_with(' '), name, ": begins or ends with a blank");
}

/// The first line of a file, without blanks at its end: a key in a command line is seen by whoever lists
/// processes.
std::string key_in(const std::filesystem::path& file) {
  const std::string where = "--api-key-file: " + file.string();
  std::ifstream in(file);
  require(in.is_open(), where, ": cannot open");
  std::string key;
  std::getline(in, key);
  key.erase(key.find_last_not_of(" \t\r") + 1);
  require(!key.empty(), where, ": has no key in its first line");
  check_key_text(key, where + ": the key in its first line");
  return key;
}

CLI::Option* add_seconds(CLI::App& app, const std::string& name, std::chrono::milliseconds& time,
                         const std::string& help) {
  return app
      .add_option_function<double>(
          name,
          [&time](double seconds) {
            time = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * seconds));
          },
          help)
      ->default_str(std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()))
      ->type_name("SECONDS")
      ->check([](const std::string& text) {  // CLI::Range lets pass what is no number at all
        return text.find_first_of("nN") == text.npos ? std::string() : "expected a number, not " + text;
      })
      ->check(CLI::Range(0.1, 1e6));
}

void add_server(CLI::App& app, serve_options& o, std::filesystem::path& key_file) {
  const std::string group = "Server";
  app.add_option("--host", o.host, "address or name to listen on; others than this machine reach 0.0.0.0")
      ->capture_default_str()
      ->group(group);
  app.add_option("--port", o.port, "port to listen on (0: any)")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535))
      ->group(group);
  auto* key = app.add_option("--api-key", o.access.api_key, "key that requests must have")
                  ->type_name("KEY")
                  ->group(group);
  add_file(app, "--api-key-file", key_file,
           "file whose first line is that key, which no list of processes shows then")
      ->type_name("FILE")
      ->excludes(key)
      ->group(group);
  app.add_option("--allow-host", o.access.hosts,
                 "name that the server goes by beside addresses and localhost; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group(group);
}

void add_limits(CLI::App& app, serve_options& o) {
  const std::string group = "Limits";
  add_bytes(app, "--max-body", o.limits.body_bytes, "longest body of a request")->group(group);
  add_bytes(app, "--max-bodies", o.limits.all_body_bytes, "of all requests that arrive at a time")
      ->group(group);
  app.add_option("--max-connections", o.limits.connections, "clients at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 900))
      ->group(group);
  add_seconds(app, "--receive-time", o.limits.receiving, "how long a request may take to arrive")
      ->group(group);
  add_seconds(app, "--idle-time", o.limits.idle, "how long a client may stay without a request")
      ->group(group);
  add_seconds(app, "--time-limit", o.limits.answering,
              "how long an answer may take, its time in the queue included")
      ->group(group);
}

}  // namespace

serve_options parse_serve_options(int argc, const char* const* argv) {
  serve_options o;
  std::filesystem::path key_file;
  o.engine.picture_pixels = 50'000'000;
  CLI::App app(
      "Answers chat completions of OpenAI's API over HTTP, many at a time, and shows a page to try it; "
      "docs/serve.md says which fields there are.",
      "llava serve");
  add_model(app, o.base);
  add_server(app, o, key_file);
  add_limits(app, o);
  add_answering(app, o.base, o.engine);
  parse_answering(app, argc, argv, o.base);
  if (!o.access.api_key.empty()) check_key_text(o.access.api_key, "--api-key");
  if (!key_file.empty()) o.access.api_key = key_in(key_file);
  o.limits.pictures = static_cast<std::size_t>(o.engine.pictures);
  o.access.hosts.push_back(o.host);
  for (std::string& host : o.access.hosts) host = lower_case(host);
  return o;
}

}  // namespace corematching::driver
