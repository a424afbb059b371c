// SPDX-License-Identifier: Apache-2.0
// A backend that was compiled elsewhere. Models, hooks and programs are compiled once for the memory that it
// works on, by a plain C++ compiler and in seconds, whatever computes: kernels for this CPU's instruction set
// or for a CUDA device are linked, not included.
//
//   auto be = corematching::cpu::make_linked_backend();   // backend/linked/cpu.hpp
//   auto be = corematching::cuda::make_linked_backend();  // backend/linked/cuda.hpp
#pragma once

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "corematching/backend/backend.hpp"
#include "corematching/backend/linked/operations.hpp"

namespace corematching {

namespace linked {

/// Gives an object of the backend back to it.
struct give_back {
  void (*release)(void* owner) = nullptr;
  void* owner = nullptr;
  void operator()(const void*) const { release(owner); }
};

/// Memory of a linked backend, freed with the object.
template <class T, class Space>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  buffer() = default;
  buffer(owned memory, index size, void (*release)(void* owner))
      : memory_(reinterpret_cast<T*>(memory.data), {release, memory.owner}), size_(size) {}

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  index size() const { return memory_ ? size_ : 0; }  // of what was moved away, nothing
  vector_view<T, Space> view() { return {data(), size_}; }
  vector_view<const T, Space> view() const { return {data(), size_}; }

 private:
  std::unique_ptr<T, give_back> memory_;
  index size_ = 0;
};

/// Calls an entry of the table; throws what it failed with.
template <class Result, class... Parameters>
Result call(Result (*function)(void*, failure&, Parameters...), void* self,
            std::type_identity_t<Parameters>... arguments) {
  failure problem;
  if constexpr (std::is_void_v<Result>) {
    function(self, problem, arguments...);
    problem.raise();
  } else {
    Result result = function(self, problem, arguments...);
    problem.raise();
    return result;
  }
}

/// A set of neurons as the backend has it.
template <class Space>
class neuron_set {
 public:
  neuron_set() = default;
  neuron_set(const operations<Space>& table, void* self, std::shared_ptr<const void> set)
      : table_(&table), self_(self), set_(std::move(set)) {}

  /// May wait for the backend, and throw what it failed with.
  index_view<Space> indices() const {
    if (!set_) return {};
    return call(table_->indices_of_set, self_, set_.get());
  }
  vector_view<const std::uint64_t, Space> bits() const {
    if (!set_) return {};
    return call(table_->bits_of_set, self_, set_.get());
  }

 private:
  const operations<Space>* table_ = nullptr;
  void* self_ = nullptr;
  std::shared_ptr<const void> set_;
};

/// Operations that a backend has captured, or nothing.
class graph {
 public:
  graph() = default;
  graph(void* made, void (*release)(void* owner)) : made_(made, {release, made}) {}
  void* get() const { return made_.get(); }

 private:
  std::unique_ptr<void, give_back> made_;
};

}  // namespace linked

/// The concept `backend` by way of a table: see operations.hpp for what that means for exceptions, and
/// backend.hpp for the operations. What it allocates must be gone before it is.
template <class Space>
class linked_backend {
 public:
  using space = Space;
  template <class T>
  using buffer = linked::buffer<T, Space>;
  using neuron_set = linked::neuron_set<Space>;
  using table = linked::operations<Space>;
  using out = typename table::out;
  using in = typename table::in;
  using vec = typename table::vec;
  using ids = typename table::ids;
  using stored = typename table::stored;
  using cached = typename table::cached;
  using neurons = neuron_selection<Space>;
  using neurons_of_rows = typename table::neurons_of_rows;
  using projections = typename table::projections;

  /// `number`: of threads, or of a device, as the body takes it.
  explicit linked_backend(const linked::body<Space>& from, int number)
      : table_(from.table), self_(linked::call(from.make, nullptr, number), {from.table->destroy}) {}

  /// On threads of the caller's. Throws `error` where the body takes none.
  explicit linked_backend(const linked::body<Space>& from, const executor& threads)
      : table_((require_threads_taken(from), from.table)),
        self_(linked::call(from.make_on, nullptr, threads), {from.table->destroy}) {}

  linked::description describe() const { return call(table_->describe); }
  work_counters counters() const { return call(table_->counters); }

