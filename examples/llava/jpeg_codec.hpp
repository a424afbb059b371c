// SPDX-License-Identifier: Apache-2.0
// JPEG in memory, through libjpeg(-turbo). Used by picture_file.cpp, which adds files and the choice of
// format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

bool is_jpeg(std::span<const std::byte> bytes);
picture decode_jpeg(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels);

}  // namespace corematching::driver
