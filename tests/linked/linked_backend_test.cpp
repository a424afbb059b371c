// SPDX-License-Identifier: Apache-2.0
// The face of a backend that was compiled elsewhere: which body is taken, and what crosses between both.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "corematching/backend/linked/body.hpp"
#include "corematching/backend/linked/cpu.hpp"
#include "support/error_text.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using support::error_text;
using support::expect_parts;

/// Bodies that are never made into backends.
constexpr cpu::linked_body named_baseline{"baseline", nullptr, nullptr}, named_avx2{"avx2", nullptr, nullptr},
    named_avx512{"avx512", nullptr, nullptr}, named_amx{"amx", nullptr, nullptr},
    named_eigen{"eigen", nullptr, nullptr};
constexpr std::array<const cpu::linked_body*, 4> all{&named_amx, &named_baseline, &named_avx512, &named_avx2};

cpu_features with_avx2() {
  cpu_features has;
  has.avx2 = true;
  return has;
}
cpu_features with_avx512() {
  cpu_features has = with_avx2();
  has.avx512 = true;
  return has;
}

TEST(choice_of_a_body, is_the_best_that_the_cpu_has_whatever_their_order) {
  EXPECT_EQ(cpu::choose_body(all, {}, "").name, std::string("baseline"));
  EXPECT_EQ(cpu::choose_body(all, with_avx2(), "").name, std::string("avx2"));
  EXPECT_EQ(cpu::choose_body(all, with_avx512(), "").name, std::string("avx512"));
}

TEST(choice_of_a_body, passes_over_tiles_that_the_cpu_lacks_though_its_conversions_are_there) {
  cpu_features has = with_avx512();
  has.avx512_bf16 = true;
  EXPECT_EQ(cpu::choose_body(all, has, "").name, std::string("avx512"));
}

TEST(choice_of_a_body, follows_a_name) {
  EXPECT_EQ(cpu::choose_body(all, with_avx512(), "avx2").name, std::string("avx2"));
  EXPECT_EQ(cpu::choose_body(all, with_avx512(), "baseline").name, std::string("baseline"));
}

TEST(choice_of_a_body, takes_one_of_no_instruction_set_by_its_name_alone) {
  constexpr std::array<const cpu::linked_body*, 2> both{&named_baseline, &named_eigen};
  EXPECT_EQ(cpu::choose_body(both, with_avx2(), "").name, std::string("baseline"));
  EXPECT_EQ(cpu::choose_body(both, with_avx2(), "eigen").name, std::string("eigen"));
  constexpr std::array<const cpu::linked_body*, 1> alone{&named_eigen};
  expect_parts(error_text([&] { cpu::choose_body(alone, with_avx2(), ""); }), "eigen", "none of which");
  expect_parts(error_text([&] { cpu::choose_body(all, with_avx2(), "eigen"); }), "\"eigen\"", "baseline");
}

TEST(choice_of_a_body, refuses_names_that_nobody_knows_or_that_cannot_run) {
  const auto refusal = [](const cpu_features& has, std::string_view wanted) {
    return error_text([&] { cpu::choose_body(all, has, wanted); });
  };
  expect_parts(refusal(with_avx2(), "sse9"), "COREMATCHING_ISA", "\"sse9\"", "baseline");
  expect_parts(refusal(with_avx2(), "AVX2"), "COREMATCHING_ISA", "\"AVX2\"");
  expect_parts(refusal(with_avx2(), "avx512"), "COREMATCHING_ISA", "cannot run avx512", "avx2");
  expect_parts(refusal(with_avx2(), "neon"), "COREMATCHING_ISA", "without kernels for neon", "amx, baseline");
}

TEST(choice_of_a_body, says_so_where_none_can_run) {
  constexpr std::array<const cpu::linked_body*, 1> one{&named_avx2};
  expect_parts(error_text([&] { cpu::choose_body(one, {}, ""); }), "avx2", "none of which");
}

