// SPDX-License-Identifier: Apache-2.0
// libjpeg reports an error through a callback that must not return: it jumps back by longjmp, which must not
// pass a destructor. Between setjmp and the calls into libjpeg stand functions with trivial locals only.
#include "llava/jpeg_codec.hpp"

// jpeglib.h needs std::size_t and FILE declared before it.
#include <cstdio>
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <csetjmp>
#include <cstring>
#include <string_view>

#include "llava/exif_orientation.hpp"
#include "llava/picture_limit.hpp"

namespace corematching::driver {
namespace {

/// 255 * (a / 255) * (b / 255), rounded.
constexpr int multiply_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/// One row of CMYK as Adobe stores it (255 is no ink) to RGB, with Pillow's arithmetic.
void cmyk_row_to_rgb(const std::uint8_t* cmyk, int width, std::uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3)
    for (int c = 0; c < 3; ++c)
      rgb[c] = static_cast<std::uint8_t>(cmyk[3] - multiply_255(255 - cmyk[c], cmyk[3]));
}

/// A progressive picture has some ten scans. Each may be a few bytes and goes over all pixels, so that a file
/// of many would take hours.
constexpr int most_scans = 100;

/// Segments of metadata, of up to 64 KB each. Behind each that it keeps libjpeg goes through all before it.
constexpr int most_segments = 4096;

class jpeg_decoder {
 public:
  explicit jpeg_decoder(std::span<const std::byte> bytes) : bytes_(bytes) {
    jpeg_.err = jpeg_std_error(&errors_);
    jpeg_.client_data = this;
    errors_.error_exit = on_error;
    errors_.emit_message = on_message;
    progress_.progress_monitor = on_progress;
  }
  jpeg_decoder(const jpeg_decoder&) = delete;
  jpeg_decoder& operator=(const jpeg_decoder&) = delete;
  ~jpeg_decoder() { jpeg_destroy_decompress(&jpeg_); }

  const char* message() const { return message_; }
  std::int64_t width() const { return jpeg_.image_width; }
  std::int64_t height() const { return jpeg_.image_height; }
  bool is_cmyk() const { return jpeg_.num_components == 4; }

  /// False on an error; then `message()` says which.
  bool read_header() {
    if (setjmp(jump_) != 0) return false;
    jpeg_create_decompress(&jpeg_);
    jpeg_.progress = &progress_;
    jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&jpeg_, TRUE);
    // libjpeg turns YCCK into CMYK, but not CMYK into RGB.
    jpeg_.out_color_space = is_cmyk() ? JCS_CMYK : JCS_RGB;
    return true;
  }

  /// From the header: EXIF data and XMP lie in segments of the same kind, told apart by how they start. What
  /// does not fit one segment of EXIF goes on in the next; an XMP packet fits one.
  int orientation() const {
    constexpr std::string_view xmp_start("http://ns.adobe.com/xap/1.0/\0", 29);
    std::string exif;
    std::string_view xmp;
    for (const auto* marker = jpeg_.marker_list; marker != nullptr; marker = marker->next) {
      std::string_view segment(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (segment.starts_with(exif_start)) exif += segment.substr(exif_start.size());
      if (segment.starts_with(xmp_start)) xmp = segment.substr(xmp_start.size());
    }
    return noted_orientation(std::as_bytes(std::span(exif)), xmp);
  }

  /// `cmyk_row` is scratch of 4 * width samples for a CMYK picture, else unused.
  bool read_rows(std::uint8_t* rgb, std::uint8_t* cmyk_row) {
    if (setjmp(jump_) != 0) return false;
    jpeg_start_decompress(&jpeg_);
    const int width = static_cast<int>(jpeg_.output_width);
    while (jpeg_.output_scanline < jpeg_.output_height) {
      std::uint8_t* out = rgb + std::size_t{jpeg_.output_scanline} * jpeg_.output_width * 3;
      JSAMPROW row = is_cmyk() ? cmyk_row : out;
      jpeg_read_scanlines(&jpeg_, &row, 1);
      if (is_cmyk()) cmyk_row_to_rgb(cmyk_row, width, out);
    }
    return true;
  }

 private:
  [[noreturn]] static void on_error(j_common_ptr jpeg) {
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    give_up(jpeg, text);
  }
  [[noreturn]] static void give_up(j_common_ptr jpeg, const char* why) {
    auto* self = static_cast<jpeg_decoder*>(jpeg->client_data);
    std::snprintf(self->message_, sizeof self->message_, "%s", why);
    std::longjmp(self->jump_, 1);
  }
  [[noreturn]] static void give_up_at(j_common_ptr jpeg, int most, const char* of_what) {
    char text[JMSG_LENGTH_MAX];
    std::snprintf(text, sizeof text, "it has more than %d %s", most, of_what);
    give_up(jpeg, text);
  }

  // After every few rows of a scan.
  static void on_progress(j_common_ptr jpeg) {
    const auto* self = static_cast<const jpeg_decoder*>(jpeg->client_data);
    if (self->jpeg_.input_scan_number > most_scans) give_up_at(jpeg, most_scans, "scans");
  }

  // libjpeg only warns where the data end early, and paints the rest grey. It tells of every segment, too.
  static void on_message(j_common_ptr jpeg, int level) {
    auto* self = static_cast<jpeg_decoder*>(jpeg->client_data);
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) on_error(jpeg);
    if (jpeg->err->msg_code == JTRC_MISC_MARKER && ++self->segments_ > most_segments)
      give_up_at(jpeg, most_segments, "segments of metadata");
  }

  jpeg_decompress_struct jpeg_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  int segments_ = 0;
  std::jmp_buf jump_;
  char message_[JMSG_LENGTH_MAX] = "";
  std::span<const std::byte> bytes_;
};

}  // namespace

bool is_jpeg(std::span<const std::byte> bytes) {
  constexpr std::uint8_t start[] = {0xff, 0xd8, 0xff};
  return bytes.size() >= sizeof start && std::memcmp(bytes.data(), start, sizeof start) == 0;
}

picture decode_jpeg(std::span<const std::byte> bytes, const std::string& name, std::int64_t max_pixels) {
  jpeg_decoder decoder(bytes);
  require(decoder.read_header(), name, ": not a readable JPEG picture: ", decoder.message());
  const std::int64_t width = decoder.width(), height = decoder.height();
  require_few_pixels(width, height, max_pixels, name);
  picture image = make_picture(static_cast<int>(width), static_cast<int>(height));
  std::vector<std::uint8_t> cmyk_row(decoder.is_cmyk() ? static_cast<std::size_t>(width) * 4 : 0);
  require(decoder.read_rows(image.rgb.data(), cmyk_row.data()), name,
          ": not a readable JPEG picture: ", decoder.message());
  return upright(std::move(image), decoder.orientation());
}

}  // namespace corematching::driver
