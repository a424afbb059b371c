// SPDX-License-Identifier: Apache-2.0
// A body: the table of operations of any type that models `backend`, for linked_backend. Only the translation
// unit that is the body includes this, and with it the backend; programs see the table alone.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "corematching/backend/each.hpp"
#include "corematching/backend/fused.hpp"
#include "corematching/backend/linked/operations.hpp"

namespace corematching::linked {

namespace detail {

/// What a capture ends with when one of its operations threw on the program's side, which keeps the cause.
struct capture_stopped {};

/// Says in `problem` what is being thrown; without memory for a text, that there is none.
inline void describe_exception(failure& problem) noexcept {
  try {
    try {
      throw;
    } catch (const error& refusal) {
      problem = {failure::kind::refused, refusal.what()};
    } catch (const std::bad_alloc&) {
      problem.what = failure::kind::out_of_memory;
    } catch (const std::exception& other) {
      problem = {failure::kind::other, other.what()};
    } catch (const capture_stopped&) {
      problem = {failure::kind::other, "an operation that was to be captured failed"};
    } catch (...) {
      problem = {failure::kind::other, "the backend threw what is no std::exception"};
    }
  } catch (...) {
    problem.what = failure::kind::out_of_memory;
  }
}

/// Runs `body`; what it throws goes into `problem`, and the result is then empty.
template <class Result, class Body>
Result guarded(failure& problem, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    describe_exception(problem);
  }
  return Result();
}

template <class B, class Body, class Result, class... Arguments>
constexpr auto erased(Result (Body::*)(B&, Arguments...) const) {
  return +[](void* backend, failure& problem, Arguments... arguments) -> Result {
    return guarded<Result>(problem, [&] { return Body()(*static_cast<B*>(backend), arguments...); });
  };
}

/// `body`, which takes the backend first and captures nothing, as an entry of the table.
template <class B, class Body>
constexpr auto entry_for(Body) {
  return erased<B, Body>(&Body::operator());
}

/// Moves a buffer into memory of its own, to be given back by release<Buffer>().
template <class Buffer>
owned owned_buffer(Buffer&& buffer) {
  if (buffer.size() == 0) return {};
  const auto kept = new Buffer(std::move(buffer));
  return {reinterpret_cast<std::byte*>(kept->data()), kept};
}

template <class T>
void release(void* owner) {
  delete static_cast<T*>(owner);
}

template <class B>
description describe(B& be) {
  description told;
  if constexpr (requires { be.threads(); }) {
    told.device = "CPU";
    told.threads = be.threads();
  }
  if constexpr (requires { B::compiled_for; }) told.instruction_set = name_of(B::compiled_for);
  if constexpr (requires { B::name; }) told.device = B::name;
  if constexpr (requires { be.device().name; }) told.device = be.device().name;
  return told;
}

}  // namespace detail

/// The table of `B`.
template <backend B>
class operations_of {
  using space = typename B::space;
  using table = operations<space>;
  using out = typename table::out;
  using in = typename table::in;
  using vec = typename table::vec;
  using sums = typename table::sums;
  using ids = typename table::ids;
  using stored = typename table::stored;
  using cached = typename table::cached;
  using neurons = typename table::neurons;
  using shape = typename table::shape;
  using words = typename table::words;
  using counts = typename table::counts;
  using const_counts = typename table::const_counts;
  using word_set = typename table::word_set;
  using neurons_of_rows = typename table::neurons_of_rows;
  using projections = typename table::projections;
  using byte_buffer = typename B::template buffer<std::byte>;
  using float_buffer = typename B::template buffer<float>;
  template <class Body>
  static constexpr auto as_entry(Body body) {
    return detail::entry_for<B>(body);
  }

