// SPDX-License-Identifier: Apache-2.0
// How much is taken from clients, and how long they are waited for.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace corematching::driver {

struct serve_limits {
  std::uint64_t body_bytes = std::uint64_t{32} << 20;       // of one request
  std::uint64_t all_body_bytes = std::uint64_t{256} << 20;  // of those that are being received and read
  std::size_t pictures = 16;                                // of one request
  std::size_t connections = 256;                            // at once; each has a thread
  std::chrono::milliseconds receiving{30'000};              // from a request's first byte to its last
  std::chrono::milliseconds idle{60'000};                   // between two requests of a connection
  std::chrono::milliseconds sending{20'000};  // until a client has taken a piece of an answer, or 1 MiB of it
  std::chrono::milliseconds answering{600'000};  // from the whole request to the end of its answer
};

}  // namespace corematching::driver
