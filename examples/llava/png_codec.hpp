// SPDX-License-Identifier: Apache-2.0
// PNG in memory, through libpng. Used by picture_file.cpp, which adds files and the choice of format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

bool is_png(std::span<const std::byte> bytes);
picture decode_png(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels);
std::vector<std::byte> encode_png(const picture& image);

}  // namespace corematching::driver
