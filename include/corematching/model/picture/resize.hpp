// SPDX-License-Identifier: Apache-2.0
// Bicubic resizing with antialiasing that reproduces Pillow's `Image.resize(size, BICUBIC)` bit by bit
// (semantics of Pillow's Resample.c for 8-bit pictures): the models were trained on what Pillow makes, and a
// resampler that only resembles it moves pixel values by several steps.
//
//   out[i]   = sum_j w[i][j] in[first_i + j]
//   w[i][j]  = cubic((first_i + j + 1/2 - centre_i) / stretch), divided by its sum over j
//   centre_i = (i + 1/2) in_size / out_size,  stretch = max(1, in_size / out_size)
//
// One pass along the rows and one along the columns; weights in fixed point; samples rounded to 8 bit after
// each. At scale 1 the weights are 0, 1, 0: the pass changes nothing, and Pillow, which skips it, agrees.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/model/picture/picture.hpp"

namespace corematching {

/// A part of a picture, in pixels.
struct picture_window {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
};

namespace detail {

/// Fraction bits of a weight: 32, less 8 for the sample, less 2 for sign and overshoot.
inline constexpr int resize_precision = 22;
/// Where the cubic ends, in input pixels at scale 1.
inline constexpr double cubic_support = 2.0;

/// Keys' cubic convolution kernel with a = -1/2.
inline double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < cubic_support) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

/// What one output sample sums: `count` input samples from `first` on, times weights[0 .. count).
struct resize_tap {
  int first;
  int count;
  const std::int32_t* weights;
};

/// The taps of output samples [begin, begin + count) when `in_size` samples become `out_size`.
class resize_taps {
 public:
  resize_taps(int in_size, int out_size, int begin, int count) {
    const double scale = static_cast<double>(in_size) / out_size;
    const double stretch = std::max(scale, 1.0);
    const double reach = cubic_support * stretch;
    const auto longest =
        static_cast<std::size_t>(std::min(std::ceil(reach) * 2 + 1, static_cast<double>(in_size)));
    weights_.resize(longest * static_cast<std::size_t>(count));
    std::vector<double> exact(longest);
    for (int i = 0; i < count; ++i) {
      const double centre = (begin + i + 0.5) * scale;
      // Truncation, not floor: below zero both end at zero.
      const int first = std::max(static_cast<int>(centre - reach + 0.5), 0);
      const int last = std::min(static_cast<int>(centre + reach + 0.5), in_size);
      double sum = 0;
      for (int j = first; j < last; ++j) {
        const double weight = cubic((j - centre + 0.5) * (1.0 / stretch));
        exact[static_cast<std::size_t>(j - first)] = weight;
        sum += weight;
      }
      std::int32_t* weights = weights_.data() + longest * static_cast<std::size_t>(i);
      for (int j = 0; j < last - first; ++j)
        weights[j] = fixed_point(exact[static_cast<std::size_t>(j)], sum);
      taps_.push_back({first, last - first, weights});
    }
  }
  resize_taps(const resize_taps&) = delete;
  resize_taps& operator=(const resize_taps&) = delete;

  const resize_tap& operator[](int i) const { return taps_[static_cast<std::size_t>(i)]; }
  auto begin() const { return taps_.begin(); }
  auto end() const { return taps_.end(); }
  int input_begin() const { return taps_.front().first; }
  int input_end() const { return taps_.back().first + taps_.back().count; }

 private:
  /// weight / sum, rounded half away from zero.
  static std::int32_t fixed_point(double weight, double sum) {
    const double scaled = (sum != 0.0 ? weight / sum : weight) * (1 << resize_precision);
    return static_cast<std::int32_t>(scaled + (scaled < 0 ? -0.5 : 0.5));
  }

  std::vector<std::int32_t> weights_;
  std::vector<resize_tap> taps_;
};

inline constexpr std::int32_t resize_half = 1 << (resize_precision - 1);

inline std::uint8_t to_sample(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> resize_precision, 0, 255));
}

