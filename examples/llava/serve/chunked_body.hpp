// SPDX-License-Identifier: Apache-2.0
// Bodies that come in chunks (RFC 9112, 7.1). Read more strictly than servers have to, and with a bound for
// everything that is no body: sizes, extensions and trailers could otherwise be as long as a client likes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace corematching::driver {

/// The longest line between two chunks, or behind the last one.
inline constexpr std::size_t max_chunk_line_bytes = 256;
/// Of all extensions and trailers of a body.
inline constexpr std::size_t max_chunk_extra_bytes = std::size_t{8} << 10;

/// Up to `size` bytes that a client sends; 0 or less where there are no more.
using byte_source = std::function<std::ptrdiff_t(char* to, std::size_t size)>;

/// Reads `size` bytes from `source`, and passes them to `take` as they arrive. False where the source ends
/// before. Throws what `take` throws.
bool read_bytes(const byte_source& source, std::uint64_t size,
                const std::function<void(std::string_view)>& take);

/// Reads from `source` to the end of a body, and passes what is in its chunks to `take` as it arrives. False
/// where the source ends before the body. Throws `api_error` for what are no chunks, and what `take` throws.
bool read_chunks(const byte_source& source, const std::function<void(std::string_view)>& take);

}  // namespace corematching::driver
