// SPDX-License-Identifier: Apache-2.0
// Options that several commands have, added to a command line one group at a time.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "llava/options.hpp"

namespace corematching::driver {

/// --model, --mmproj
void add_model(CLI::App& app, options& o);

/// --mmproj
CLI::Option* add_mmproj(CLI::App& app, std::filesystem::path& file);

/// --chat-template, --image-fit
void add_model_format(CLI::App& app, options& o);

/// The same and --system
void add_prompt_format(CLI::App& app, options& o);

/// --weights, --packed, --memory-limit
void add_weights(CLI::App& app, options& o);

/// What is left out in the decoder: --sparsity and whatever it brings.
void add_sparsity(CLI::App& app, options& o);

/// What is left out before it: --thin, --thin-keep
void add_thinning(CLI::App& app, options& o);

/// --kv-cache, --device, --threads
void add_computing(CLI::App& app, options& o);

/// --temperature, --top-k, --top-p, in `group`
void add_sampling(CLI::App& app, options& o, const std::string& group);

/// CLI11 takes an empty text for the number 0. Throws CLI::ValidationError for options with such a value.
void refuse_empty_values(const CLI::App& app);

}  // namespace corematching::driver