  static constexpr void set_memory(table& t) {
    t.destroy = &detail::release<B>;
    t.describe = as_entry([](B& be) { return detail::describe(be); });
    t.counters = as_entry([](B& be) { return work_counters(be.counters()); });
    t.allocate = as_entry(
        [](B& be, index bytes) { return detail::owned_buffer(be.template allocate<std::byte>(bytes)); });
    t.release = &detail::release<byte_buffer>;
    t.place_vector = as_entry(
        [](B& be, vector_view<const float> values) { return detail::owned_buffer(be.place_vector(values)); });
    t.release_vector = &detail::release<float_buffer>;
    t.weight_memory = as_entry([](B& be, std::size_t bytes) { return be.weight_memory(bytes); });
    t.place_weight = as_entry([](B& be, const weight<host_space>& host) { return be.place_weight(host); });
    t.convert_weight = as_entry([](B& be, const stored_view<>& w, dtype target, bool transposed) {
      return be.convert_weight(w, target, transposed);
    });
    t.upload = as_entry([](B& be, std::byte* to, const std::byte* from, index bytes) {
      be.upload(vector_view<std::byte, space>{to, bytes}, {from, bytes});
    });
    t.download = as_entry([](B& be, std::byte* to, const std::byte* from, index bytes) {
      be.download(vector_view<std::byte>{to, bytes}, {from, bytes});
    });
    t.argmax = as_entry([](B& be, vec values) { return be.argmax(values); });
  }

  static constexpr void set_layer(table& t) {
    t.embed = as_entry([](B& be, out y, stored rows, ids which) { be.embed(y, rows, which); });
    t.rms_norm = as_entry([](B& be, out y, in x, vec w, float eps) { be.rms_norm(y, x, w, eps); });
    t.layer_norm =
        as_entry([](B& be, out y, in x, vec w, vec bias, float eps) { be.layer_norm(y, x, w, bias, eps); });
    t.matmul = as_entry([](B& be, out y, in x, stored w, vec bias) { be.matmul(y, x, w, bias); });
    t.gated_up = as_entry([](B& be, out y, in x, stored gate, stored up, activation act, neurons which) {
      be.gated_up(y, x, gate, up, act, which);
    });
    t.weighted_rows =
        as_entry([](B& be, out y, in x, stored w, neurons which) { be.weighted_rows(y, x, w, which); });
    t.rotary = as_entry([](B& be, out x, ids positions, vec frequencies, index heads) {
      be.rotary(x, positions, frequencies, heads);
    });
    t.attention =
        as_entry([](B& be, out y, in q, stored k, stored v, shape how) { be.attention(y, q, k, v, how); });
    t.activate = as_entry([](B& be, out x, activation act) { be.activate(x, act); });
    t.add = as_entry([](B& be, out y, in x) { be.add(y, x); });
    t.copy = as_entry([](B& be, out y, in x) { be.copy(y, x); });
    t.gather_rows = as_entry([](B& be, out y, in x, ids rows) { be.gather_rows(y, x, rows); });
  }

  static constexpr void set_cache(table& t) {
    t.store_rows = as_entry([](B& be, cached y, in x) { be.store_rows(y, x); });
    t.load_rows = as_entry([](B& be, out y, stored x) { be.load_rows(y, x); });
    t.copy_rows = as_entry([](B& be, cached y, stored x) { be.copy_rows(y, x); });
    t.gather_cached_rows = as_entry([](B& be, cached y, stored x, ids rows) { be.gather_rows(y, x, rows); });
  }

