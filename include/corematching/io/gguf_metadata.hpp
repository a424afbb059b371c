// SPDX-License-Identifier: Apache-2.0
// The keys and values at the front of a GGUF file, versions 2 and 3, read in bounds; the tensors behind them
// are not looked at.
//
//   "GGUF", version (4 bytes), number of tensors, number of keys (8 bytes each), then for each key
//   its text, the type of its value (4 bytes), the value. A text is its length (8 bytes) and its bytes, an
//   array the type of its elements, their number and they. All numbers are little-endian.
//
// Source: https://github.com/ggml-org/ggml (docs/gguf.md).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"

namespace corematching::io {

namespace detail {

/// Takes numbers and texts from the front of some bytes.
class gguf_cursor {
 public:
  gguf_cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(&file) {}

  std::size_t offset() const { return offset_; }
  std::size_t left() const { return bytes_.size() - offset_; }

  template <class Number>
  Number number() {
    Number value{};
    const auto from = take(sizeof(Number));
    std::memcpy(&value, from.data(), sizeof(Number));
    return value;
  }

  std::string_view text() {
    const auto length = number<std::uint64_t>();
    require(length <= left(), *file_, ": truncated: a text of ", length, " bytes at byte ", offset_);
    const auto from = take(static_cast<std::size_t>(length));
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }

 private:
  std::span<const std::byte> take(std::size_t count) {
    require(count <= left(), *file_, ": truncated at byte ", bytes_.size());
    offset_ += count;
    return bytes_.subspan(offset_ - count, count);
  }

  std::span<const std::byte> bytes_;
  const std::string* file_;
  std::size_t offset_ = 0;
};

}  // namespace detail

/// Reads its texts from the bytes it was made of, which must outlive it.
class gguf_metadata {
 public:
  /// Throws `error`, starting with `file`, for what is no GGUF file of a known version, is cut off, or has a
  /// key twice.
  static gguf_metadata parse(std::span<const std::byte> bytes, std::string file) {
    static_assert(std::endian::native == std::endian::little);
    gguf_metadata result(std::move(file));
    detail::gguf_cursor from(bytes, result.file_);
    constexpr std::string_view magic = "GGUF";
    require(bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0,
            result.file_, ": not a GGUF file");
    from.number<std::uint32_t>();
    result.version_ = from.number<std::uint32_t>();
    require(result.version_ == 2 || result.version_ == 3, result.file_, ": GGUF version ", result.version_,
            " is not read; 2 and 3 are");
    result.tensors_ = from.number<std::uint64_t>();
    const auto count = from.number<std::uint64_t>();
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::string_view key = from.text();
      const auto type = from.number<std::uint32_t>();
      const bool is_new = result.values_.emplace(key, result.read_value(from, type, key)).second;
      require(is_new, result.file_, ": duplicate key ", in_quotes(key));
    }
    result.end_ = from.offset();
    return result;
  }

  const std::string& file() const { return file_; }
  std::uint32_t version() const { return version_; }
  /// How many tensors the file says to have.
  std::uint64_t tensors() const { return tensors_; }
  /// Where the descriptions of tensors begin, in bytes.
  std::size_t end() const { return end_; }

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

