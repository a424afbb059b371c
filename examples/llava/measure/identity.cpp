// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/identity.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>

#include "corematching/core/dtype.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/model/packed/checksums.hpp"
#include "corematching/model/packed/file.hpp"
#include "corematching/model/packed/identity.hpp"

namespace corematching::driver {
namespace {

std::string sum_of(const std::vector<std::uint64_t>& sums) {
  const std::uint64_t whole = data_checksum(std::as_bytes(std::span(sums)));
  return checksum_text({&whole, 1});
}

std::uint64_t file_checksum(const std::filesystem::path& path) {
  return data_checksum(io::mapped_file::open(path).bytes());
}

std::string content_checksum(const std::vector<scored_item>& items) {
  std::vector<std::uint64_t> sums;
  for (const scored_item& item : items) {
    for (const auto* ids : {&item.prompt.ids, &item.scored})
      sums.push_back(data_checksum(std::as_bytes(std::span(*ids))));
    if (item.picture) sums.push_back(file_checksum(item.picture->path));
  }
  return sum_of(sums);
}

// Of the files beside the weights that say how a model computes; in a GGUF file they are its identity's.
std::string settings_checksum(const std::filesystem::path& model) {
  std::vector<std::uint64_t> sums;
  std::error_code ignored;
  for (const char* name : {"config.json", "preprocessor_config.json", "processor_config.json"})
    sums.push_back(std::filesystem::is_regular_file(model / name, ignored) ? file_checksum(model / name) : 0);
  return sum_of(sums);
}

std::string fit_name(const std::optional<image_fit>& fit) {
  if (!fit) return "as the model's files say";
  return *fit == image_fit::pad ? "pad" : "crop";
}

}  // namespace

io::json identity_of_runs(const options& base, const std::vector<scored_item>& items,
                          const linked::description& by) {
  const auto type = base.weights.packed.empty() ? base.weights.type : packed_weights(base.weights.packed);
  io::json identity{{"model", model_identity(base.model)},
                    {"settings", settings_checksum(base.model)},
                    {"weights", type ? name_of(*type) : "as stored"},
                    {"kv_cache", base.cache_type ? name_of(*base.cache_type) : "as fits the weights"},
                    {"image_fit", fit_name(base.fit)},
                    {"items", items.size()},
                    {"content", content_checksum(items)},
                    {"device", by.device},
                    {"instruction_set", by.instruction_set},
                    {"threads", by.threads}};
  if (!base.mmproj.empty()) identity["mmproj"] = model_identity(base.mmproj);
  return identity;
}

}  // namespace corematching::driver
