// SPDX-License-Identifier: Apache-2.0
// A hash table from 64-bit numbers to small values in one array: merges and tries are looked up several times
// for each byte of a text.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace corematching::text {

template <class Value>
class number_map {
 public:
  static constexpr std::uint64_t no_key = ~std::uint64_t{0};

  std::size_t size() const { return size_; }

  /// Makes room for `count` keys in all.
  void reserve(std::size_t count) {
    const std::size_t slots = std::bit_ceil(count * 2 + 2);
    if (slots <= slots_.size()) return;
    std::vector<slot> old(slots);
    old.swap(slots_);
    for (const slot& s : old)
      if (s.key != no_key) slots_[place_of(s.key)] = s;
  }

  /// The value under `key`, which is not `no_key`; `value` if there was none.
  Value& insert(std::uint64_t key, const Value& value) {
    if (2 * (size_ + 1) > slots_.size()) reserve(2 * size_ + 16);
    slot& s = slots_[place_of(key)];
    if (s.key == no_key) {
      s = {key, value};
      ++size_;
    }
    return s.value;
  }

  const Value* find(std::uint64_t key) const {
    if (slots_.empty()) return nullptr;
    const slot& s = slots_[place_of(key)];
    return s.key == key ? &s.value : nullptr;
  }

 private:
  struct slot {
    std::uint64_t key = no_key;
    Value value{};
  };

  // Where `key` is, or would be. At most half of the slots are taken, so a search ends.
  std::size_t place_of(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::uint64_t hash = (key ^ key >> 32) * 0x9e3779b97f4a7c15U;
    std::size_t place = (hash ^ hash >> 29) & mask;
    while (slots_[place].key != no_key && slots_[place].key != key) place = (place + 1) & mask;
    return place;
  }

  std::vector<slot> slots_;  // a power of two of them
  std::size_t size_ = 0;
};

}  // namespace corematching::text