  static constexpr void set_selection(table& t) requires selecting_backend<B> {
    using neuron_set = decltype(std::declval<B&>().core_neurons({}, 1.0));
    t.activated_neurons =
        as_entry([](B& be, words bits, counts sizes, in x) { be.activated_neurons(bits, sizes, x); });
    t.count_core_neurons = as_entry(
        [](B& be, counts frequency, in x, const_counts sizes, double rho, core_count rule,
           typename table::some_rows rows) { be.count_core_neurons(frequency, x, sizes, rho, rule, rows); });
    t.core_neurons = as_entry([](B& be, const_counts frequency, double beta) -> std::shared_ptr<const void> {
      return std::make_shared<neuron_set>(be.core_neurons(frequency, beta));
    });
    t.indices_of_set =
        as_entry([](B&, const void* set) -> ids { return static_cast<const neuron_set*>(set)->indices(); });
    t.bits_of_set =
        as_entry([](B&, const void* set) -> word_set { return static_cast<const neuron_set*>(set)->bits(); });
    t.overlap = as_entry([](B& be, counts scores, typename table::const_words bits, word_set set) {
      be.overlap(scores, bits, set);
    });
    t.attention_probabilities = as_entry([](B& be, out probabilities, in q, stored k, shape how) {
      be.attention_probabilities(probabilities, q, k, how);
    });
    t.zero_rows = as_entry([](B& be, cached x, ids rows) { be.zero_rows(x, rows); });
  }

  static constexpr void set_choice(table& t) requires choosing_backend<B> {
    t.multiply = as_entry([](B& be, out y, in x) { be.multiply(y, x); });
    t.add_magnitudes = as_entry(
        [](B& be, sums to, in x, typename table::some_rows rows) { be.add_magnitudes(to, x, rows); });
    t.top_k = as_entry([](B& be, counts places, vec x, vec weights) { be.top_k(places, x, weights); });
    t.zero_others = as_entry([](B& be, sums x, ids chosen) { be.zero_others(x, chosen); });
    t.scaled_matmul = as_entry([](B& be, out y, in x, stored w, vec factors, ids chosen) {
      be.scaled_matmul(y, x, w, factors, chosen);
    });
    t.coarse_matmul = as_entry([](B& be, out y, in x, stored w) { be.coarse_matmul(y, x, w); });
    t.finish_gated_up = as_entry(
        [](B& be, out y, in x, stored gate, stored up, vec coarse_gate, vec coarse_up, activation act,
           ids chosen) { be.finish_gated_up(y, x, gate, up, coarse_gate, coarse_up, act, chosen); });
  }

  static constexpr void set_each(table& t) {
    namespace each = corematching::detail;
    t.gated_up_each =
        as_entry([](B& be, out y, in x, stored gate, stored up, activation act, neurons_of_rows of_rows) {
          each::gated_up_each(be, y, x, gate, up, act, of_rows);
        });
    t.add_weighted_rows_each = as_entry([](B& be, out y, in x, stored w, neurons_of_rows of_rows, out room) {
      each::add_weighted_rows_each(be, y, x, w, of_rows, room);
    });
  }
  static constexpr void set_choice_of_each(table& t) requires choosing_backend<B> {
    namespace each = corematching::detail;
    t.scaled_matmul_each = as_entry([](B& be, out y, in x, stored w, in factors, neurons_of_rows of_rows) {
      each::scaled_matmul_each(be, y, x, w, factors, of_rows);
    });
    t.finish_gated_up_each = as_entry([](B& be, out y, in x, stored gate, stored up, in coarse_gates,
                                         in coarse_ups, activation act, neurons_of_rows of_rows) {
      each::finish_gated_up_each(be, y, x, gate, up, coarse_gates, coarse_ups, act, of_rows);
    });
  }

  // The table says that every linked backend can do what these are for; this one says no when it is asked to.
  template <class Result, class... Parameters>
  static constexpr void refuse_selection(Result (*&to)(void*, failure&, Parameters...)) {
    to = as_entry([](B&, Parameters...) -> Result {
      throw error("this backend finds no core neurons and no core tokens");
    });
  }
  template <class Result, class... Parameters>
  static constexpr void refuse_choice(Result (*&to)(void*, failure&, Parameters...)) {
    to = as_entry(
        [](B&, Parameters...) -> Result { throw error("this backend chooses no neurons for each token"); });
  }
  static constexpr void set_selection(table& t) {
    refuse_selection(t.activated_neurons);
    refuse_selection(t.count_core_neurons);
    refuse_selection(t.core_neurons);
    refuse_selection(t.indices_of_set);
    refuse_selection(t.bits_of_set);
    refuse_selection(t.overlap);
    refuse_selection(t.attention_probabilities);
    refuse_selection(t.zero_rows);
  }
  static constexpr void set_choice(table& t) {
    refuse_choice(t.multiply);
    refuse_choice(t.add_magnitudes);
    refuse_choice(t.top_k);
    refuse_choice(t.zero_others);
    refuse_choice(t.scaled_matmul);
    refuse_choice(t.coarse_matmul);
    refuse_choice(t.finish_gated_up);
  }
  static constexpr void set_choice_of_each(table& t) {
    refuse_choice(t.scaled_matmul_each);
    refuse_choice(t.finish_gated_up_each);
  }

