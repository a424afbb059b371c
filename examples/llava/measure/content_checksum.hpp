// SPDX-License-Identifier: Apache-2.0
// What tells the content of one measurement from that of others.
#pragma once

#include <string>
#include <vector>

#include "llava/measure/items.hpp"

namespace corematching::driver {

/// Of all ids and pictures, so that whatever went into them counts: text, tokenizer, chat format, cutting.
std::string content_checksum(const std::vector<scored_item>& items);

}  // namespace corematching::driver
