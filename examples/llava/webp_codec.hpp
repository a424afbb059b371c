// SPDX-License-Identifier: Apache-2.0
// WebP in memory, through libwebp: of an animation the first frame, on a black canvas, as Pillow has it. Used
// by picture_file.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

bool is_webp(std::span<const std::byte> bytes);
picture decode_webp(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels);

}  // namespace corematching::driver