  static constexpr void set_fused(table& t) {
    namespace fused = corematching::detail;
    t.project = as_entry([](B& be, projections which, in x) { fused::project(be, which, x); });
    t.add_matmul = as_entry(
        [](B& be, out y, in x, stored w, vec bias, out room) { fused::add_matmul(be, y, x, w, bias, room); });
    t.add_weighted_rows = as_entry([](B& be, out y, in x, stored w, neurons which, out room) {
      fused::add_weighted_rows(be, y, x, w, which, room);
    });
    t.rotary_of_two = as_entry([](B& be, out x, out other, ids positions, vec frequencies) {
      fused::rotate(be, x, other, positions, frequencies);
    });
    t.store_rows_of_two = as_entry(
        [](B& be, cached y, cached other_y, in x, in other_x) { fused::store(be, y, other_y, x, other_x); });
  }

  static constexpr void set_graphs(table& t) requires graph_backend<B> {
    using made = typename B::graph;
    t.make_graph = as_entry([](B&) -> void* { return new made; });
    t.release_graph = &detail::release<made>;
    t.capture = as_entry([](B& be, void* to, ids counter, std::int32_t count, captured_operations which) {
      be.capture(*static_cast<made*>(to), counter, count, [&] {
        if (!which.run(which.context)) throw detail::capture_stopped();
      });
    });
    t.launch = as_entry([](B& be, const void* which, std::int32_t count) {
      return be.launch(*static_cast<const made*>(which), count);
    });
    t.set_capturing = as_entry([](B& be, bool captures) { be.set_capturing(captures); });
    t.graphs = as_entry([](B& be) { return be.graphs(); });
    t.set_overlapping = as_entry([](B& be, bool overlaps) { return be.set_overlapping(overlaps); });
  }

  // Nothing is kept, so every step runs.
  static constexpr void set_graphs(table& t) {
    t.make_graph = as_entry([](B&) -> void* { return nullptr; });
    t.release_graph = [](void*) {};
    t.capture = as_entry([](B&, void*, ids, std::int32_t, captured_operations which) {
      if (!which.run(which.context)) throw detail::capture_stopped();
    });
    t.launch = as_entry([](B&, const void*, std::int32_t) { return false; });
    t.set_capturing = as_entry([](B&, bool) {});
    t.graphs = as_entry([](B&) { return graph_counts(); });
    t.set_overlapping = as_entry([](B&, bool) { return false; });
  }

  static constexpr table make() {
    table t{};
    set_memory(t);
    set_layer(t);
    set_cache(t);
    set_selection(t);
    set_choice(t);
    set_fused(t);
    set_each(t);
    set_choice_of_each(t);
    set_graphs(t);
    return t;
  }

 public:
  static constexpr table value = make();
};

/// An entry of a body: makes a `B` of one number.
template <backend B>
void* make_backend(void*, failure& problem, int number) {
  return detail::guarded<void*>(problem, [&] { return new B(number); });
}

/// An entry of a body: makes a `B` that works on threads of the program's.
template <backend B>
requires std::constructible_from<B, const executor&>
void* make_backend_on(void*, failure& problem, const executor& threads) {
  return detail::guarded<void*>(problem, [&] { return new B(threads); });
}

}  // namespace corematching::linked
