// SPDX-License-Identifier: Apache-2.0
// Decoding steps that are captured as a graph and launched: each scenario runs once so, once with kernels
// that may be started early, and once with every operation queued by itself, and must give the same bits and
// the same counts of work.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "corematching/hooks/gate_neurons.hpp"
#include "corematching/hooks/predicted_neurons.hpp"
#include "support/conversation.hpp"
#include "support/error_text.hpp"
#include "support/tiny_llama.hpp"

namespace corematching {
namespace {

using B = support::test_backend;
using tiny = support::tiny_llama<B>;
using talk = support::conversation<B>;
using support::error_text;
using support::expect_parts;

/// Heads of 8 elements are whole 16-byte loads of 16-bit caches, and are normalised; those of 6 are neither.
llama_config config_of(index head_dim) {
  llama_config config = support::tiny_config();
  config.layers = 3;
  config.head_dim = head_dim;
  config.qk_norm = head_dim == 8;
  return config;
}

class device_graphs : public testing::Test {
 protected:
  /// What a scenario notes of its steps.
  struct outcome {
    std::vector<std::vector<float>> logits;
    std::vector<work_counters> work;
    friend bool operator==(const outcome&, const outcome&) = default;
  };
  struct steps {
    tiny& model;
    outcome& seen;

    sequence<B> start(index tokens, index headroom, dtype cache_type = dtype::f32) {
      auto seq = model.model.start(model.be, headroom, cache_type);
      prefill(seq, tokens);
      return seq;
    }
    void prefill(sequence<B>& seq, index tokens) {
      auto x = support::embedded(model, support::random_ids(tokens, model.config.vocab_size, 2));
      model.model.prefill(model.be, seq, x.view(), 1000);
    }
    template <class Step>
    void note(Step&& step) {
      const work_counters before = model.be.counters();
      seen.logits.push_back(step());
      seen.work.push_back(model.be.counters() - before);
    }
    template <class H = no_hook>
    void decode(sequence<B>& seq, index count, H&& hook = {}) {
      for (index i = 0; i < count; ++i)
        note([&] {
          return model.model.decode(model.be, seq, static_cast<std::int32_t>((7 * seq.next_position) % 61),
                                    hook);
        });
    }
    void decode(talk& t, index count) {
      for (index i = 0; i < count; ++i) note([&] { return t.decode(static_cast<std::int32_t>(7 * i % 61)); });
    }
  };