TEST(instruction_sets, have_names_that_read_back) {
  for (const instruction_set set : instruction_sets) EXPECT_EQ(instruction_set_named(name_of(set)), set);
  EXPECT_FALSE(instruction_set_named("scalar").has_value());
}

TEST(instruction_sets, of_this_cpu_hold_what_the_kernels_of_the_backend_need) {
  const auto be = support::make_backend(1);
  const auto set = instruction_set_named(be.describe().instruction_set);
  ASSERT_TRUE(set.has_value());
  EXPECT_TRUE(is_granted(this_cpu(), *set));
}

TEST(linked_backend_of_the_cpu, says_what_it_computes_with) {
  const auto be = support::make_backend(3);
  EXPECT_EQ(be.describe().device, "CPU");
  EXPECT_EQ(be.describe().threads, 3);
}

TEST(linked_backend_of_the_cpu, refuses_with_the_error_of_the_body) {
  expect_parts(error_text([] { support::make_backend(-1); }), "threads must lie in 0..1024", "-1");
  auto be = support::make_backend(1);
  const std::vector<float> w(40);
  const stored_view<> view{reinterpret_cast<const std::byte*>(w.data()), dtype::f32, 1, 40, 160};
  expect_parts(error_text([&] { be.convert_weight(view, dtype::q8_0, false); }), "q8_0", "multiple of 32");
}

TEST(linked_backend_of_the_cpu, keeps_working_behind_a_refusal) {
  auto be = support::make_backend(2);
  EXPECT_NE(error_text([&] { be.weight_memory(std::size_t{1} << 62); }), "");
  auto memory = be.allocate<float>(3);
  const std::array<float, 3> values{1, 2, 3};
  be.upload(memory.view(), {values.data(), 3});
  EXPECT_EQ(memory.data()[2], 3);
}

TEST(linked_backend_of_the_cpu, refuses_sizes_that_no_memory_has) {
  auto be = support::make_backend(1);
  for (const index size : {index{-1}, index{1} << 62, std::numeric_limits<index>::max()})
    expect_parts(error_text([&] { be.allocate<float>(size); }), "out of memory", std::to_string(size));
  expect_parts(error_text([&] { be.weight_memory(std::numeric_limits<std::size_t>::max()); }),
               "out of memory");
}

TEST(linked_backend_of_the_cpu, gives_memory_that_moves_and_may_be_empty) {
  auto be = support::make_backend(1);
  using buffer = decltype(be)::buffer<std::int32_t>;
  buffer none, empty = be.allocate<std::int32_t>(0), some = be.allocate<std::int32_t>(4);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(empty.size(), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(some.data()) % 64, 0u);
  some.data()[3] = 7;
  none = std::move(some);
  EXPECT_EQ(none.data()[3], 7);
  EXPECT_EQ(some.size(), 0) << "as its view would be read";
  EXPECT_EQ(be.place_vector({}).size(), 0);
  none = {};
}

TEST(linked_backend_of_the_cpu, moves) {
  auto first = support::make_backend(1);
  auto memory = first.allocate<float>(1);
  auto second = std::move(first);
  memory.data()[0] = 1;
  second.activate({memory.data(), 1, 1, 1}, activation::silu);
  EXPECT_FLOAT_EQ(memory.data()[0], 0.7310586f);
}

/// What an engine would link that has layers and selects nothing.
class layers_alone : public linked_backend<host_space> {
 public:
  explicit layers_alone(int threads) : linked_backend(support::make_backend(threads)) {}
  void overlap() = delete;
};
static_assert(backend<layers_alone> && !selecting_backend<layers_alone>);

TEST(linked_backend_of_the_cpu, refuses_to_select_where_its_body_cannot) {
  layers_alone without(1);
  linked::failure problem;
  const auto& table = linked::operations_of<layers_alone>::value;
  table.activate(&without, problem, {}, activation::silu);
  EXPECT_NO_THROW(problem.raise());
  table.overlap(&without, problem, {}, {}, {});
  expect_parts(error_text([&] { problem.raise(); }), "no core neurons");
}

