// SPDX-License-Identifier: Apache-2.0
// The layers of a packed file within a limit of memory. A layer is read into one of two buffers, and placed
// where the backend computes, when it is asked for, and the next one from the other while it computes. Once a
// layer has seen the prompt, the part of it that decoding needs is copied out as far as the limit allows; the
// rest is read again for every token.
//
// Counted against the limit: buffers and copies, final norm and head, and the rows of the embedding that are
// looked up (all of it where it is the head too). Not counted: activations and the KV cache.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

#include "corematching/io/region_file.hpp"
#include "corematching/model/llama/layer_subset.hpp"
#include "corematching/nn/transfer.hpp"

namespace corematching {

template <backend B>
class layer_stream {
 public:
  using space = typename B::space;
  using shared_layer = std::shared_ptr<const decoder_layer<B>>;

  /// Throws `error` where `limit` bytes are too few for one layer and for what is always in memory.
  layer_stream(const packed_file& file, const llama_config& config, std::uint64_t limit)
      : file_(file), config_(config), from_(file.path()), limit_(limit) {
    const packed_layout& layout = file_.layout();
    resident_ = layout.tail().size() +
                (config.tie_word_embeddings ? layout.embedding().size() : lookup_rows * embedding_row());
    buffer_ = layout.layer(0).size() + vectors();
    require(limit >= resident_ + buffer_, "a memory limit of ", limit, " bytes is too small: at least ",
            resident_ + buffer_, " are needed, ", resident_, " for head, norm and embedding and ", buffer_,
            " for one layer");
    peak_ = resident_;
  }

  /// A part of the file's data that stays in memory.
  std::shared_ptr<std::byte> load(B& be, byte_range range) {
    auto memory = be.weight_memory(static_cast<std::size_t>(range.size()));
    read(range, memory.get());
    return memory;
  }

  /// Layer `i` with all of its neurons, valid until the next call of layer() or keep(). Begins to read `next`
  /// where there is room for two.
  const decoder_layer<B>& layer(B& be, index i, std::optional<index> next) {
    settle();
    if (buffers_.empty()) claim_buffers();
    buffer* current = holding(i);
    if (current == nullptr) {
      current = &buffers_.front();
      prepare(be, *current);
      fill(be, *current, i);
      current->layer = i;
    }
    if (next && buffers_.size() > 1 && holding(*next) == nullptr)
      read_ahead(be, current == &buffers_.front() ? buffers_.back() : buffers_.front(), *next);
    return *current->weights;
  }

  /// A copy of layer `i`, which layer() returned last, with these neurons alone, or all of them; null where
  /// the limit does not allow it. What it takes is free again when it is gone.
  shared_layer keep(B& be, index i, const neuron_selection<space>& neurons) {
    std::optional<std::vector<std::int32_t>> rows;
    if (neurons) {
      rows.emplace(static_cast<std::size_t>(neurons->size));
      be.download(vector_view<std::int32_t>{rows->data(), neurons->size}, *neurons);
    }
    const std::uint64_t bytes = subset_size(i, rows ? std::ssize(*rows) : config_.intermediate_size);
    // Reading ahead gains less than a layer that is never read again.
    if (!fits(bytes) && rows) drop_buffers_but(i);
    if (!fits(bytes)) return nullptr;
    const buffer& source = *holding(i);
    detail::subset_reader<B> reader(be, reader_of(be, source, i), file_.layout(), source.memory.get(),
                                    file_.layout().layer(i).first, rows,
                                    be.weight_memory(static_cast<std::size_t>(bytes)));
    auto copy = std::make_unique<const decoder_layer<B>>(
        layer_of<B>(config_, read_layer_weights<B>(config_, reader, layer_prefix("model.", i))));
    *kept_ += bytes;
    note_peak();
    return {copy.release(), [kept = kept_, bytes](const decoder_layer<B>* layer) {
              delete layer;
              *kept -= bytes;
            }};
  }

  /// Gives the buffers up until a layer is asked for.
  void release_buffers() {
    settle();
    buffers_.clear();
  }

  /// y[i] = embedding of ids[i], each row read from the file.
  void embed(B& be, matrix_view<float, space> y, std::span<const std::int32_t> ids) {
    const std::uint64_t row = embedding_row();
    if (!looked_up_) looked_up_ = be.weight_memory(static_cast<std::size_t>(lookup_rows * row));
    std::vector<std::int32_t> places(lookup_rows);
    std::iota(places.begin(), places.end(), 0);
    for (std::size_t first = 0; first < ids.size(); first += lookup_rows) {
      const auto part = ids.subspan(first, std::min(lookup_rows, ids.size() - first));
      const std::uint64_t table = file_.layout().embedding().first;
      for (std::size_t i = 0; i < part.size(); ++i) {
        const std::uint64_t begin = table + static_cast<std::uint64_t>(part[i]) * row;
        read({begin, begin + row}, looked_up_.get() + i * row);
      }
      const auto table_rows =
          be.place_weight({{looked_up_.get(), file_.layout().embedding_type(), std::ssize(part),
                            config_.hidden_size, static_cast<index>(row)},
                           looked_up_});
      be.embed(y.middle_rows(static_cast<index>(first), std::ssize(part)), table_rows.view,
               device_indices(be, {places.data(), std::ssize(part)}).view());
    }
  }