  /// How often steps were captured and launched, once both ways of running the scenario have agreed.
  std::pair<index, index> compare(const std::function<void(steps)>& scenario, index head_dim = 6,
                                  std::optional<dtype> weights = {}) {
    tiny plain(config_of(head_dim), 1, weights), graph(config_of(head_dim), 1, weights),
        overlapping(config_of(head_dim), 1, weights);
    plain.be.set_capturing(false);
    EXPECT_TRUE(overlapping.be.set_overlapping(true) || !support::is_emulated);  // not every device can
    outcome expected, seen, overlapped;
    scenario({plain, expected});
    scenario({graph, seen});
    scenario({overlapping, overlapped});
    EXPECT_EQ(seen.logits, expected.logits);
    EXPECT_EQ(seen.work, expected.work);
    EXPECT_EQ(overlapped, expected);
    EXPECT_EQ(plain.be.graphs().captured + plain.be.graphs().launched, 0u);
    const graph_counts made = graph.be.graphs();
    return {static_cast<index>(made.captured), static_cast<index>(made.launched)};
  }
  using counts = std::pair<index, index>;
};

TEST_F(device_graphs, of_steps_serve_all_lengths_of_the_cache) {
  const struct {
    index head_dim;
    dtype cache_type;
    index tokens;  // at 65 and at 129 keys there is a slice more
  } cases[] = {{6, dtype::f32, 60}, {8, dtype::f16, 124}, {8, dtype::bf16, 1}};
  for (const auto& one : cases) {
    SCOPED_TRACE(testing::Message() << one.tokens << " tokens in " << name_of(one.cache_type));
    const auto scenario = [&](steps of) {
      auto seq = of.start(one.tokens, 20, one.cache_type);
      of.decode(seq, 10);
    };
    EXPECT_EQ(compare(scenario, one.head_dim), counts(1, 8));
  }
}

TEST_F(device_graphs, of_steps_with_core_neurons_serve_layers_of_different_lengths) {
  using enum pruning_mode;
  for (const pruning_mode mode : {everywhere, later_layers, zero_in_place})
    EXPECT_EQ(compare([&](steps of) {
                talk t(of.model, {.neuron_layers_begin = 1,
                                  .match_layers = {1},
                                  .keep = {.rule = select::keep_rule::top_k, .count = 3},
                                  .pruning = mode});
                t.prompt("tttiiiiiiiiiiiittttttt");
                of.decode(t, 6);
              }),
              counts(1, 4));
}

TEST_F(device_graphs, are_made_anew_for_the_neurons_and_the_cache_of_a_further_prompt) {
  EXPECT_EQ(compare([](steps of) {
              talk t(of.model, {.match_layers = {1}, .positions = position_policy::contiguous});
              for (const char* letters : {"tttiiiiiiiiittttt", "ttiiiitttttttttttt"}) {
                t.prompt(letters);
                of.decode(t, 4);
              }
            }),
            counts(2, 4));
}

TEST_F(device_graphs, hold_the_choice_of_each_token) {
  EXPECT_EQ(compare([](steps of) {
              gate_neurons<B> gates(of.model.be, {.beta = 0.3, .begin = 1}, of.model.config.layers,
                                    shape_of(of.model.config));
              const gate_neurons<B>::decode_hook hook(gates);
              auto seq = of.start(5, 30);
              of.decode(seq, 4, hook);
              gates.begin_prompt(0, support::kinds_of("ttt"));  // from now on with weights
              of.decode(seq, 4, hook);
            }),
            counts(2, 4));
}

TEST_F(device_graphs, hold_what_is_foretold_of_each_token) {
  const auto decode_with = [](neuron_shares shares) {
    return [shares](steps of) {
      auto seq = of.start(5, 30);
      of.decode(seq, 5, predicted_neurons<B>(shares, of.model.config.layers, shape_of(of.model.config)));
    };
  };
  EXPECT_EQ(compare(decode_with({.beta = 0.3, .begin = 1}), 6, dtype::f16_planes), counts(1, 3));
  EXPECT_EQ(compare(decode_with({.beta = 0.3}), 8, dtype::f16_planes), counts(1, 3));
}

TEST_F(device_graphs, belong_to_one_sequence_each) {
  EXPECT_EQ(compare([](steps of) {
              auto a = of.start(5, 30), b = of.start(63, 30);
              for (int turn = 0; turn < 5; ++turn) {
                of.decode(a, 1);
                of.decode(b, 2);
              }
            }),
            counts(2, 3 + 8));
}

TEST_F(device_graphs, are_made_anew_where_the_cache_has_grown) {
  // Rows for 9 + 5, then for 9 + 5 + 1 + 5: of each room one step is plain, or the one that moves the cache
  // and the next; the one behind it is captured.
  EXPECT_EQ(compare([](steps of) {
              auto seq = of.start(9, 5);
              of.decode(seq, 11);
            }),
            counts(2, 3 + 3));
}

TEST_F(device_graphs, are_not_made_where_the_cache_moves_in_every_step) {
  EXPECT_EQ(compare([](steps of) {
              auto seq = of.start(9, 0);
              of.decode(seq, 5);
            }),
            counts(0, 0));
}

TEST_F(device_graphs, are_made_anew_where_other_work_has_moved_the_backends_memory) {
  const counts made = compare([](steps of) {
    auto a = of.start(5, 30), b = of.start(120, 0);
    of.decode(a, 3);
    of.prefill(b, 8);  // sums of eight tokens
    of.decode(a, 3);
  });
  // A device may give more memory at the same place, which the graph then still fits.
  if (support::is_emulated)
    EXPECT_EQ(made, counts(2, 3));
  else
    EXPECT_EQ(made.first + made.second, 5);
}

TEST_F(device_graphs, are_not_made_of_steps_that_a_hook_watches_but_outlast_them) {
  EXPECT_EQ(compare([](steps of) {
              auto seq = of.start(5, 30);
              layer_recording watched;
              of.decode(seq, 4, record_hook<B>(watched));
              EXPECT_EQ(watched.outputs.size(), 3u);
              of.decode(seq, 3);
              of.decode(seq, 2, record_hook<B>(watched));
              of.decode(seq, 2);
            }),
            counts(1, 3));
}

/// Says every time that all neurons are to be computed, by lists that lie elsewhere each time.
struct changing_lists {
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = true;
  std::vector<B::buffer<std::int32_t>>* lists;
  neuron_selection<B::space> operator()(site::ffn_neurons, const layer_context<B>& at) {
    std::vector<std::int32_t> all(75);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
    lists->push_back(device_indices(at.be, {all.data(), 75}));
    return index_view<B::space>(lists->back().view());
  }
};

TEST_F(device_graphs, are_not_made_where_a_hook_names_other_memory_in_every_step) {
  EXPECT_EQ(compare([](steps of) {
              std::vector<B::buffer<std::int32_t>> lists;
              auto seq = of.start(5, 30);
              of.decode(seq, 4, changing_lists{&lists});
            }),
            counts(0, 0));
}

/// Adds a vector of the backend's memory to the hidden states that leave each layer.
struct steers {
  using attends = sites<site::layer_output>;
  vector_view<const float, B::space> by;  // [D]
  const void* queues_on() const { return by.data; }
  void operator()(site::layer_output, const layer_context<B>& at, matrix_view<float, B::space> x) const {
    for (index i = 0; i < x.rows; ++i) at.be.add(x.middle_rows(i, 1), {by.data, 1, by.size, by.size});
  }
};

struct computes_some {
  using attends = sites<site::ffn_neurons>;
  static constexpr bool answers_ahead = true;
  index_view<B::space> list;
  neuron_selection<B::space> operator()(site::ffn_neurons, const layer_context<B>&) const { return list; }
};

TEST_F(device_graphs, hold_what_a_hook_queues_and_are_made_anew_where_that_is_elsewhere) {
  const counts made = compare([](steps of) {
    const index size = of.model.config.hidden_size;
    const std::vector<float> some(static_cast<std::size_t>(size), 0.25f), more(some.size(), -0.5f);
    const auto a = of.model.be.place_vector({some.data(), size}),
               b = of.model.be.place_vector({more.data(), size});
    std::vector<std::int32_t> half(30);
    std::iota(half.begin(), half.end(), 7);
    const auto list = device_indices(of.model.be, {half.data(), 30});
    auto seq = of.start(5, 40);
    of.decode(seq, 4, steers{a.view()});
    of.decode(seq, 3, steers{b.view()});
    of.decode(seq, 3);
    of.decode(seq, 3, chain(computes_some{list.view()}, steers{a.view()}));
  });
  EXPECT_EQ(made, counts(4, 2 + 1 + 1 + 1));
}

TEST_F(device_graphs, are_not_shared_by_models) {
  const tiny other(config_of(6), 2);
  EXPECT_EQ(compare([&](steps of) {
              auto seq = of.start(5, 30);
              of.decode(seq, 3);
              of.note([&] { return other.model.decode(of.model.be, seq, 4); });
              of.decode(seq, 3);
            }),
            counts(2, 1 + 1));
}

class captured_graph : public testing::Test {
 protected:
  B be = support::make_backend(1);
  B::graph made;
  matrix<B> x{be, 1, 64}, more{be, 1, 64};
  matrix<B> cached{be, 4, 64};
  B::buffer<std::int32_t> counter = be.allocate<std::int32_t>(1);

