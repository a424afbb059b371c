// SPDX-License-Identifier: Apache-2.0
// The descriptions of tensors in a GGUF file, behind its metadata, checked in full before any tensor is read:
// for each its name, the number of its dimensions (4 bytes), these, the fastest first, the type (4 bytes) and
// the offset in the data (8 bytes each). Data begin, as every tensor in them, at a multiple of the alignment,
// which the key general.alignment says.
//
// Source: https://github.com/ggml-org/ggml (docs/gguf.md).
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "corematching/core/error.hpp"
#include "corematching/io/ggml_type.hpp"
#include "corematching/io/gguf_metadata.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/tensor.hpp"

namespace corematching::io {

/// Where a tensor stands; `begin` and `end` count bytes from the start of the file.
struct gguf_entry {
  std::string name;
  ggml_type type = ggml_type::f32;
  std::vector<std::int64_t> shape;  // the fastest dimension last
  std::size_t begin = 0;
  std::size_t end = 0;
};

namespace detail {

inline constexpr std::uint32_t max_gguf_rank = 4;

inline std::string gguf_place(const std::string& file, std::string_view name) {
  return file + ": tensor " + in_quotes(name);
}

/// Bytes of a tensor of this shape and type, whose last dimension is whole blocks.
inline std::uint64_t gguf_bytes(const std::vector<std::int64_t>& shape, ggml_type type,
                                const std::string& where) {
  const ggml_type_facts& facts = facts_of(type);
  const auto row = static_cast<std::uint64_t>(shape.back());
  require(row % facts.block == 0, where, ": ", facts.name, " has blocks of ", facts.block,
          ", of which rows of ", row, " are no whole number");
  std::uint64_t bytes = facts.bytes;
  const auto multiply = [&](std::uint64_t factor) {
    require(bytes <= std::uint64_t{std::numeric_limits<std::int64_t>::max()} / factor, where,
            ": the size of shape ", shape_text(shape), " overflows");
    bytes *= factor;
  };
  multiply(row / facts.block);
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) multiply(static_cast<std::uint64_t>(shape[i]));
  return bytes;
}

inline std::vector<std::int64_t> read_gguf_shape(gguf_cursor& from, const std::string& where) {
  const auto rank = from.number<std::uint32_t>();
  require(rank >= 1 && rank <= max_gguf_rank, where, ": has ", rank, " dimensions, expected 1 to ",
          max_gguf_rank);
  std::vector<std::int64_t> shape(rank);
  for (std::int64_t& size : shape) {
    const auto stored = from.number<std::uint64_t>();
    require(stored >= 1 && std::in_range<std::int64_t>(stored), where, ": has a dimension of ", stored,
            ", expected 1 to 2^63-1");
    size = static_cast<std::int64_t>(stored);
  }
  std::ranges::reverse(shape);
  return shape;
}

/// One description; `begin` and `end` still count from the start of the data, in a file of `file_size` bytes.
inline gguf_entry read_gguf_entry(gguf_cursor& from, std::uint64_t alignment, std::uint64_t file_size,
                                  const std::string& file) {
  gguf_entry entry;
  entry.name = from.text();
  const std::string where = gguf_place(file, entry.name);
  entry.shape = read_gguf_shape(from, where);
  const auto type = from.number<std::uint32_t>();
  const ggml_type_facts* const facts = find_ggml_type(type);
  require(facts != nullptr, where, " is of type ", type, ", which is not known");
  entry.type = facts->type;
  const auto offset = from.number<std::uint64_t>();
  require(offset % alignment == 0, where, " begins at ", offset, ", no multiple of the alignment ",
          alignment);
  const std::uint64_t bytes = gguf_bytes(entry.shape, entry.type, where);
  require(offset <= file_size && bytes <= file_size - offset, where, ": its ", bytes, " bytes from ", offset,
          " on do not fit a file of ", file_size);
  entry.begin = static_cast<std::size_t>(offset);
  entry.end = static_cast<std::size_t>(offset + bytes);
  return entry;
}

inline std::uint64_t gguf_alignment(const gguf_metadata& metadata) {
  constexpr std::string_view key = "general.alignment";
  if (!metadata.has(key)) return 32;
  const auto said = static_cast<std::uint64_t>(metadata.integer(key, 1, 1 << 20));
  require(std::has_single_bit(said), metadata.file(), ": ", key, " is ", said, ", expected a power of two");
  return said;
}

inline void check_gguf_overlaps(const std::vector<gguf_entry>& entries, const std::string& file) {
  std::vector<const gguf_entry*> sorted;
  for (const gguf_entry& entry : entries) sorted.push_back(&entry);
  std::ranges::stable_sort(sorted, {}, [](const gguf_entry* entry) { return entry->begin; });
  for (std::size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i]->begin < sorted[i - 1]->end)
      fail(gguf_place(file, sorted[i]->name), " overlaps ", in_quotes(sorted[i - 1]->name));
}

}  // namespace detail

/// The tensors of the file held in `bytes`, whose metadata are `metadata`, in the order of the file. Throws
/// `error` naming file and tensor for what lies outside of the file, on another tensor or between multiples
/// of the alignment, for sizes that overflow and for a name that is there twice.
inline std::vector<gguf_entry> parse_gguf_tensors(std::span<const std::byte> bytes,
                                                  const gguf_metadata& metadata) {
  const std::string& file = metadata.file();
  detail::gguf_cursor from(bytes.subspan(metadata.end()), file);
  constexpr std::size_t least_bytes = 8 + 4 + 8 + 4 + 8;
  require(metadata.tensors() <= from.left() / least_bytes, file, ": truncated: ", metadata.tensors(),
          " tensors in ", from.left(), " bytes");
  const std::uint64_t alignment = detail::gguf_alignment(metadata);
  std::vector<gguf_entry> entries;
  std::set<std::string_view> names;
  entries.reserve(static_cast<std::size_t>(metadata.tensors()));
  for (std::uint64_t i = 0; i < metadata.tensors(); ++i) {
    entries.push_back(detail::read_gguf_entry(from, alignment, bytes.size(), file));
    const std::string& name = entries.back().name;
    require(names.insert(name).second, detail::gguf_place(file, name), " is there twice");
  }
  const std::uint64_t head = metadata.end() + from.offset();
  const std::uint64_t start = (head + alignment - 1) / alignment * alignment;
  for (gguf_entry& entry : entries) {
    require(start <= bytes.size() && entry.end <= bytes.size() - start, detail::gguf_place(file, entry.name),
            ": truncated: its data end at ", start + entry.end, " in a file of ", bytes.size());
    entry.begin += static_cast<std::size_t>(start);
    entry.end += static_cast<std::size_t>(start);
  }
  detail::check_gguf_overlaps(entries, file);
  return entries;
}

}  // namespace corematching::io