  template <class T>
  buffer<T> allocate(index size) {
    require(size >= 0 && size <= std::numeric_limits<index>::max() / index{sizeof(T)},
            "out of memory: ", size, " elements of ", sizeof(T), " bytes asked for");
    return {call(table_->allocate, size * index{sizeof(T)}), size, table_->release};
  }
  buffer<float> place_vector(vector_view<const float> host) {
    return {call(table_->place_vector, host), host.size, table_->release_vector};
  }
  std::shared_ptr<std::byte> weight_memory(std::size_t bytes) { return call(table_->weight_memory, bytes); }
  weight<Space> place_weight(const weight<host_space>& host) { return call(table_->place_weight, host); }
  weight<Space> convert_weight(const stored_view<>& source, dtype target, bool transposed) {
    return call(table_->convert_weight, source, target, transposed);
  }
  template <class T>
  void upload(vector_view<T, Space> to, std::type_identity_t<vector_view<const T>> from) {
    assert(to.size == from.size);
    call(table_->upload, reinterpret_cast<std::byte*>(to.data), reinterpret_cast<const std::byte*>(from.data),
         to.size * index{sizeof(T)});
  }
  template <class T>
  void download(vector_view<T> to, std::type_identity_t<vector_view<const T, Space>> from) {
    assert(to.size == from.size);
    call(table_->download, reinterpret_cast<std::byte*>(to.data),
         reinterpret_cast<const std::byte*>(from.data), to.size * index{sizeof(T)});
  }
  maximum argmax(vec values) { return call(table_->argmax, values); }

  void embed(out y, const stored& rows, ids which) { call(table_->embed, y, rows, which); }
  void rms_norm(out y, in x, vec weight, float eps) { call(table_->rms_norm, y, x, weight, eps); }
  void layer_norm(out y, in x, vec weight, vec bias, float eps) {
    call(table_->layer_norm, y, x, weight, bias, eps);
  }
  void matmul(out y, in x, const stored& w, vec bias = {}) { call(table_->matmul, y, x, w, bias); }
  void gated_up(out y, in x, const stored& gate, const stored& up, activation act,
                const neurons& selection = {}) {
    call(table_->gated_up, y, x, gate, up, act, selection);
  }
  void weighted_rows(out y, in x, const stored& w, const neurons& selection = {}) {
    call(table_->weighted_rows, y, x, w, selection);
  }
  void rotary(out x, ids positions, vec frequencies, index heads) {
    call(table_->rotary, x, positions, frequencies, heads);
  }
  void attention(out y, in q, const stored& k, const stored& v, const attention_shape& shape) {
    call(table_->attention, y, q, k, v, shape);
  }
  void attention_probabilities(out probabilities, in q, const stored& k, const attention_shape& shape) {
    call(table_->attention_probabilities, probabilities, q, k, shape);
  }
  void activate(out x, activation act) { call(table_->activate, x, act); }
  void add(out y, in x) { call(table_->add, y, x); }
  void copy(out y, in x) { call(table_->copy, y, x); }
  void gather_rows(out y, in x, ids rows) { call(table_->gather_rows, y, x, rows); }

  void store_rows(cached y, in x) { call(table_->store_rows, y, x); }
  void load_rows(out y, const stored& x) { call(table_->load_rows, y, x); }
  void copy_rows(cached y, const stored& x) { call(table_->copy_rows, y, x); }
  void gather_rows(cached y, const stored& x, ids rows) { call(table_->gather_cached_rows, y, x, rows); }
  void zero_rows(cached x, ids rows) { call(table_->zero_rows, x, rows); }

  void activated_neurons(typename table::words bits, typename table::counts counts, in x) {
    call(table_->activated_neurons, bits, counts, x);
  }
  void count_core_neurons(typename table::counts frequency, in x, typename table::const_counts counts,
                          double rho, core_count rule, const std::optional<ids>& rows = {}) {
    call(table_->count_core_neurons, frequency, x, counts, rho, rule, rows);
  }
  neuron_set core_neurons(typename table::const_counts frequency, double beta) {
    return {*table_, self_.get(), call(table_->core_neurons, frequency, beta)};
  }
  void overlap(typename table::counts scores, typename table::const_words bits,
               typename table::word_set set) {
    call(table_->overlap, scores, bits, set);
  }

  void multiply(out y, in x) { call(table_->multiply, y, x); }
  void add_magnitudes(typename table::sums sums, in x, const std::optional<ids>& rows = {}) {
    call(table_->add_magnitudes, sums, x, rows);
  }
  void top_k(typename table::counts places, vec x, vec weights = {}) {
    call(table_->top_k, places, x, weights);
  }
  void zero_others(typename table::sums x, ids chosen) { call(table_->zero_others, x, chosen); }
  void scaled_matmul(out y, in x, const stored& w, vec factors, ids chosen) {
    call(table_->scaled_matmul, y, x, w, factors, chosen);
  }
  void coarse_matmul(out y, in x, const stored& w) { call(table_->coarse_matmul, y, x, w); }
  void finish_gated_up(out y, in x, const stored& gate, const stored& up, vec coarse_gate, vec coarse_up,
                       activation act, ids chosen) {
    call(table_->finish_gated_up, y, x, gate, up, coarse_gate, coarse_up, act, chosen);
  }

