// SPDX-License-Identifier: Apache-2.0
// What a token of a prompt stands for.
#pragma once

#include <cstdint>

namespace corematching {

enum class token_kind : std::uint8_t { text, image };

}  // namespace corematching
