// SPDX-License-Identifier: Apache-2.0
#include "llava/measure/content_checksum.hpp"

#include <cstdint>
#include <span>

#include "corematching/io/mapped_file.hpp"
#include "corematching/model/packed/checksums.hpp"

namespace corematching::driver {

std::string content_checksum(const std::vector<scored_item>& items) {
  std::vector<std::uint64_t> sums;
  for (const scored_item& item : items) {
    for (const auto* ids : {&item.prompt.ids, &item.scored})
      sums.push_back(data_checksum(std::as_bytes(std::span(*ids))));
    if (item.picture) sums.push_back(data_checksum(io::mapped_file::open(item.picture->path).bytes()));
  }
  const std::uint64_t whole = data_checksum(std::as_bytes(std::span(sums)));
  return checksum_text({&whole, 1});
}

}  // namespace corematching::driver
