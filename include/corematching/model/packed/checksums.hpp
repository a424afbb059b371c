// SPDX-License-Identifier: Apache-2.0
// Checksums of a packed file, in the header under "checksums": one of the data of each tensor, and one of the
// header itself. Loading does not look at them, since it would have to read what it only maps;
// verify_packed() does. The same sum tells the checkpoints apart that packed files are made from.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "corematching/io/mapped_file.hpp"
#include "corematching/io/safetensors_header.hpp"

namespace corematching {

inline constexpr const char* packed_checksums = "checksums";  // key of the metadata

/// Tells damaged data from whole ones as fast as memory is read: four lanes of
///   lane = rotate((lane ^ word) * odd, 29)
/// over words of 8 bytes. Every step is a bijection of the lane, so a single wrong word never goes unnoticed.
inline std::uint64_t data_checksum(std::span<const std::byte> bytes) {
  using words = std::array<std::uint64_t, 4>;
  const auto mixed = [](std::uint64_t lane, std::uint64_t word) {
    return std::rotl((lane ^ word) * 0x9e3779b97f4a7c15u, 29);
  };
  words lanes{1, 2, 3, 4};
  std::uint64_t sum = bytes.size();
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), sizeof(words));
    words next{};  // zeros behind the end
    std::memcpy(next.data(), bytes.data(), size);
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = mixed(lanes[i], next[i]);
    bytes = bytes.subspan(size);
  }
  for (const std::uint64_t lane : lanes) sum = mixed(sum, lane);
  return sum;
}

/// Sixteen hexadecimal digits each, whatever the values, so that a header has its size before they are known.
inline std::string checksum_text(std::span<const std::uint64_t> sums) {
  std::string text;
  for (const std::uint64_t sum : sums)
    for (int shift = 60; shift >= 0; shift -= 4) text.push_back("0123456789abcdef"[(sum >> shift) & 15]);
  return text;
}

/// The checksum of a packed file's header, in which `sums` are its checksums, as if the last one, which is
/// this one, were 0.
inline std::uint64_t header_checksum(std::string header, std::string_view sums) {
  const auto at = header.find(sums);  // nowhere, where damage has spelled them otherwise
  if (at != header.npos) header.replace(at + sums.size() - 16, 16, 16, '0');
  return data_checksum(std::as_bytes(std::span(header)));
}

/// Reads all of a packed file and throws `error` where its header is not what was written, or else naming the
/// first tensor whose data are not. progress(done, total) hears of the bytes read so far.
inline void verify_packed(const std::filesystem::path& path,
                          const std::function<void(std::uint64_t, std::uint64_t)>& progress = {}) {
  const io::mapped_file file = io::mapped_file::open(path);
  const io::safetensors_header header = io::parse_safetensors_header(file.bytes(), path.string());
  const auto said = header.metadata.find(packed_checksums);
  require(said != header.metadata.end(), path.string(),
          ": has no checksums: it is no packed file, or of an earlier version");
  std::string_view rest = said->second;
  require(rest.size() == 16 * (header.tensors.size() + 1), path.string(), ": has ", rest.size() / 16,
          " checksums, but should have ", header.tensors.size() + 1,
          ", the last one of the header; it may be of an earlier version");
  const auto data = file.bytes().subspan(header.data_start);
  const auto in_front = file.bytes().first(header.data_start);
  const std::uint64_t own = header_checksum(
      std::string(reinterpret_cast<const char*>(in_front.data()), in_front.size()), said->second);
  require(checksum_text({&own, 1}) == rest.substr(rest.size() - 16), path.string(),
          ": its header is damaged: it is not what was written");
  for (const io::tensor_entry& t : header.tensors) {
    const auto bytes = data.subspan(t.begin, t.end - t.begin);
    const std::uint64_t sum = data_checksum(bytes);
    require(checksum_text({&sum, 1}) == rest.substr(0, 16), path.string(), ": tensor ", io::in_quotes(t.name),
            " is damaged: its data are not what was written");
    rest.remove_prefix(16);
    io::give_back(bytes);
    if (progress) progress(t.end, data.size());
  }
}

}  // namespace corematching
