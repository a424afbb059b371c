// SPDX-License-Identifier: Apache-2.0
// What was computed of something once and may be asked for again: found by its content, kept within a number
// of bytes, the longest unused going first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace corematching {

/// How often something was found, and not.
struct cache_uses {
  std::uint64_t found = 0;
  std::uint64_t missed = 0;
};

/// Keyed by lists of numbers. Equal hashes are no equal contents: what is found has been compared.
template <class Number, class Value>
class byte_cache {
  static_assert(std::is_integral_v<Number>);

 public:
  using key = std::vector<Number>;

  /// Keeps at most so many bytes of values, as put() is told of them; 0: nothing.
  explicit byte_cache(std::uint64_t limit) : limit_(limit) {}

  /// The value of `of`, or null. It stays as long as somebody has it.
  std::shared_ptr<const Value> find(const key& of) {
    const auto place = places_.find(&of);
    if (place == places_.end()) {
      ++uses_.missed;
      return nullptr;
    }
    ++uses_.found;
    entries_.splice(entries_.begin(), entries_, place->second);
    return place->second->value;
  }

  /// Keeps `value` of `bytes` bytes for `of`, which has none, unless it is larger than the limit; returns it.
  std::shared_ptr<const Value> put(key of, Value value, std::uint64_t bytes) {
    auto kept = std::make_shared<const Value>(std::move(value));
    if (bytes > limit_) return kept;
    while (bytes_ + bytes > limit_) drop_last();
    std::list<entry> added;  // joins the others once nothing can fail any more
    added.push_front({std::move(of), kept, bytes});
    places_.emplace(&added.front().of, added.begin());
    entries_.splice(entries_.begin(), added);
    bytes_ += bytes;
    return kept;
  }

  std::uint64_t bytes() const { return bytes_; }
  const cache_uses& uses() const { return uses_; }

 private:
  struct entry {
    key of;
    std::shared_ptr<const Value> value;
    std::uint64_t bytes;
  };
  // FNV-1a, 64 bits, of the numbers.
  struct hash {
    std::size_t operator()(const key* of) const {
      std::uint64_t sum = 0xcbf29ce484222325;
      for (const Number number : *of)
        sum = (sum ^ static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<Number>>(number))) *
              0x100000001b3;
      return static_cast<std::size_t>(sum);
    }
  };
  struct equal {
    bool operator()(const key* a, const key* b) const { return *a == *b; }
  };

  void drop_last() {
    bytes_ -= entries_.back().bytes;
    places_.erase(&entries_.back().of);
    entries_.pop_back();
  }

  std::uint64_t limit_;
  std::uint64_t bytes_ = 0;
  std::list<entry> entries_;  // the last used first
  std::unordered_map<const key*, typename std::list<entry>::iterator, hash, equal> places_;
  cache_uses uses_;
};

}  // namespace corematching
