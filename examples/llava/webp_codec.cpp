// SPDX-License-Identifier: Apache-2.0
#include "llava/webp_codec.hpp"

#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>
#include <string_view>

#include "corematching/core/error.hpp"
#include "llava/exif_orientation.hpp"
#include "llava/picture_limit.hpp"

namespace corematching::driver {
namespace {

/// The parts of a file, which must outlive this.
class webp_parts {
 public:
  webp_parts(std::span<const std::byte> bytes, const std::string& name) : name_(name) {
    const WebPData data{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
    parts_.reset(WebPDemux(&data));
    require(parts_ != nullptr, name_, ": not a readable WebP picture: it is damaged or truncated");
  }

  std::int64_t width() const { return WebPDemuxGetI(parts_.get(), WEBP_FF_CANVAS_WIDTH); }
  std::int64_t height() const { return WebPDemuxGetI(parts_.get(), WEBP_FF_CANVAS_HEIGHT); }

  /// The bytes of the first chunk of that name; empty where there is none.
  std::span<const std::byte> chunk(const char* name) const {
    WebPChunkIterator found{};
    if (WebPDemuxGetChunk(parts_.get(), name, 1, &found) == 0) return {};
    const std::span bytes = std::as_bytes(std::span(found.chunk.bytes, found.chunk.size));
    WebPDemuxReleaseChunkIterator(&found);  // not the bytes, which are the file's
    return bytes;
  }

  /// Alpha is dropped, the colour under it kept.
  void read_first_frame(picture& canvas) const {
    WebPIterator frame{};
    require(WebPDemuxGetFrame(parts_.get(), 1, &frame) != 0, name_, ": a WebP file without a picture");
    const WebPData coded = frame.fragment;
    const int left = frame.x_offset, top = frame.y_offset, width = frame.width, height = frame.height;
    WebPDemuxReleaseIterator(&frame);
    require(left >= 0 && top >= 0 && width <= canvas.width - left && height <= canvas.height - top, name_,
            ": not a readable WebP picture: its first frame lies outside of it");
    const int stride = 3 * canvas.width;
    const auto room = static_cast<std::size_t>(height - 1) * static_cast<std::size_t>(stride) +
                      static_cast<std::size_t>(width) * 3;
    require(WebPDecodeRGBInto(coded.bytes, coded.size, canvas.at(left, top), room, stride) != nullptr, name_,
            ": not a readable WebP picture: its pixels are damaged or truncated");
  }

 private:
  struct release {
    void operator()(WebPDemuxer* parts) const { WebPDemuxDelete(parts); }
  };
  std::unique_ptr<WebPDemuxer, release> parts_;
  const std::string& name_;
};

}  // namespace

bool is_webp(std::span<const std::byte> bytes) {
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                               std::min<std::size_t>(bytes.size(), 12));
  return start.starts_with("RIFF") && start.ends_with("WEBP") && start.size() == 12;
}

picture decode_webp(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  const webp_parts parts(bytes, name);
  const std::int64_t width = parts.width(), height = parts.height();
  require(width > 0 && height > 0, name, ": not a readable WebP picture: it has no pixels");
  require_few_pixels(width, height, max_pixels, name);
  picture image = make_picture(static_cast<int>(width), static_cast<int>(height));
  parts.read_first_frame(image);
  const std::span xmp = parts.chunk("XMP ");
  return upright(
      std::move(image),
      noted_orientation(parts.chunk("EXIF"), {reinterpret_cast<const char*>(xmp.data()), xmp.size()}));
}

}  // namespace corematching::driver
