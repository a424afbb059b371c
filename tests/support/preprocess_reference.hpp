// SPDX-License-Identifier: Apache-2.0
// What Pillow and transformers make of the pictures in reference/data/preprocess (see
// reference/preprocess_reference.py).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors.hpp"
#include "corematching/model/picture/image_processor.hpp"
#include "support/paths.hpp"

namespace corematching::test {

class preprocess_reference {
 public:
  preprocess_reference()
      : document_(
            io::parse_json(io::mapped_file::open(directory() / "reference.json").bytes(), "reference.json")),
        tensors_(io::checkpoint::open(directory() / "expected.safetensors")) {}

  static std::filesystem::path directory() { return support::test_directory() / "reference/data/preprocess"; }

  /// Lists of "pictures", "resized" and "pixel_values".
  const io::json& operator[](const char* list) const { return document_.at(list); }
  const io::tensor& tensor(const std::string& name) const { return tensors_.at(name); }

  /// How the reference decoded the named picture, or an empty picture where that is not stored.
  picture decoded(const std::string& name, const std::string& how) const {
    const std::string tensor_name = "decoded." + name + "." + how;
    return tensors_.contains(tensor_name) ? to_picture(tensors_.at(tensor_name)) : picture{};
  }

  static picture to_picture(const io::tensor& samples) {
    picture image =
        make_picture(static_cast<int>(samples.shape.at(1)), static_cast<int>(samples.shape.at(0)));
    std::memcpy(image.rgb.data(), samples.bytes.data(), image.rgb.size());
    return image;
  }

 private:
  io::json document_;
  io::checkpoint tensors_;
};

inline image_processor processor_of(const io::json& expectation) {
  image_processor_options options;
  options.resize_shortest_edge = expectation.at("shortest_edge");
  options.crop_height = options.crop_width = expectation.at("crop");
  options.fit = expectation.at("fit") == "pad" ? image_fit::pad : image_fit::crop;
  return image_processor(options);
}

/// The largest difference of two pictures of one size, in steps of 8 bit; 256 where the sizes differ.
inline int largest_difference(const picture& a, const picture& b) {
  if (a.width != b.width || a.height != b.height) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) largest = std::max(largest, std::abs(a.rgb[i] - b.rgb[i]));
  return largest;
}

inline picture cut_out(const picture& image, const picture_window& window) {
  picture result = make_picture(window.width, window.height);
  for (int y = 0; y < window.height; ++y)
    std::copy_n(image.at(window.left, window.top + y), static_cast<std::size_t>(window.width) * 3,
                result.at(0, y));
  return result;
}

/// Compares the 8-bit result of one entry of "resized", which is whole or a few windows of it.
inline void expect_resized(const preprocess_reference& reference, const io::json& expectation,
                           const picture& image) {
  SCOPED_TRACE(expectation.dump());
  const picture result = processor_of(expectation).resize_and_crop(image);
  const io::tensor& expected = reference.tensor(expectation.at("tensor"));
  if (expectation.at("windows").is_null()) {
    EXPECT_EQ(largest_difference(result, preprocess_reference::to_picture(expected)), 0);
    return;
  }
  const std::byte* samples = expected.bytes.data();
  for (const io::json& w : expectation.at("windows")) {
    const picture part = cut_out(result, {w.at("left"), w.at("top"), w.at("width"), w.at("height")});
    EXPECT_EQ(std::memcmp(part.rgb.data(), samples, part.rgb.size()), 0) << w.dump();
    samples += part.rgb.size();
  }
}

}  // namespace corematching::test
