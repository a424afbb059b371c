// SPDX-License-Identifier: Apache-2.0
// Pictures in files: PNG, JPEG, GIF and WebP are read, PNG is written. What is read equals Pillow's
// `ImageOps.exif_transpose(Image.open(path)).convert("RGB")`, which is how the original LLaVA and
// transformers before 5 load a picture: turned upright (exif_orientation.hpp), of several pictures the first,
// an alpha channel dropped and the colour under it kept (transformers 5 puts it on white), no colour
// management. One exception: of 16-bit grey samples the high byte is taken, as Pillow does for 16-bit colour,
// where its conversion of 16-bit grey clips and shows a white picture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

/// Pillow's own limit against decompression bombs: twice a quarter of a gigabyte of RGB.
inline constexpr std::int64_t max_picture_pixels = 178'956'970;

/// Bytes of a file that are held as a picture: as many as the largest has samples.
inline constexpr std::size_t max_picture_bytes = 3 * std::size_t{max_picture_pixels};

/// Decodes the bytes of a file. Throws `error`, starting with `name`, for any other kind of file, for a
/// truncated or damaged one and for one of more than `max_pixels` pixels.
picture decode_picture(std::span<const std::byte> bytes, const std::string& name,
                       std::int64_t max_pixels = max_picture_pixels);

/// Reads and decodes a file; "-" is standard input. Throws as `decode_picture`, and where nothing can be
/// read.
picture read_picture(const std::filesystem::path& path);

/// The picture as the bytes of a PNG file, 8-bit RGB.
std::vector<std::byte> encode_png(const picture& image);

/// Writes a PNG file under a temporary name in the same directory and renames it when it is complete, so that
/// `path` is never half a picture. Throws `error` naming the path and the system's reason.
void write_png(const picture& image, const std::filesystem::path& path);

}  // namespace corematching::driver