  void SetUp() override {
    fill(x, 1);
    fill(more, 10);
    count_to(3);
  }
  void fill(matrix<B>& m, float value) {
    const std::vector<float> values(static_cast<std::size_t>(m.rows() * m.cols()), value);
    upload_values(be, m.view(), {values.data(), std::ssize(values)});
  }
  void count_to(std::int32_t count) { be.upload(counter.view(), {&count, 1}); }
  float first_of(const matrix<B>& m, index row = 0) {
    float value = 0;
    be.download(vector_view<float>{&value, 1}, {m.view().row(row).data, 1});
    return value;
  }
};

TEST_F(captured_graph, runs_its_operations_once_and_with_every_launch) {
  EXPECT_FALSE(be.launch(made, 3)) << "there is none";
  be.capture(made, counter.view(), 3, [&] { be.add(x.view(), more.view()); });
  EXPECT_EQ(first_of(x), 11);
  fill(more, 100);
  EXPECT_TRUE(be.launch(made, 3));
  EXPECT_EQ(first_of(x), 111);
}

TEST_F(captured_graph, stores_rows_as_much_later_as_the_counter_has_grown) {
  fill(cached, 0);
  be.capture(made, counter.view(), 3, [&] { be.store_rows(cached.view().middle_rows(1, 1), x.view()); });
  count_to(5);
  fill(x, 7);
  EXPECT_TRUE(be.launch(made, 5));
  const float rows[] = {0, 1, 0, 7};
  for (index i = 0; i < 4; ++i) EXPECT_EQ(first_of(cached, i), rows[i]) << i;
}

TEST_F(captured_graph, that_is_given_up_leaves_the_backend_as_it_was) {
  const work_counters before = be.counters();
  EXPECT_EQ(error_text([&] {
              be.capture(made, counter.view(), 3, [&] {
                be.add(x.view(), more.view());
                be.matmul(x.view().left_cols(4), more.view(), std::as_const(cached).view());
                fail("given up");
              });
            }),
            "given up");
  EXPECT_EQ(be.counters(), before);
  EXPECT_EQ(first_of(x), 1) << "nothing has run";
  EXPECT_FALSE(be.launch(made, 3));
  be.store_rows(cached.view().middle_rows(1, 1), x.view());
  EXPECT_EQ(first_of(cached, 1), 1) << "rows that are stored now go where they are told";
}

TEST_F(captured_graph, refuses_to_wait) {
  expect_parts(error_text([&] {
                 be.capture(made, counter.view(), 3, [&] { be.download(vector_view<float>{}, {}); });
               }),
               "backend.cuh", "cudaStreamSynchronize");
  be.add(x.view(), more.view());
  EXPECT_EQ(first_of(x), 11);
}

TEST_F(captured_graph, refuses_to_take_memory) {
  matrix<B> y(be, 1, 64), factors(be, 1, 5000), rows(be, 5000, 64);
  for (matrix<B>* m : {&factors, &rows}) fill(*m, 1);
  const auto sum = [&] { be.weighted_rows(y.view(), factors.view(), std::as_const(rows).view()); };
  expect_parts(error_text([&] { be.capture(made, counter.view(), 3, sum); }), "more memory",
               "when they ran before");
  sum();
  be.capture(made, counter.view(), 3, sum);
  EXPECT_EQ(first_of(y), 5000);
}

TEST_F(captured_graph, refuses_attention_of_more_than_one_query) {
  const attention_shape shape{.heads = 1, .kv_heads = 1, .head_dim = 64};
  matrix<B> y(be, 2, 64);
  const auto attend = [&] {
    be.attention(y.view(), cached.view().top_rows(2), cached.view(), cached.view(), shape);
  };
  expect_parts(error_text([&] { be.capture(made, counter.view(), 3, attend); }), "2 queries");
}

TEST_F(captured_graph, of_a_step_that_fails_leaves_the_cache_as_it_was) {
  kv_cache<B> cache(2, 64, 8);
  decoding_steps<B> steps;
  no_hook hook;
  const auto run = [&](std::int32_t position, bool fails) {
    count_to(position);
    steps.run(be, cache, {1, position, counter.view()}, hook, [&](auto&) {
      cache[0].append(be, x.view(), x.view());
      if (fails) fail("no second layer");
      cache[1].append(be, x.view(), x.view());
    });
  };
  for (std::int32_t position = 0; position < 2; ++position) run(position, false);
  EXPECT_EQ(be.graphs().captured, 0u) << "the first of these had to take memory";
  EXPECT_EQ(error_text([&] { run(2, true); }), "no second layer");
  for (std::int32_t position = 2; position < 5; ++position) {
    fill(x, static_cast<float>(10 * position));
    run(position, false);
  }
  EXPECT_EQ(be.graphs().captured, 1u);
  EXPECT_EQ(be.graphs().launched, 2u);
  for (index layer = 0; layer < 2; ++layer) {
    ASSERT_EQ(cache[layer].length(), 5);
    matrix<B> loaded(be, 5, 64);
    be.load_rows(loaded.view(), cache[layer].keys());
    for (index i = 0; i < 5; ++i) EXPECT_EQ(first_of(loaded, i), i < 2 ? 1.0f : static_cast<float>(10 * i));
  }
}

}  // namespace
}  // namespace corematching
