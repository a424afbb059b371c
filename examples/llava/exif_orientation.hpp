// SPDX-License-Identifier: Apache-2.0
// Which way up a picture is shown. Cameras store rows as the sensor has them and note beside them how the
// camera was held: a number from 1 to 8 in EXIF (CIPA DC-008, 4.6.4: Orientation). Pictures are turned as
// Pillow's `ImageOps.exif_transpose` turns them:
// - The tag counts in the first directory of EXIF only; of several values the first counts. Without the tag,
//   XMP is searched for tiff:Orientation, as text.
// - What is no orientation leaves the picture as it is. So do damaged EXIF data, always: Pillow either
// ignores
//   them too or, where not even their header can be read, refuses the picture.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "corematching/model/picture/picture.hpp"

namespace corematching::driver {

/// What EXIF data begin with, though not in every kind of file.
inline constexpr std::string_view exif_start("Exif\0\0", 6);

/// The orientation, 1 to 8, that a picture file notes in its EXIF data (with or without their start) and its
/// XMP packet; 1, upright, where they say nothing. Empty is absent.
int noted_orientation(std::span<const std::byte> exif, std::string_view xmp);

/// `image`, stored in `orientation`, as it is to be seen.
picture upright(picture image, int orientation);

}  // namespace corematching::driver
