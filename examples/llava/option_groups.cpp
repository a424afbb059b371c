// SPDX-License-Identifier: Apache-2.0
#include "llava/option_groups.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <string>

#include "corematching/chat/formats.hpp"
#include "corematching/core/error.hpp"
#include "llava/converted_option.hpp"
#include "llava/file_option.hpp"
#include "llava/option_values.hpp"

namespace corematching::driver {

void add_model(CLI::App& app, options& o) {
  add_file(app, "--model", o.model,
           "directory of the checkpoint, as Hugging Face lays it out, or a GGUF file")
      ->required()
      ->type_name("DIR");
  add_mmproj(app, o.mmproj);
}

CLI::Option* add_mmproj(CLI::App& app, std::filesystem::path& file) {
  return add_file(app, "--mmproj", file,
                  "GGUF file of the vision tower and the projector, beside a GGUF file of a LLaVA-1.5's "
                  "language model")
      ->type_name("FILE");
}

void add_prompt_format(CLI::App& app, options& o) {
  app.add_option("--system", o.system, "text in front of the prompt")->type_name("TEXT");
  add_model_format(app, o);
}

void add_model_format(CLI::App& app, options& o) {
  app.add_option("--chat-template", o.chat_template,
                 "the model's chat format: " + chat::format_names() + " (default: what its files say)")
      ->type_name("NAME");
  add_converted(
      app, "--image-fit",
      [&o](const std::string& text) {
        if (text != "crop" && text != "pad") fail("--image-fit: \"", text, "\" is none of crop, pad");
        o.fit = text == "pad" ? image_fit::pad : image_fit::crop;
      },
      "crop|pad",
      "cut the picture to a square, or pad it to one first (default: what the model's files say)");
}

void add_weights(CLI::App& app, options& o) {
  const std::string group = "Weights";
  add_converted(
      app, "--weights", [&o](const std::string& text) { o.weights.type = weights_type(text); },
      weights_types(),
      "type of the language model's matrices: from a packed file, or converted while loading (default: as "
      "stored)")
      ->group(group);
  add_file(app, "--packed", o.weights.packed,
           "packed file to take them from (default: the model's own, if any)")
      ->type_name("FILE")
      ->group(group);
  add_converted(
      app, "--memory-limit",
      [&o](const std::string& text) { o.weights.memory_limit = byte_count(text, "memory-limit"); },
      "N[K|M|G]", "hold at most so many bytes of the language model's weights, of a packed file")
      ->group(group);
}

void add_computing(CLI::App& app, options& o) {
  const std::string group = "Computing";
  add_choice<std::optional<dtype>>(
      app, "--kv-cache", o.cache_type, {{"f32", dtype::f32}, {"f16", dtype::f16}, {"bf16", dtype::bf16}},
      "how keys and values are stored (otherwise f16 beside weights in blocks, f32 beside others)")
      ->group(group);
  add_converted(
      app, "--device", [&o](const std::string& text) { o.device = chosen_device(text); },
      "cpu|eigen|cuda|cuda:N",
      "what computes: the CPU, by its own kernels or by Eigen alone (slow, to compare with), or a CUDA "
      "device "
      "by its number (default: cpu)")
      ->group(group);
  app.add_option("--threads", o.threads, "threads of the CPU to work on (0: as many as may run at once)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
      ->group(group);
}

void add_sampling(CLI::App& app, options& o, const std::string& group) {
  app.add_option("--temperature", o.sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-k", o.sampling.top_k, "draw from the K likeliest tokens (0: all)")
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-p", o.sampling.top_p, "draw from the likeliest tokens that make up this share")
      ->capture_default_str()
      ->group(group);
}

void refuse_empty_values(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    if (name == "--prompt" || name == "--raw-prompt" || name == "--system") continue;
    if (std::ranges::count(option->results(), "") > 0) throw CLI::ValidationError(name, "its value is empty");
  }
}

}  // namespace corematching::driver
