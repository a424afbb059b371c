// SPDX-License-Identifier: Apache-2.0
// English through tokenizers, in bytes a second: the documents of this repository, once and several times
// over, by the small tokenizers of the tests and by the one that COREMATCHING_BENCH_TOKENIZER names, a
// checkpoint's directory or a GGUF file.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "corematching/io/mapped_file.hpp"
#include "corematching/text/checkpoint_tokenizer.hpp"

namespace {

using namespace corematching;

const std::filesystem::path source = COREMATCHING_SOURCE_DIR;

/// LICENSE, README.md and docs/, `times` over: all words are new once.
std::string english(int times) {
  std::vector<std::filesystem::path> files = {source / "LICENSE", source / "README.md",
                                              source / "CONTRIBUTING.md"};
  for (const auto& entry : std::filesystem::directory_iterator(source / "docs"))
    if (entry.path().extension() == ".md") files.push_back(entry.path());
  std::ranges::sort(files);
  std::string once, text;
  for (const auto& path : files) {
    const io::mapped_file file = io::mapped_file::open(path);
    once.append(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }
  while (times-- > 0) text += once;
  return text;
}

std::unique_ptr<text::tokenizer> small_tokenizer(const std::string& name) {
  const std::filesystem::path path = source / "tests/text/data" / (name + ".json");
  const io::json document = io::parse_json(io::mapped_file::open(path).bytes(), path.string());
  return text::read_tokenizer_json({document, path.string()}, nullptr);
}

void encode(benchmark::State& state, const text::tokenizer& tokens) {
  const std::string text = english(static_cast<int>(state.range(0)));
  std::size_t count = 0;
  for (auto _ : state) count = tokens.encode(text, text::special_tokens::are_text).size();
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
  state.counters["text"] = static_cast<double>(text.size());
  state.counters["tokens"] = static_cast<double>(count);
}

void add(const std::string& name, std::unique_ptr<text::tokenizer> tokens) {
  const std::shared_ptr<text::tokenizer> shared = std::move(tokens);
  benchmark::RegisterBenchmark(name.c_str(), [shared](benchmark::State& state) { encode(state, *shared); })
      ->Arg(1)
      ->Arg(16)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  for (const char* name : {"byte_gpt2", "byte_llama3", "byte_qwen2", "byte_tekken", "metaspace_always",
                           "metaspace_first", "unigram_t5"})
    add(name, small_tokenizer(name));
  if (const char* path = std::getenv("COREMATCHING_BENCH_TOKENIZER"))
    add("named", text::open_tokenizer(path));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
