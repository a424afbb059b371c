// SPDX-License-Identifier: Apache-2.0
// GIF in memory, through giflib: the first picture of the file, on the canvas that the file describes; what
// follows is not looked at. Around the picture, and where it is transparent, lies the colour that its
// transparent index stands for, or without one the colour of index 0, as Pillow has it. Pillow differs where
// a picture's own palette says no more than that index i is the grey i: it then takes the file's palette
// instead, and so other colours than the picture has. Used by picture_file.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

bool is_gif(std::span<const std::byte> bytes);
picture decode_gif(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels);

}  // namespace corematching::driver
