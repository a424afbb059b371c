// SPDX-License-Identifier: Apache-2.0
#include "llava/gif_codec.hpp"

#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include "corematching/core/error.hpp"
#include "llava/picture_limit.hpp"

namespace corematching::driver {
namespace {

using colour = std::array<std::uint8_t, 3>;

class gif_decoder {
 public:
  gif_decoder(std::span<const std::byte> bytes, const std::string& name) : rest_(bytes), name_(name) {
    int problem = 0;
    gif_ = DGifOpen(this, read, &problem);
    if (gif_ == nullptr) refuse(problem);
  }
  gif_decoder(const gif_decoder&) = delete;
  gif_decoder& operator=(const gif_decoder&) = delete;
  ~gif_decoder() { DGifCloseFile(gif_, nullptr); }

  /// Reads up to the samples of the first picture.
  void find_first_picture() {
    for (;;) {
      GifRecordType record = UNDEFINED_RECORD_TYPE;
      check(DGifGetRecordType(gif_, &record));
      if (record == IMAGE_DESC_RECORD_TYPE) break;
      require(record == EXTENSION_RECORD_TYPE, name_, ": a GIF file without a picture");
      read_extension();
    }
    check(DGifGetImageDesc(gif_));
    const GifImageDesc& frame = gif_->Image;
    require(frame.Width > 0 && frame.Height > 0, name_, ": not a readable GIF picture: it has no pixels");
  }

  // A picture may reach beyond the canvas that the file promised.
  int width() const { return std::max(gif_->SWidth, gif_->Image.Left + gif_->Image.Width); }
  int height() const { return std::max(gif_->SHeight, gif_->Image.Top + gif_->Image.Height); }

  void read_rows(picture& canvas) {
    const std::array<colour, 256> colours = palette();
    for (int y = 0; y < canvas.height; ++y)
      for (int x = 0; x < canvas.width; ++x)
        std::ranges::copy(colours[static_cast<std::size_t>(transparent_)], canvas.at(x, y));
    const GifImageDesc& frame = gif_->Image;
    std::vector<GifPixelType> row(static_cast<std::size_t>(frame.Width));
    for (const int y : row_order()) {
      check(DGifGetLine(gif_, row.data(), frame.Width));
      std::uint8_t* out = canvas.at(frame.Left, frame.Top + y);
      for (const GifPixelType index : row) out = std::ranges::copy(colours[index], out).out;
    }
  }

 private:
  static int read(GifFileType* gif, GifByteType* out, int size) {
    auto* self = static_cast<gif_decoder*>(gif->UserData);
    const std::size_t count = std::min(static_cast<std::size_t>(size), self->rest_.size());
    std::memcpy(out, self->rest_.data(), count);
    self->rest_ = self->rest_.subspan(count);
    return static_cast<int>(count);
  }

  [[noreturn]] void refuse(int problem) const {
    const char* text = GifErrorString(problem);
    fail(name_, ": not a readable GIF picture: ", text != nullptr ? text : "unknown error");
  }
  void check(int result) const {
    if (result != GIF_OK) refuse(gif_->Error);
  }

  // Of all extensions only the graphic control reaches the pixels, by its transparent index.
  void read_extension() {
    int code = 0;
    GifByteType* block = nullptr;  // its length, then its bytes
    check(DGifGetExtension(gif_, &code, &block));
    if (code == GRAPHICS_EXT_FUNC_CODE && block != nullptr && block[0] >= 4 && (block[1] & 1) != 0)
      transparent_ = block[4];
    while (block != nullptr) check(DGifGetExtensionNext(gif_, &block));
  }

  // Indices beyond the palette are black. Without a palette they are levels of grey, also of one that has no
  // more than the first of these.
  std::array<colour, 256> palette() const {
    std::array<colour, 256> greys, colours{};
    for (std::size_t i = 0; i < greys.size(); ++i) greys[i].fill(static_cast<std::uint8_t>(i));
    const ColorMapObject* map = gif_->Image.ColorMap != nullptr ? gif_->Image.ColorMap : gif_->SColorMap;
    const auto count = static_cast<std::size_t>(map != nullptr ? std::min(map->ColorCount, 256) : 0);
    for (std::size_t i = 0; i < count; ++i)
      colours[i] = {map->Colors[i].Red, map->Colors[i].Green, map->Colors[i].Blue};
    return std::equal(greys.begin(), greys.begin() + static_cast<std::ptrdiff_t>(count), colours.begin())
               ? greys
               : colours;
  }

  // In which order the file has the rows.
  std::vector<int> row_order() const {
    struct pass {
      int first, step;
    };
    const std::vector<pass> passes =
        gif_->Image.Interlace ? std::vector<pass>{{0, 8}, {4, 8}, {2, 4}, {1, 2}} : std::vector<pass>{{0, 1}};
    std::vector<int> rows;
    for (const auto [first, step] : passes)
      for (int y = first; y < gif_->Image.Height; y += step) rows.push_back(y);
    return rows;
  }

  std::span<const std::byte> rest_;
  const std::string& name_;
  GifFileType* gif_ = nullptr;
  int transparent_ = 0;  // what lies around the picture
};

}  // namespace

bool is_gif(std::span<const std::byte> bytes) {
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                               std::min<std::size_t>(bytes.size(), 6));
  return start == "GIF87a" || start == "GIF89a";
}

picture decode_gif(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  gif_decoder decoder(bytes, name);
  decoder.find_first_picture();
  require_few_pixels(decoder.width(), decoder.height(), max_pixels, name);
  picture image = make_picture(decoder.width(), decoder.height());
  decoder.read_rows(image);
  return image;
}

}  // namespace corematching::driver
