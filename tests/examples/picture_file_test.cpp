// SPDX-License-Identifier: Apache-2.0
#include "llava/picture_file.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/preprocess_reference.hpp"

namespace corematching::driver {
namespace {

using test::largest_difference;
using test::preprocess_reference;

/// A directory that is gone after the test.
class picture_file : public ::testing::Test {
 protected:
  picture_file() {
    std::string name = (std::filesystem::temp_directory_path() / "picture_file_XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~picture_file() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(directory_ / name, std::ios::binary) << content;
    return directory_ / name;
  }
  std::string message_without_directory(const std::filesystem::path& path) const {
    try {
      read_picture(path);
    } catch (const error& problem) {
      const std::string text = problem.what();
      const std::string prefix = directory_.string() + "/";
      return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
    }
    return "no error";
  }

  std::filesystem::path directory_;
};

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::filesystem::path reference_file(const char* name) {
  return preprocess_reference::directory() / name;
}

/// How the reference calls the way in which this decoder treats a picture.
std::string our_way(const io::json& entry) {
  return entry.at("decoded").contains("high_byte") ? "high_byte" : "convert";
}

TEST_F(picture_file, decodes_every_kind_as_pillow_does) {
  const preprocess_reference reference;
  for (const io::json& entry : reference["pictures"]) {
    SCOPED_TRACE(entry.at("file"));
    const picture image = read_picture(preprocess_reference::directory() / entry.at("file"));
    EXPECT_EQ(image.width, entry.at("width"));
    EXPECT_EQ(image.height, entry.at("height"));
    const picture expected = reference.decoded(entry.at("name"), our_way(entry));
    if (expected.rgb.empty()) continue;  // stored only where small
    EXPECT_EQ(largest_difference(image, expected), 0);
  }
}

TEST_F(picture_file, reaches_the_references_pixels_from_the_file) {
  const preprocess_reference reference;
  std::map<std::string, picture> pictures;
  std::map<std::string, std::string> ways;
  for (const io::json& entry : reference["pictures"]) {
    pictures[entry.at("name")] = read_picture(preprocess_reference::directory() / entry.at("file"));
    ways[entry.at("name")] = our_way(entry);
  }
  for (const io::json& expectation : reference["resized"])
    if (expectation.at("decode") == ways.at(expectation.at("picture")))
      test::expect_resized(reference, expectation, pictures.at(expectation.at("picture")));
}

TEST_F(picture_file, writes_what_it_reads) {
  picture image = make_picture(31, 17);
  for (std::size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<std::uint8_t>(i * i);
  write_png(image, directory_ / "a.png");
  write_png(image, directory_ / "a.png");  // replaces
  const picture back = read_picture(directory_ / "a.png");
  EXPECT_EQ(back.width, 31);
  EXPECT_EQ(back.rgb, image.rgb);
  const auto files = std::filesystem::directory_iterator(directory_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "no temporary file stays";
}

TEST_F(picture_file, names_the_path_that_cannot_be_written) {
  const picture image = make_picture(2, 2);
  const std::filesystem::path path = directory_ / "absent" / "a.png";
  try {
    write_png(image, path);
    FAIL();
  } catch (const error& problem) {
    EXPECT_EQ(problem.what(), path.string() + ": cannot create a file beside it: No such file or directory");
  }
  std::filesystem::create_directory(directory_ / "directory.png");
  EXPECT_THROW(write_png(image, directory_ / "directory.png"), error);
  const auto files = std::filesystem::directory_iterator(directory_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "no temporary file stays";
}

TEST_F(picture_file, says_what_a_file_is_instead) {
  EXPECT_EQ(message_without_directory(write("a.png", "")), "a.png: the file is empty");
  EXPECT_EQ(message_without_directory(write("a.png", "hello")),
            "a.png: not a PNG, JPEG, GIF or WebP picture");
  EXPECT_EQ(message_without_directory(write("a.png", std::string("RIFF\0\0\0\0WEBPVP8 ", 16))),
            "a.png: not a readable WebP picture: it is damaged or truncated");
  EXPECT_EQ(message_without_directory(write("a.jpg", "GIF89a")),
            "a.jpg: not a readable GIF picture: No screen descriptor detected");
  EXPECT_EQ(message_without_directory(write("a.jpg", "BM hello")),
            "a.jpg: a BMP picture; only PNG, JPEG, GIF and WebP are read");
  EXPECT_EQ(message_without_directory(write("a.jpg", "version https://git-lfs.github.com/spec/v1\noid")),
            "a.jpg: is a Git LFS pointer, not the file itself (git lfs pull fetches it)");
  EXPECT_EQ(message_without_directory(write("a.jpg", "<!DOCTYPE html><html></html>")),
            "a.jpg: is an HTML page, not the file itself");
  EXPECT_EQ(message_without_directory(directory_ / "no.png"),
            "no.png: cannot open: No such file or directory");
  EXPECT_EQ(message_without_directory(directory_), directory_.string() + ": not a regular file");
}

TEST_F(picture_file, refuses_every_truncation) {
  for (const char* name :
       {"landscape.png", "interlaced.png", "palette.png", "baseline.jpg", "progressive.jpg", "cmyk.jpg"}) {
    const std::string whole = content_of(reference_file(name));
    for (std::size_t tenth = 1; tenth < 10; ++tenth) {
      const std::string text =
          message_without_directory(write("cut", whole.substr(0, whole.size() * tenth / 10)));
      EXPECT_NE(text.find("cut: not a readable "), std::string::npos) << name << " " << tenth << ": " << text;
    }
  }
}

TEST_F(picture_file, survives_damaged_bytes) {
  for (const char* name :
       {"interlaced.png", "palette_transparent.png", "subsampled.jpg", "progressive.jpg", "cmyk.jpg"}) {
    const std::string whole = content_of(reference_file(name));
    for (std::size_t i = 2; i < whole.size(); i += 41) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
      try {
        require_valid(decode_picture(std::as_bytes(std::span(damaged)), "damaged", 1'000'000));
      } catch (const error&) {
        continue;  // as good: what must not happen is a crash or a picture that is none
      }
    }
  }
}

TEST_F(picture_file, refuses_more_pixels_than_the_limit) {
  const std::string png = content_of(reference_file("landscape.png")),
                    jpeg = content_of(reference_file("baseline.jpg"));
  for (const std::string& bytes : {png, jpeg}) {
    EXPECT_NO_THROW(decode_picture(std::as_bytes(std::span(bytes)), "a", 97 * 61));
    try {
      decode_picture(std::as_bytes(std::span(bytes)), "a", 97 * 61 - 1);
      FAIL();
    } catch (const error& problem) {
      EXPECT_STREQ(problem.what(), "a: 97 x 61 pixels are more than the limit of 5916");
    }
  }
}

// Each goes over all pixels, however few bytes it has.
TEST_F(picture_file, refuses_a_jpeg_of_many_scans) {
  const std::string start = "\xff\xda", whole = content_of(reference_file("progressive.jpg"));
  const std::size_t last = whole.rfind(start), end = whole.rfind("\xff\xd9");
  std::size_t scans = 0;
  for (auto at = whole.find(start); at != whole.npos; at = whole.find(start, at + 1)) ++scans;
  const auto with_scans = [&](std::size_t wanted) {
    std::string more = whole.substr(0, end);
    for (std::size_t i = scans; i < wanted; ++i) more += whole.substr(last, end - last);
    return more + whole.substr(end);
  };
  EXPECT_NO_THROW(read_picture(write("some.jpg", with_scans(100))));
  EXPECT_EQ(message_without_directory(write("many.jpg", with_scans(101))),
            "many.jpg: not a readable JPEG picture: it has more than 100 scans");
}

TEST_F(picture_file, refuses_a_jpeg_of_many_segments) {
  const auto with_segments = [&](int count) {
    std::string more;
    for (int i = 0; i < count; ++i) more += std::string("\xff\xe1\0\x02", 4);
    return content_of(reference_file("baseline.jpg")).insert(2, more);
  };
  EXPECT_NO_THROW(read_picture(write("some.jpg", with_segments(4000))));
  EXPECT_EQ(message_without_directory(write("many.jpg", with_segments(4097))),
            "many.jpg: not a readable JPEG picture: it has more than 4096 segments of metadata");
}

TEST_F(picture_file, refuses_a_png_chunk_that_claims_more_than_the_file_has) {
  std::string png = content_of(reference_file("one_pixel.png"));
  const std::size_t behind_header = 33;
  png.insert(behind_header, std::string("\x3f\0\0\0iTXtXML:com.adobe.xmp\0\0\0\0\0", 30));
  EXPECT_EQ(message_without_directory(write("claims.png", png)),
            "claims.png: not a readable PNG picture: the file is truncated");
}

TEST_F(picture_file, refuses_a_header_that_promises_too_much) {
  std::string png = content_of(reference_file("one_pixel.png"));
  // 2^31 - 1 by 2^31 - 1 pixels, with the checksum that belongs to it.
  const std::string header("IHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0", 17);
  png.replace(12, header.size(), header);
  png.replace(29, 4, "\x9b\xab\x9c\x31");
  const std::string text = message_without_directory(write("bomb.png", png));
  EXPECT_EQ(text, "bomb.png: not a readable PNG picture: Invalid IHDR data");
}

}  // namespace
}  // namespace corematching::driver