  const packed_layout& layout() const { return file_.layout(); }
  /// Most bytes of weights that were in memory at once.
  std::uint64_t peak() const { return peak_; }
  /// Bytes read from the file so far.
  std::uint64_t streamed() const { return streamed_; }

 private:
  struct buffer {
    std::shared_ptr<std::byte> memory;
    index layer = -1;  // -1: none
    std::optional<decoder_layer<B>> weights;
  };

  static constexpr std::size_t lookup_rows = 64;  // of the embedding, at a time

  std::uint64_t embedding_row() const {
    return bytes_of(file_.layout().embedding_type(), static_cast<std::size_t>(config_.hidden_size));
  }

  std::uint64_t subset_size(index i, index neurons) const {
    std::uint64_t sum = 0;
    for (const packed_tensor& t : file_.layout().tensors_of(i)) sum += detail::subset_bytes(t, neurons);
    return sum;
  }

  // A layer's vectors are copied out of its buffer.
  std::uint64_t vectors() const {
    std::uint64_t sum = 0;
    for (const packed_tensor& t : file_.layout().tensors_of(0))
      if (t.kind == tensor_kind::vector) sum += t.entry.end - t.entry.begin;
    return sum;
  }

  std::uint64_t held() const { return resident_ + buffers_.size() * buffer_ + *kept_; }
  bool fits(std::uint64_t more) const { return held() + more <= limit_; }
  void note_peak() { peak_ = std::max(peak_, held()); }

  void claim_buffers() {
    require(fits(buffer_), "the memory limit of ", limit_,
            " bytes leaves no room for a layer: sequences hold ", kept_->load());
    buffers_.resize(fits(2 * buffer_) ? 2 : 1);
    note_peak();
  }

  void drop_buffers_but(index i) {
    settle();
    std::erase_if(buffers_, [i](const buffer& b) { return b.layer != i; });
  }

  buffer* holding(index i) {
    const auto found = std::ranges::find(buffers_, i, &buffer::layer);
    return found == buffers_.end() ? nullptr : &*found;
  }

  packed_reader<B> reader_of(B& be, const buffer& from, index i) const {
    return {be, file_.layout(), from.memory.get(), from.memory, file_.layout().layer(i).first};
  }

  void prepare(B& be, buffer& to) {
    to.layer = -1;
    to.weights.reset();
    if (!to.memory) to.memory = be.weight_memory(static_cast<std::size_t>(file_.layout().layer(0).size()));
  }

  void read(byte_range range, std::byte* to) {
    from_.read(file_.data_start() + range.first, {to, static_cast<std::size_t>(range.size())});
    streamed_ += range.size();
  }

  // Reads layer `i` and places its weights; whoever waits for this says that it has happened.
  void fill(B& be, buffer& to, index i) {
    read(file_.layout().layer(i), to.memory.get());
    auto reader = reader_of(be, to, i);
    to.weights.emplace(
        layer_of<B>(config_, read_layer_weights<B>(config_, reader, layer_prefix("model.", i))));
  }

  void read_ahead(B& be, buffer& to, index i) {
    prepare(be, to);
    try {
      reading_ = std::async(std::launch::async, [this, &be, &to, i] { fill(be, to, i); });
      reading_layer_ = i;
      reading_to_ = &to;
    } catch (const std::system_error&) {
      // No thread to be had: the layer is read when it is asked for.
    }
  }

  // Waits for what is read ahead.
  void settle() {
    if (!reading_.valid()) return;
    reading_.get();
    reading_to_->layer = reading_layer_;
  }

  packed_file file_;
  llama_config config_;
  io::region_file from_;
  std::uint64_t limit_;
  std::uint64_t resident_ = 0;  // bytes of head, final norm and embedding
  std::uint64_t buffer_ = 0;    // bytes of one buffer
  std::uint64_t peak_ = 0;
  std::atomic<std::uint64_t> streamed_{0};
  std::shared_ptr<std::atomic<std::uint64_t>> kept_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  std::shared_ptr<std::byte> looked_up_;  // rows of the embedding, once there were any
  std::vector<buffer> buffers_;
  index reading_layer_ = -1;
  buffer* reading_to_ = nullptr;
  std::future<void> reading_;  // the last member: its destructor waits before the buffers go
};

}  // namespace corematching