/// One row, interleaved RGB: out [taps, 3] from in [width, 3].
inline void resize_row(const std::uint8_t* in, const resize_taps& taps, std::uint8_t* out) {
  for (const resize_tap& tap : taps) {
    std::int32_t red = resize_half, green = resize_half, blue = resize_half;
    const std::uint8_t* sample = in + static_cast<std::ptrdiff_t>(tap.first) * 3;
    for (int j = 0; j < tap.count; ++j, sample += 3) {
      red += sample[0] * tap.weights[j];
      green += sample[1] * tap.weights[j];
      blue += sample[2] * tap.weights[j];
    }
    out[0] = to_sample(red);
    out[1] = to_sample(green);
    out[2] = to_sample(blue);
    out += 3;
  }
}

/// One output row of `length` samples; `row(y)` is input row y, `sums` is scratch of `length`.
template <class Row>
void resize_column(const Row& row, const resize_tap& tap, std::vector<std::int32_t>& sums,
                   std::uint8_t* out) {
  std::fill(sums.begin(), sums.end(), resize_half);
  for (int j = 0; j < tap.count; ++j) {
    const std::uint8_t* samples = row(tap.first + j);
    const std::int32_t weight = tap.weights[j];
    for (std::size_t x = 0; x < sums.size(); ++x) sums[x] += samples[x] * weight;
  }
  for (std::size_t x = 0; x < sums.size(); ++x) out[x] = to_sample(sums[x]);
}

/// Pillow 13 starts with the columns where the height shrinks by more than twice what the width shrinks by;
/// earlier versions always start with the rows. Results differ by the rounding between the passes, and for
/// pictures that keep their aspect only where they are more than twice as high as wide.
inline bool columns_first(int in_width, int in_height, int width, int height) {
  const std::int64_t shrunk_by = std::int64_t{in_height} - height;
  return shrunk_by > 0 && shrunk_by > 2 * (std::int64_t{in_width} - width);
}

/// The `window` of `source` resized to width x height. A source hands out its rows one by one, so that a
/// padded picture need not exist: `row(y)` is valid until the next call.
template <class Source>
picture resize_window(Source&& source, int width, int height, const picture_window& window) {
  const resize_taps rows(source.height(), height, window.top, window.height);
  const resize_taps columns(source.width(), width, window.left, window.width);
  picture result = make_picture(window.width, window.height);
  if (columns_first(source.width(), source.height(), width, height)) {
    std::vector<std::int32_t> sums(static_cast<std::size_t>(source.width()) * 3);
    std::vector<std::uint8_t> line(sums.size());
    for (int y = 0; y < window.height; ++y) {
      resize_column([&](int in) { return source.row(in); }, rows[y], sums, line.data());
      resize_row(line.data(), columns, result.at(0, y));
    }
    return result;
  }
  picture narrowed = make_picture(window.width, rows.input_end() - rows.input_begin());
  for (int y = 0; y < narrowed.height; ++y)
    resize_row(source.row(rows.input_begin() + y), columns, narrowed.at(0, y));
  std::vector<std::int32_t> sums(static_cast<std::size_t>(window.width) * 3);
  for (int y = 0; y < window.height; ++y)
    resize_column([&](int in) { return narrowed.at(0, in - rows.input_begin()); }, rows[y], sums,
                  result.at(0, y));
  return result;
}

/// A picture as the source of `resize_window`.
struct whole_picture {
  const picture& image;

  int width() const { return image.width; }
  int height() const { return image.height; }
  const std::uint8_t* row(int y) const { return image.at(0, y); }
};

}  // namespace detail

/// `image` resized to width x height pixels, as Pillow does it. Throws on an empty or inconsistent picture.
inline picture resize_bicubic(const picture& image, int width, int height) {
  require_valid(image);
  require(width > 0 && height > 0, "cannot resize a picture to ", width, " x ", height, " pixels");
  return detail::resize_window(detail::whole_picture{image}, width, height, {0, 0, width, height});
}

}  // namespace corematching
