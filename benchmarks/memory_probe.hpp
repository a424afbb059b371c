// SPDX-License-Identifier: Apache-2.0
// How fast memory can be read at this moment: the limit of decoding, which reads every weight once a token.
// Other users of the machine share it, so it is measured again around every run that it is compared with.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "corematching/backend/cpu/memory/huge_pages.hpp"
#include "corematching/backend/cpu/threads/thread_pool.hpp"

#include "spread.hpp"

namespace corematching::bench {

class memory_probe {
 public:
  explicit memory_probe(cpu::thread_pool& pool)
      : pool_(pool), block_(cpu::weight_memory(words * sizeof(word))) {
    word* const data = words_of_block();
    pool_.for_ranges(words, words_per_line, [&](int, index first, index last) {
      for (index i = first; i < last; ++i) data[i] = static_cast<word>(i);
    });
  }

  /// Bytes per second that all threads read together: the median of some passes over half a gigabyte.
  double read_bytes_per_second() {
    constexpr int passes = 7;
    std::vector<double> rates;
    for (int i = 0; i < passes; ++i) {
      const auto start = std::chrono::steady_clock::now();
      read_once();
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      rates.push_back(static_cast<double>(words * sizeof(word)) / taken.count());
    }
    return spread_of(rates).median;
  }

 private:
  using word = std::uint64_t;
  static constexpr index words = index{512} << 17;  // 512 MiB: far more than any cache holds
  static constexpr index words_per_line = 8;
  static constexpr index streams = 4;  // of each thread; one alone does not keep the prefetchers busy

  const word* words_of_block() const { return reinterpret_cast<const word*>(block_.get()); }
  word* words_of_block() { return reinterpret_cast<word*>(block_.get()); }

  void read_once() {
    std::vector<word> sums(static_cast<std::size_t>(pool_.size()));
    pool_.for_ranges(words, streams * words_per_line, [&](int thread, index first, index last) {
      sums[static_cast<std::size_t>(thread)] = sum(words_of_block() + first, last - first);
    });
    for (const word value : sums) sink_ = sink_ + value;
  }

  // Sums so many chains that the compiler can keep them all in vector registers.
  static word sum(const word* from, index count) {
    const index part = count / streams;
    word chains[streams][words_per_line] = {};
    for (index i = 0; i < part; i += words_per_line)
      for (index s = 0; s < streams; ++s)
        for (index lane = 0; lane < words_per_line; ++lane) chains[s][lane] += from[s * part + i + lane];
    word total = 0;
    for (const auto& chain : chains)
      for (const word value : chain) total += value;
    return total;
  }

  cpu::thread_pool& pool_;
  std::shared_ptr<std::byte> block_;
  volatile word sink_ = 0;  // what is summed must be used, or it is not read
};

}  // namespace corematching::bench
