// SPDX-License-Identifier: Apache-2.0
// GGUF files as bytes, right or wrong, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace corematching::test {

class raw_gguf {
 public:
  explicit raw_gguf(std::uint32_t version = 3) : version_(version) {}

  raw_gguf& text(std::string_view key, std::string_view value) { return begin(key, 8).add_text(value); }
  raw_gguf& integer(std::string_view key, std::uint32_t value) { return begin(key, 4).add(value); }
  raw_gguf& boolean(std::string_view key, bool value) { return begin(key, 7).add(std::uint8_t{value}); }
  raw_gguf& real(std::string_view key, double value) { return begin(key, 6).add(static_cast<float>(value)); }
  raw_gguf& texts(std::string_view key, const std::vector<std::string>& values) {
    begin(key, 9).add(std::uint32_t{8}).add(std::uint64_t{values.size()});
    for (const std::string& value : values) add_text(value);
    return *this;
  }
  raw_gguf& integers(std::string_view key, const std::vector<std::int32_t>& values) {
    begin(key, 9).add(std::uint32_t{5}).add(std::uint64_t{values.size()});
    for (const std::int32_t value : values) add(value);
    return *this;
  }
  raw_gguf& floats(std::string_view key, const std::vector<float>& values) {
    begin(key, 9).add(std::uint32_t{6}).add(std::uint64_t{values.size()});
    for (const float value : values) add(value);
    return *this;
  }
  /// A value of any type, by its bytes.
  raw_gguf& raw(std::string_view key, std::uint32_t type, std::string_view bytes) {
    begin(key, type).body_ += bytes;
    return *this;
  }

  /// A tensor behind those before it; `dimensions` in the file's order, the fastest first.
  raw_gguf& tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                   std::string_view bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    describe(name, dimensions, type, data_.size());
    data_ += bytes;
    return *this;
  }
  /// The description of a tensor alone.
  raw_gguf& describe(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                     std::uint64_t offset) {
    ++tensors_;
    raw_gguf entry;
    entry.add_text(name).add(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t size : dimensions) entry.add(size);
    descriptions_ += entry.add(type).add(offset).body_;
    return *this;
  }
  /// How many tensors the file says to have, whatever is true.
  raw_gguf& count_tensors(std::uint64_t count) {
    tensors_ = count;
    return *this;
  }

  std::string bytes() const {
    raw_gguf head(version_);
    head.body_ = "GGUF";
    head.add(version_).add(tensors_).add(keys_);
    std::string all = head.body_ + body_ + descriptions_;
    if (!data_.empty()) all.resize((all.size() + alignment - 1) / alignment * alignment);
    return all + data_;
  }

  static constexpr std::size_t alignment = 32;

 private:
  raw_gguf& begin(std::string_view key, std::uint32_t type) {
    ++keys_;
    return add_text(key).add(type);
  }
  raw_gguf& add_text(std::string_view text) {
    add(std::uint64_t{text.size()});
    body_ += text;
    return *this;
  }
  template <class Number>
  raw_gguf& add(Number value) {
    body_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }

  std::uint32_t version_;
  std::uint64_t keys_ = 0;
  std::uint64_t tensors_ = 0;
  std::string body_;
  std::string descriptions_;
  std::string data_;
};

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace corematching::test