/// An engine's threads, of which each region makes new ones.
struct engine {
  int threads;
  std::atomic<int> regions{0};
  explicit engine(int count) : threads(count) {}
  executor lent() {
    return {threads, this, [](void* self, void (*call)(void*, int), void* argument) {
              auto& of = *static_cast<engine*>(self);
              ++of.regions;
              std::vector<std::thread> workers;
              for (int i = 0; i < of.threads; ++i) workers.emplace_back(call, argument, i);
              for (std::thread& worker : workers) worker.join();
            }};
  }
};

TEST(linked_backend_of_the_cpu, computes_on_threads_of_the_callers) {
  const index rows = 512, cols = 512;
  std::vector<float> w(static_cast<std::size_t>(rows * cols)), x(static_cast<std::size_t>(cols)), seen(512),
      expected(512);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 17) - 8;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 5) - 2;
  const stored_view<> weights = matrix_view<const float>{w.data(), rows, cols, cols};
  const matrix_view<const float> token{x.data(), 1, cols, cols};
  engine lends(3);
  auto own = support::make_backend(3);
  auto lent = cpu::make_linked_backend(lends.lent());
  EXPECT_EQ(lent.describe().threads, 3);
  own.matmul({expected.data(), 1, rows, rows}, token, weights, {});
  lent.matmul({seen.data(), 1, rows, rows}, token, weights, {});
  EXPECT_EQ(seen, expected);
  EXPECT_GT(lends.regions, 0);
}

TEST(linked_backend_of_the_cpu, refuses_threads_of_the_callers_that_are_none) {
  expect_parts(error_text([] { cpu::make_linked_backend(executor{}); }), "on_every_thread");
  engine none(0);
  expect_parts(error_text([&] { cpu::make_linked_backend(none.lent()); }), "executor", "1..1024", "0");
  const cpu::linked_body without{"baseline", nullptr, nullptr};
  engine one(1);
  expect_parts(error_text([&] { linked_backend<host_space>(without, one.lent()); }), "baseline",
               "takes no threads");
}

TEST(linked_sets_of_neurons, are_empty_before_anything_is_chosen) {
  const linked_backend<host_space>::neuron_set none;
  EXPECT_TRUE(none.indices().empty());
  EXPECT_TRUE(none.bits().empty());
}

TEST(linked_sets_of_neurons, outlive_their_copies) {
  auto be = support::make_backend(1);
  const std::vector<std::int32_t> frequency{0, 5, 2, 9};
  auto set = be.core_neurons({frequency.data(), 4}, 0.5);
  {
    const auto copy = set;
    set = {};
    set = copy;
  }
  const auto chosen = set.indices();
  EXPECT_EQ(std::vector<std::int32_t>(chosen.begin(), chosen.end()), (std::vector<std::int32_t>{1, 3}));
}

TEST(a_failure, of_whatever_kind_is_passed_on) {
  linked::failure problem;
  linked::detail::guarded<void>(problem, [] { throw 7; });
  EXPECT_EQ(problem.what, linked::failure::kind::other);
}

TEST(a_failure, is_thrown_as_what_it_was_on_the_other_side) {
  using linked::detail::guarded;
  const auto raised = [](auto&& body) {
    linked::failure problem;
    EXPECT_EQ(guarded<int>(problem, body), 0);
    problem.raise();
  };
  EXPECT_THROW(raised([]() -> int { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_EQ(error_text([&] { raised([]() -> int { fail("no ", 7); }); }), "no 7");
  try {
    raised([]() -> int { throw std::out_of_range("far off"); });
    FAIL();
  } catch (const error&) {
    FAIL() << "not a refusal";
  } catch (const std::runtime_error& problem) {
    EXPECT_STREQ(problem.what(), "far off");
  }
}

}  // namespace
}  // namespace corematching