  /// Each of these throws `error` naming file and key where there is no such key, its value is of another
  /// type or out of bounds.
  std::string_view text(std::string_view key) const { return get<std::string_view>(key, "a text"); }
  bool boolean(std::string_view key) const { return get<bool>(key, "true or false"); }
  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most) const {
    const value& found = at(key);
    if (const auto* number = std::get_if<std::int64_t>(&found); number && *number >= least && *number <= most)
      return *number;
    fail(file_, ": ", key, " is not an integer from ", least, " to ", most);
  }
  /// A floating-point number, or an integer.
  double number(std::string_view key, double least, double most) const {
    const value& found = at(key);
    const auto* integer = std::get_if<std::int64_t>(&found);
    const auto* real = std::get_if<double>(&found);
    const double number = integer != nullptr ? static_cast<double>(*integer) : real != nullptr ? *real : most;
    require((integer != nullptr || real != nullptr) && number >= least && number <= most, file_, ": ", key,
            " is not a number from ", least, " to ", most);
    return number;
  }
  const std::vector<std::string_view>& texts(std::string_view key) const {
    return get<std::vector<std::string_view>>(key, "a list of texts");
  }
  const std::vector<std::int64_t>& integers(std::string_view key) const {
    return get<std::vector<std::int64_t>>(key, "a list of integers");
  }
  const std::vector<double>& numbers(std::string_view key) const {
    return get<std::vector<double>>(key, "a list of floating-point numbers");
  }

 private:
  // Integers beyond 2^63 - 1 are refused: no key in use has one.
  using value = std::variant<std::int64_t, double, bool, std::string_view, std::vector<std::int64_t>,
                             std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

  enum value_type : std::uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean_type,
    text_type,
    array,
    u64,
    i64,
    f64
  };

  explicit gguf_metadata(std::string file) : file_(std::move(file)) {}

  value read_value(detail::gguf_cursor& from, std::uint32_t type, std::string_view key) const {
    switch (type) {
      case u8: return integer_of(from.number<std::uint8_t>(), key);
      case i8: return integer_of(from.number<std::int8_t>(), key);
      case u16: return integer_of(from.number<std::uint16_t>(), key);
      case i16: return integer_of(from.number<std::int16_t>(), key);
      case u32: return integer_of(from.number<std::uint32_t>(), key);
      case i32: return integer_of(from.number<std::int32_t>(), key);
      case u64: return integer_of(from.number<std::uint64_t>(), key);
      case i64: return integer_of(from.number<std::int64_t>(), key);
      case f32: return double{from.number<float>()};
      case f64: return from.number<double>();
      case boolean_type: return from.number<std::uint8_t>() != 0;
      case text_type: return from.text();
      case array: break;
      default: refuse_type(type, key);
    }
    const auto element = from.number<std::uint32_t>();
    switch (element) {
      case u8: return list_of<std::int64_t, std::uint8_t>(from, key);
      case i8: return list_of<std::int64_t, std::int8_t>(from, key);
      case u16: return list_of<std::int64_t, std::uint16_t>(from, key);
      case i16: return list_of<std::int64_t, std::int16_t>(from, key);
      case u32: return list_of<std::int64_t, std::uint32_t>(from, key);
      case i32: return list_of<std::int64_t, std::int32_t>(from, key);
      case u64: return list_of<std::int64_t, std::uint64_t>(from, key);
      case i64: return list_of<std::int64_t, std::int64_t>(from, key);
      case f32: return list_of<double, float>(from, key);
      case f64: return list_of<double, double>(from, key);
      case boolean_type: return list_of<bool, std::uint8_t>(from, key);
      case text_type: return list_of<std::string_view, std::string_view>(from, key);
      case array: fail(file_, ": ", in_quotes(key), " is a list of lists, which are not read");
      default: refuse_type(element, key);
    }
  }

  template <class Number>
  std::int64_t integer_of(Number number, std::string_view key) const {
    require(std::in_range<std::int64_t>(number), file_, ": ", in_quotes(key), " has the value ", number,
            ", which is beyond 2^63-1");
    return static_cast<std::int64_t>(number);
  }

  template <class Element, class Stored>
  std::vector<Element> list_of(detail::gguf_cursor& from, std::string_view key) const {
    constexpr bool texts = std::is_same_v<Stored, std::string_view>;
    constexpr std::size_t least_bytes = texts ? sizeof(std::uint64_t) : sizeof(Stored);
    const auto count = from.number<std::uint64_t>();
    require(count <= from.left() / least_bytes, file_, ": truncated: ", in_quotes(key), " is a list of ",
            count, " values in ", from.left(), " bytes");
    std::vector<Element> list;
    list.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
      if constexpr (texts)
        list.push_back(from.text());
      else if constexpr (std::is_same_v<Element, std::int64_t>)
        list.push_back(integer_of(from.number<Stored>(), key));
      else
        list.push_back(static_cast<Element>(from.number<Stored>()));
    }
    return list;
  }

  [[noreturn]] void refuse_type(std::uint32_t type, std::string_view key) const {
    fail(file_, ": ", in_quotes(key), " has a value of unknown type ", type);
  }

  const value& at(std::string_view key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) fail(file_, ": ", key, " is missing");
    return found->second;
  }

  template <class Value>
  const Value& get(std::string_view key, const char* expected) const {
    const auto* found = std::get_if<Value>(&at(key));
    if (found == nullptr) fail(file_, ": ", key, " is not ", expected);
    return *found;
  }

  std::string file_;
  std::uint32_t version_ = 0;
  std::uint64_t tensors_ = 0;
  std::size_t end_ = 0;
  std::map<std::string, value, std::less<>> values_;
};

}  // namespace corematching::io
