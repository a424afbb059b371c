// SPDX-License-Identifier: Apache-2.0
// libpng reports an error by longjmp, which must not pass a destructor: between setjmp and the calls into
// libpng stand functions with trivial locals only, and what must be freed is owned by an object outside of
// them.
#include "llava/png_codec.hpp"

#include <png.h>

#include <algorithm>
#include <charconv>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>

#include "llava/exif_orientation.hpp"
#include "llava/picture_limit.hpp"

namespace corematching::driver {
namespace {

struct png_message {
  char text[200] = "";
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
  auto* message = static_cast<png_message*>(png_get_error_ptr(png));
  std::snprintf(message->text, sizeof message->text, "%s", text);
  png_longjmp(png, 1);
}

// Warnings are about ancillary chunks, which do not reach the pixels.
void on_warning(png_structp, png_const_charp) {}

/// The bytes of a "Raw profile type ..." text, as ImageMagick writes it: three lines, the last of them their
/// number, then the bytes in hexadecimal, in lines. Empty where anything else stands there.
std::vector<std::byte> from_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const auto end = text.find('\n');
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string digits;
  std::ranges::copy_if(text, std::back_inserter(digits), [](char c) { return c != '\n'; });
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 2 <= digits.size(); i += 2) {
    std::uint8_t value = 0;
    const char* end = digits.data() + i + 2;
    if (std::from_chars(digits.data() + i, end, value, 16).ptr != end) return {};
    bytes.push_back(std::byte{value});
  }
  return bytes;
}

constexpr std::size_t signature_bytes = 8, bytes_around_chunk = 12;  // its length and type; its checksum

/// The signature and the chunks behind it, up to the first that ends behind `bytes`: libpng takes the memory
/// that a chunk claims, up to 2 GB, before it sees that it is not there.
std::span<const std::byte> whole_chunks(std::span<const std::byte> bytes) {
  std::size_t end = signature_bytes;
  while (bytes.size() - end >= bytes_around_chunk) {
    const png_uint_32 length = png_get_uint_32(reinterpret_cast<png_const_bytep>(bytes.data() + end));
    if (length > bytes.size() - end - bytes_around_chunk) break;
    end += bytes_around_chunk + length;
  }
  return bytes.first(end);
}

class png_decoder {
 public:
  explicit png_decoder(std::span<const std::byte> bytes) : rest_(whole_chunks(bytes)) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      fail("libpng cannot be started");
    }
    png_set_read_fn(png_, this, read);
  }
  png_decoder(const png_decoder&) = delete;
  png_decoder& operator=(const png_decoder&) = delete;
  ~png_decoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

  const char* message() const { return message_.text; }
  std::int64_t width() const { return png_get_image_width(png_, info_); }
  std::int64_t height() const { return png_get_image_height(png_, info_); }

  /// False on an error; then `message()` says which. Asks libpng for 8-bit RGB. libpng refuses sides of more
  /// than a million pixels before it allocates a row.
  bool read_header() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    // Texts may be compressed, so that each may take the 8 MB that libpng allows one.
    png_set_chunk_cache_max(png_, 64);
    png_read_info(png_, info_);
    png_set_expand(png_);  // palette to colours, fewer than 8 bits of grey to 8, tRNS to alpha
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_gray_to_rgb(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != std::size_t{3} * png_get_image_width(png_, info_))
      png_error(png_, "unexpected row size");
    return true;
  }

  bool read_rows(std::uint8_t* rgb) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    const std::size_t row_bytes = png_get_rowbytes(png_, info_);
    const png_uint_32 rows = png_get_image_height(png_, info_);
    for (int pass = 0; pass < passes_; ++pass)
      for (png_uint_32 y = 0; y < rows; ++y) png_read_row(png_, rgb + y * row_bytes, nullptr);
    return true;
  }

  /// What stands behind the pixels. Where it is damaged, the picture is as good without it.
  void read_rest() {
    if (setjmp(png_jmpbuf(png_)) != 0) return;
    png_read_end(png_, info_);
  }

  /// Of all that was read.
  int orientation() const {
    png_uint_32 exif_size = 0;
    png_bytep exif = nullptr;
    std::string_view raw_exif, xmp;
    png_textp texts = nullptr;
    int count = 0;
    png_get_text(png_, info_, &texts, &count);
    for (int i = 0; i < count; ++i) {
      if (texts[i].key == std::string_view("Raw profile type exif")) raw_exif = texts[i].text;
      if (texts[i].key == std::string_view("XML:com.adobe.xmp")) xmp = texts[i].text;
    }
    if (png_get_eXIf_1(png_, info_, &exif_size, &exif) != 0)
      return noted_orientation(std::as_bytes(std::span(exif, exif_size)), xmp);
    return noted_orientation(from_raw_profile(raw_exif), xmp);
  }

 private:
  static void read(png_structp png, png_bytep out, std::size_t size) {
    auto* self = static_cast<png_decoder*>(png_get_io_ptr(png));
    if (size > self->rest_.size()) png_error(png, "the file is truncated");
    std::memcpy(out, self->rest_.data(), size);
    self->rest_ = self->rest_.subspan(size);
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  png_message message_;
  std::span<const std::byte> rest_;
  int passes_ = 1;
};

class png_encoder {
 public:
  png_encoder() {
    png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, &message_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_write_struct(&png_, nullptr);
      fail("libpng cannot be started");
    }
    png_set_write_fn(png_, this, write, nullptr);
  }
  png_encoder(const png_encoder&) = delete;
  png_encoder& operator=(const png_encoder&) = delete;
  ~png_encoder() { png_destroy_write_struct(&png_, &info_); }

  const char* message() const { return message_.text; }
  std::vector<std::byte> take() { return std::move(bytes_); }

  bool encode(const picture& image) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_IHDR(png_, info_, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
                 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png_, info_);
    for (int y = 0; y < image.height; ++y) png_write_row(png_, image.at(0, y));
    png_write_end(png_, info_);
    return true;
  }

 private:
  // An exception must not pass through libpng, so running out of memory becomes an error of libpng's.
  static void write(png_structp png, png_bytep data, std::size_t size) {
    auto* self = static_cast<png_encoder*>(png_get_io_ptr(png));
    if (!self->append(reinterpret_cast<const std::byte*>(data), size)) png_error(png, "out of memory");
  }
  bool append(const std::byte* data, std::size_t size) {
    try {
      bytes_.insert(bytes_.end(), data, data + size);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  png_message message_;
  std::vector<std::byte> bytes_;
};

}  // namespace

bool is_png(std::span<const std::byte> bytes) {
  constexpr std::uint8_t signature[signature_bytes] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  return bytes.size() >= sizeof signature && std::memcmp(bytes.data(), signature, sizeof signature) == 0;
}

picture decode_png(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  png_decoder decoder(bytes);
  require(decoder.read_header(), name, ": not a readable PNG picture: ", decoder.message());
  const std::int64_t width = decoder.width(), height = decoder.height();
  require_few_pixels(width, height, max_pixels, name);
  picture image = make_picture(static_cast<int>(width), static_cast<int>(height));
  require(decoder.read_rows(image.rgb.data()), name, ": not a readable PNG picture: ", decoder.message());
  decoder.read_rest();
  return upright(std::move(image), decoder.orientation());
}

std::vector<std::byte> encode_png(const picture& image) {
  require_valid(image);
  png_encoder encoder;
  require(encoder.encode(image), "cannot encode a PNG picture: ", encoder.message());
  return encoder.take();
}

}  // namespace corematching::driver