  void project(projections which, in x) { call(table_->project, which, x); }
  void add_matmul(out y, in x, const stored& w, vec bias, out room) {
    call(table_->add_matmul, y, x, w, bias, room);
  }
  void add_weighted_rows(out y, in x, const stored& w, const neurons& selection, out room) {
    call(table_->add_weighted_rows, y, x, w, selection, room);
  }
  void rotary(out x, out other, ids positions, vec frequencies) {
    call(table_->rotary_of_two, x, other, positions, frequencies);
  }
  void store_rows(cached y, cached other_y, in x, in other_x) {
    call(table_->store_rows_of_two, y, other_y, x, other_x);
  }

  void gated_up_each(out y, in x, const stored& gate, const stored& up, activation act,
                     neurons_of_rows of_rows) {
    call(table_->gated_up_each, y, x, gate, up, act, of_rows);
  }
  void add_weighted_rows_each(out y, in x, const stored& w, neurons_of_rows of_rows, out room) {
    call(table_->add_weighted_rows_each, y, x, w, of_rows, room);
  }
  void scaled_matmul_each(out y, in x, const stored& w, in factors, neurons_of_rows of_rows) {
    call(table_->scaled_matmul_each, y, x, w, factors, of_rows);
  }
  void finish_gated_up_each(out y, in x, const stored& gate, const stored& up, in coarse_gates, in coarse_ups,
                            activation act, neurons_of_rows of_rows) {
    call(table_->finish_gated_up_each, y, x, gate, up, coarse_gates, coarse_ups, act, of_rows);
  }

  /// As graph_backend says; operations in the host's memory run at once, so there is nothing to capture.
  using graph = linked::graph;
  template <std::invocable Operations>
  requires std::same_as<Space, device_space>
  void capture(graph& to, ids counter, std::int32_t count, Operations&& operations) {
    struct {
      Operations& operations;
      std::exception_ptr problem;
    } asked{operations, nullptr};
    const auto run = [](void* context) {
      auto& given = *static_cast<decltype(asked)*>(context);
      try {
        given.operations();
        return true;
      } catch (...) {
        given.problem = std::current_exception();  // thrown again below
        return false;
      }
    };
    to = graph(call(table_->make_graph), table_->release_graph);
    linked::failure problem;
    table_->capture(self_.get(), problem, to.get(), counter, count, {run, &asked});
    if (problem.what != linked::failure::kind::none) to = {};
    if (asked.problem) std::rethrow_exception(asked.problem);
    problem.raise();
  }
  bool launch(const graph& made, std::int32_t count) requires std::same_as<Space, device_space> {
    return made.get() != nullptr && call(table_->launch, made.get(), count);
  }
  /// Whether capture() captures, which it does unless told otherwise, or only runs.
  void set_capturing(bool captures) requires std::same_as<Space, device_space> {
    call(table_->set_capturing, captures);
  }
  graph_counts graphs() const requires std::same_as<Space, device_space> { return call(table_->graphs); }
  /// Whether kernels of few rows may be started while those before them still run; not unless told so.
  /// Returns whether they will be.
  bool set_overlapping(bool overlaps) requires std::same_as<Space, device_space> {
    return call(table_->set_overlapping, overlaps);
  }

 private:
  struct destroy {
    void (*with)(void* self) = nullptr;
    void operator()(void* self) const { with(self); }
  };

  static void require_threads_taken(const linked::body<Space>& from) {
    require(from.make_on != nullptr, "the backend \"", from.name, "\" takes no threads of its caller's");
  }

  template <class Function, class... Arguments>
  auto call(Function function, const Arguments&... arguments) const {
    assert(self_ != nullptr);  // moved away
    return linked::call(function, self_.get(), arguments...);
  }

  const table* table_;
  std::unique_ptr<void, destroy> self_;
};

static_assert(selecting_backend<linked_backend<host_space>> &&
              selecting_backend<linked_backend<device_space>>);
static_assert(choosing_backend<linked_backend<host_space>> && choosing_backend<linked_backend<device_space>>);
static_assert(batching_backend<linked_backend<host_space>> && batching_backend<linked_backend<device_space>>);
static_assert(fusing_backend<linked_backend<host_space>> && fusing_backend<linked_backend<device_space>>);
static_assert(graph_backend<linked_backend<device_space>>);

}  // namespace corematching
