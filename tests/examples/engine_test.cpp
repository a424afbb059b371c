// SPDX-License-Identifier: Apache-2.0
// The engine that answers many questions at once: everybody gets the answer that he gets alone.
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "corematching/io/mapped_file.hpp"
#include "corematching/text/utf8.hpp"
#include "llava/console.hpp"
#include "llava/options.hpp"
#include "llava/pack_command.hpp"
#include "llava/serve/answering.hpp"
#include "llava/serve/engine_limits.hpp"
#include "llava/serve/make_engine.hpp"
#include "support/counted_allocations.hpp"
#include "support/driver_program.hpp"
#include "support/error_text.hpp"
#include "support/paths.hpp"
#include "support/temporary_directory.hpp"
#include "support/test_backend.hpp"

namespace corematching {
namespace {

using namespace std::chrono_literals;
using driver::engine_limits;
using driver::question;
using driver::refusal;

/// What a stream told until it ended.
struct heard {
  bool begun = false;
  std::string text;
  std::string bytes;  // of the tokens
  std::vector<std::int32_t> ids;
  std::vector<double> logprobs;
  std::optional<driver::answer_complete> complete;
  std::optional<driver::answer_failed> failed;
};

heard listen(driver::answer_stream& stream) {
  heard all;
  while (!all.complete && !all.failed) {
    auto event = stream.next(20s);
    if (!event) {
      ADD_FAILURE() << "nothing came";
      break;
    }
    if (std::holds_alternative<driver::answer_begun>(*event)) all.begun = true;
    if (auto* piece = std::get_if<driver::answer_piece>(&*event)) {
      all.text += piece->text;
      for (const driver::said_token& said : piece->tokens) {
        all.ids.push_back(said.token.id);
        if (said.token.is_in_text) all.bytes += said.token.text;
        all.logprobs.push_back(said.token.logprob);
      }
    }
    if (auto* last = std::get_if<driver::answer_complete>(&*event)) all.complete = std::move(*last);
    if (auto* last = std::get_if<driver::answer_failed>(&*event)) all.failed = std::move(*last);
  }
  return all;
}

driver::options options_of_model(const std::string& settings = "", std::optional<dtype> weights = {}) {
  driver::options base;
  base.model = test::driver::demo();
  base.max_new_tokens = 24;
  base.weights.type = weights;
  base.messages = "asked";  // presets that drop image tokens do so where there may be some
  return settings.empty() ? base : driver::parse_sparsity(settings, base);
}

chat::picture scene(int number) {
  const auto file =
      io::mapped_file::open(test::driver::demo() / "pictures" / ("scene_" + std::to_string(number) + ".png"));
  return {.bytes = {file.bytes().begin(), file.bytes().end()}};
}

/// A question about a picture (0: none), whose tokens' probabilities are wanted.
question asked(const std::string& text, int picture, const driver::options& how) {
  question made{{{chat::role::user, {}}}, how, true, 2};
  if (picture > 0) made.messages.back().content.emplace_back(scene(picture));
  made.messages.back().content.emplace_back(text);
  return made;
}

std::unique_ptr<driver::answering> make_engine(const driver::options& o, const engine_limits& limits = {}) {
  driver::console terminal;
  return driver::make_engine_on_host(support::make_backend(2), o, limits, terminal);
}

/// What `questions` are answered, all asked at once, by an engine with these limits.
std::vector<heard> answers(const std::vector<question>& questions, const driver::options& o,
                           const engine_limits& limits, driver::answering_state* state = nullptr) {
  const auto engine = make_engine(o, limits);
  std::vector<std::shared_ptr<driver::answer_stream>> streams;
  for (const question& each : questions) streams.push_back(engine->ask(each));
  std::vector<heard> all;
  for (const auto& stream : streams) all.push_back(listen(*stream));
  engine->drain();
  if (state != nullptr) *state = engine->state();
  return all;
}

std::uint64_t steps_of(const std::vector<heard>& all) {
  std::uint64_t steps = 0;
  for (const heard& each : all)
    if (each.complete) steps += static_cast<std::uint64_t>(each.complete->report.decode_steps);
  return steps;
}

/// The same, answered in company: asked again where a busy machine let one answer end before the next began.
std::vector<heard> answers_in_company(const std::vector<question>& questions, const driver::options& o,
                                      driver::answering_state& state) {
  std::vector<heard> all;
  for (int attempt = 0; attempt < 20; ++attempt) {
    all = answers(questions, o, {.layers_at_once = 1}, &state);
    if (state.steps < steps_of(all)) return all;
  }
  ADD_FAILURE() << "no steps were taken together";
  return all;
}

void expect_same(const heard& a, const heard& b) {
  ASSERT_TRUE(a.complete && b.complete) << (a.failed ? a.failed->text : b.failed ? b.failed->text : "");
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.logprobs, b.logprobs);
  EXPECT_EQ(a.complete->report.generated_ids, b.complete->report.generated_ids);
  ASSERT_EQ(a.complete->report.matches.size(), b.complete->report.matches.size());
  for (std::size_t i = 0; i < a.complete->report.matches.size(); ++i)
    EXPECT_EQ(a.complete->report.matches[i].kept_positions, b.complete->report.matches[i].kept_positions);
}

std::vector<question> various_questions(const driver::options& how) {
  std::vector<question> all{asked("Describe the image.", 1, how),
                            asked("How many objects are there?", 2, how),
                            asked("Describe the image.", 3, how)};
  question two = asked("Describe the second image.", 1, how);
  two.messages.back().content.emplace(two.messages.back().content.begin() + 1, scene(2));
  all.push_back(std::move(two));
  return all;
}

struct setting {
  std::string name, options;
  std::optional<dtype> weights = {};
};

class engine_settings : public testing::TestWithParam<setting> {};
INSTANTIATE_TEST_SUITE_P(
    of, engine_settings,
    testing::Values(setting{"dense", "--preset dense"}, setting{"paper", "--preset paper"},
                    setting{"sentence", "--sparsity neurons --beta 0.2"},
                    setting{"magnitude", "--sparsity neurons --statistic magnitude"},
                    setting{"gate", "--sparsity neurons --neurons gate"},
                    setting{"predicted", "--sparsity neurons --neurons predicted", dtype::f16_planes},
                    setting{"tokens", "--sparsity tokens --criterion rarity --keep ratio:0.5"},
                    setting{"thinned", "--sparsity none --thin duplication --thin-keep ratio:0.3"}),
    [](const auto& of) { return of.param.name; });

TEST_P(engine_settings, give_everybody_the_bits_that_he_gets_alone) {
  const driver::options o = options_of_model("", GetParam().weights);
  const driver::options how = driver::parse_sparsity(GetParam().options, o);
  const std::vector<question> questions = various_questions(how);
  driver::answering_state state;
  const std::vector<heard> together = answers_in_company(questions, o, state);
  for (std::size_t i = 0; i < questions.size(); ++i) {
    SCOPED_TRACE(i);
    const heard alone = answers({questions[i]}, o, {.running = 1}).front();
    expect_same(together[i], alone);
    if (HasFatalFailure()) return;
    EXPECT_TRUE(alone.begun);
    EXPECT_EQ(alone.ids, alone.complete->report.generated_ids);
    EXPECT_GT(alone.ids.size(), 2u);
    EXPECT_EQ(alone.complete->picture_positions.size(), i == 3 ? 2u : 1u);
  }
  EXPECT_EQ(state.answered, questions.size());
  EXPECT_EQ(state.running, 0);
  EXPECT_EQ(state.cache_bytes, 0u);
  EXPECT_EQ(state.pictures, 5u);
  EXPECT_EQ(state.cached_pictures, 2u);
}

TEST(engine, answers_under_different_settings_at_once) {
  const driver::options o = options_of_model("", dtype::f16_planes);
  std::vector<question> questions;
  for (const char* how : {"--preset dense", "--preset paper", "--sparsity neurons --neurons gate",
                          "--sparsity neurons --neurons predicted"})
    questions.push_back(asked("Describe the image.", 1, driver::parse_sparsity(how, o)));
  driver::answering_state state;
  const std::vector<heard> together = answers_in_company(questions, o, state);
  for (std::size_t i = 0; i < questions.size(); ++i)
    expect_same(together[i], answers({questions[i]}, o, {.running = 1}).front());
}

TEST(engine, gives_eight_the_ids_that_they_get_alone) {
  const driver::options o = options_of_model("--preset dense");
  std::vector<question> questions;
  for (int i = 0; i < 8; ++i) questions.push_back(asked("Describe the image.", 1 + i % 3, o));
  driver::answering_state state;
  const std::vector<heard> together = answers_in_company(questions, o, state);
  for (std::size_t i = 0; i < 3; ++i) {
    const heard alone = answers({questions[i]}, o, {.running = 1}).front();
    for (std::size_t j = i; j < together.size(); j += 3) {
      ASSERT_EQ(together[j].ids, alone.ids);
      for (std::size_t t = 0; t < alone.logprobs.size(); ++t)
        EXPECT_NEAR(together[j].logprobs[t], alone.logprobs[t], 1e-4);
    }
  }
}

TEST(engine, draws_as_the_seed_says_whoever_else_is_there) {
  driver::options o = options_of_model("--preset dense");
  o.sampling.temperature = 8;
  std::vector<question> questions;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    o.sampling.seed = seed;
    questions.push_back(asked("Describe the image.", 1, o));
  }
  driver::answering_state state;
  const std::vector<heard> together = answers_in_company(questions, o, state);
  for (std::size_t i = 0; i < questions.size(); ++i)
    expect_same(together[i], answers({questions[i]}, o, {.running = 1}).front());
  EXPECT_NE(together[0].ids, together[1].ids);
}

/// Text in which each byte that is in no character is a U+FFFD.
std::string repaired_bytewise(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const text::utf8_front front = text::front_of(bytes);
    const bool is_whole = front.state == text::utf8_state::whole;
    text += is_whole ? bytes.substr(0, front.length) : text::replacement_character;
    bytes.remove_prefix(is_whole ? front.length : 1);
  }
  return text;
}

TEST(engine, tells_each_tokens_own_bytes) {
  driver::options o = options_of_model("--preset dense");
  o.sampling.temperature = 8;  // a third of what is drawn are single bytes
  std::vector<question> all;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    o.sampling.seed = seed;
    all.push_back(asked("Describe the image.", 0, o));
  }
  bool is_broken = false;
  for (const heard& each : answers(all, o, {})) {
    ASSERT_TRUE(each.complete);
    EXPECT_EQ(repaired_bytewise(each.bytes), each.text);
    is_broken = is_broken || each.bytes != each.text;
  }
  EXPECT_TRUE(is_broken) << "no byte was drawn that needs others";
}

TEST(engine, takes_over_what_was_read_of_the_same_text_and_the_same_picture) {
  const driver::options o = options_of_model("--sparsity tokens --criterion rarity --keep ratio:0.5");
  const auto engine = make_engine(o);
  const heard first = listen(*engine->ask(asked("Describe the image.", 1, o))),
              other = listen(*engine->ask(asked("How many objects are there?", 1, o))),
              again = listen(*engine->ask(asked("Describe the image.", 1, o)));
  expect_same(first, again);
  EXPECT_EQ(first.complete->cached_tokens, 0);
  const index before_picture = first.complete->picture_positions.front();
  EXPECT_GT(before_picture, 0);
  EXPECT_EQ(other.complete->cached_tokens, before_picture);
  EXPECT_EQ(again.complete->cached_tokens, before_picture);
  const heard without =
      listen(*make_engine(o, {.picture_bytes = 0})->ask(asked("Describe the image.", 1, o)));
  expect_same(without, first);
  // Whole, the prompt is computed in other chunks: the same up to rounding.
  const heard whole = listen(*make_engine(o, {.prefix_bytes = 0})->ask(asked("Describe the image.", 1, o)));
  EXPECT_EQ(whole.ids, first.ids);
  EXPECT_EQ(whole.complete->report.matches.front().kept_image_positions,
            first.complete->report.matches.front().kept_image_positions);
  engine->drain();
  EXPECT_EQ(engine->state().cached_pictures, 2u);
  EXPECT_EQ(engine->state().cached_prompt_tokens, 2 * static_cast<std::uint64_t>(before_picture));
}

TEST(engine, reads_text_again_for_whoever_counts_over_it) {
  const driver::options o = options_of_model("--preset paper");
  const auto engine = make_engine(o);
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(listen(*engine->ask(asked("Describe the image.", 1, o))).complete->cached_tokens, 0);
}

TEST(engine, ends_a_cancelled_answer_and_no_other) {
  const driver::options o = options_of_model("--preset dense");
  const auto engine = make_engine(o, {.running = 2});
  std::vector<std::shared_ptr<driver::answer_stream>> streams;
  for (int i = 0; i < 5; ++i) streams.push_back(engine->ask(asked("Describe the image.", 1 + i % 3, o)));
  streams[1]->cancel();
  streams[4]->cancel();
  const heard first = listen(*streams[0]), third = listen(*streams[2]), fourth = listen(*streams[3]);
  engine->drain();
  const driver::answering_state state = engine->state();
  EXPECT_EQ(state.answered, 3u);
  EXPECT_EQ(state.cancelled, 2u);
  EXPECT_EQ(state.cache_bytes, 0u);
  expect_same(first, fourth);
  EXPECT_TRUE(third.complete);
}

TEST(engine, lets_wait_what_does_not_fit_and_refuses_what_never_can) {
  const driver::options o = options_of_model("--preset dense");
  const question short_one = asked("Describe the image.", 1, o);
  // Of one question: rows of keys and values of its prompt and its answer.
  const heard alone = answers({short_one}, o, {.running = 1}).front();
  ASSERT_TRUE(alone.complete);
  const driver::run_report& report = alone.complete->report;
  const std::uint64_t row =
      report.kv_bytes / static_cast<std::uint64_t>(report.prompt_tokens + report.decode_steps);
  const std::uint64_t needed = row * static_cast<std::uint64_t>(report.prompt_tokens + o.max_new_tokens);

  driver::answering_state state;
  const auto apart = answers({short_one, short_one, short_one}, o, {.cache_bytes = needed}, &state);
  for (const heard& each : apart) expect_same(each, alone);
  EXPECT_EQ(state.steps, 3 * static_cast<std::uint64_t>(report.decode_steps));

  const auto engine = make_engine(o, {.cache_bytes = needed - 1});
  try {
    engine->ask(short_one);
    FAIL() << "it was taken";
  } catch (const driver::question_refused& problem) {
    EXPECT_EQ(problem.why(), refusal::too_large);
    support::expect_parts(problem.what(), std::to_string(needed), std::to_string(needed - 1));
  }
}

TEST(engine, answers_one_after_the_other_under_a_limit_of_memory) {
  const support::temporary_directory directory;
  const std::string packed = (directory.path() / "packed").string(), model = test::driver::demo().string();
  driver::console terminal;
  const char* const words[] = {"pack", "--model",  model.c_str(), "--weights",
                               "q8_0", "--output", packed.c_str()};
  driver::run_pack(static_cast<int>(std::size(words)), words, terminal);
  driver::options o = options_of_model("--preset paper", dtype::q8_0);
  o.weights.packed = packed;
  const std::vector<question> questions = various_questions(o);
  const std::vector<heard> resident = answers(questions, o, {.running = 1});
  o.weights.memory_limit = 1500 * 1024;
  driver::answering_state state;
  const std::vector<heard> limited = answers(questions, o, {.running = 4}, &state);
  for (std::size_t i = 0; i < questions.size(); ++i) expect_same(limited[i], resident[i]);
  EXPECT_EQ(state.steps, steps_of(limited));
}

/// Why `engine` refuses what it is asked.
std::pair<refusal, std::string> refused(driver::answering& engine, question what) {
  try {
    engine.ask(std::move(what));
  } catch (const driver::question_refused& problem) {
    return {problem.why(), problem.what()};
  }
  return {refusal::failed, "nothing"};
}

TEST(engine, refuses_at_once_what_cannot_be_asked) {
  driver::options o = options_of_model("--preset dense");
  const auto engine = make_engine(o, {.pictures = 1, .picture_pixels = 100 * 100});
  const auto expect = [&](question what, refusal why, const std::string& part) {
    const auto [given, text] = refused(*engine, std::move(what));
    EXPECT_EQ(given, why) << text;
    support::expect_parts(text, part);
  };
  question by_path = asked("What?", 0, o);
  by_path.messages.back().content.emplace_back(chat::picture{.path = "/etc/passwd"});
  expect(by_path, refusal::bad_question, "bytes are missing");
  question no_picture = asked("What?", 0, o);
  no_picture.messages.back().content.emplace_back(chat::picture{.bytes = {std::byte{1}, std::byte{2}}});
  expect(no_picture, refusal::bad_question, "picture 1");
  expect(asked("What?", 1, o), refusal::too_large, "pixels");
  const auto small = make_engine(o, {.pictures = 1});
  question two = asked("What?", 1, o);
  two.messages.back().content.emplace_back(scene(2));
  EXPECT_EQ(refused(*small, two).first, refusal::too_large);
  std::string words;
  for (int i = 0; i < 2000; ++i) words += "many objects ";
  expect(asked(words, 0, o), refusal::too_large, "context");
  expect(asked(std::string(1024 * 129, ' '), 0, o), refusal::too_large, "a text of 132096 bytes");
  question not_decoded = asked(words, 0, o);
  not_decoded.messages.back().content.emplace_back(chat::picture{.bytes = {std::byte{1}, std::byte{2}}});
  expect(not_decoded, refusal::too_large, "context");
  o.max_new_tokens = 0;
  expect(asked("What?", 0, o), refusal::bad_question, "0 tokens");
  expect({}, refusal::bad_question, "last message");
}

TEST(engine, refuses_what_the_queue_has_no_room_for) {
  const driver::options o = options_of_model("--preset dense");
  const auto engine = make_engine(o, {.running = 1, .waiting = 1});
  std::vector<std::shared_ptr<driver::answer_stream>> taken;
  int too_busy = 0;
  for (int i = 0; i < 50; ++i) try {
      taken.push_back(engine->ask(asked("Describe the image.", 0, o)));
    } catch (const driver::question_refused& problem) {
      EXPECT_EQ(problem.why(), refusal::too_busy);
      ++too_busy;
    }
  EXPECT_GT(too_busy, 0);
  for (const auto& stream : taken) EXPECT_TRUE(listen(*stream).complete);
  engine->drain();
  EXPECT_EQ(refused(*engine, asked("Describe the image.", 0, o)).first, refusal::too_busy);
}

TEST(engine, loses_one_answer_where_one_fails) {
  const driver::options o = options_of_model("--preset dense");
  // Core neurons are to be counted over the image tokens of a question without any.
  const driver::options wrong = driver::parse_sparsity("--sparsity neurons --count-over image", o);
  driver::answering_state state;
  const auto all = answers({asked("Describe the image.", 1, o), asked("Describe the image.", 0, wrong),
                            asked("Describe the image.", 2, o)},
                           o, {.layers_at_once = 1}, &state);
  ASSERT_TRUE(all[1].failed);
  EXPECT_EQ(all[1].failed->why, refusal::bad_settings);
  support::expect_parts(all[1].failed->text, "image tokens");
  EXPECT_TRUE(all[0].complete && all[2].complete);
  EXPECT_EQ(state.failed, 1u);
  EXPECT_EQ(state.cache_bytes, 0u);
}

TEST(answer_stream, ends_where_no_memory_is_left_to_say_why) {
  driver::answer_stream stream;
  stream.push(driver::answer_begun{});
  support::fail_allocation(0);
  stream.fail("a reason that is too long to be kept within the string");
  support::fail_allocation(-1);
  const heard all = listen(stream);
  EXPECT_TRUE(all.begun);
  ASSERT_TRUE(all.failed);
  EXPECT_EQ(all.failed->why, refusal::failed);
  support::expect_parts(all.failed->text, "memory");
}

TEST(engine, counts_an_answer_before_it_is_told) {
  driver::options o = options_of_model("--preset dense");
  o.max_new_tokens = 1;
  const auto engine = make_engine(o, {});
  for (std::uint64_t i = 1; i <= 20; ++i) {
    EXPECT_TRUE(listen(*engine->ask(asked("What?", 0, o))).complete);
    EXPECT_EQ(engine->state().answered, i);
  }
}

TEST(engine, names_its_model_whatever_way_leads_there) {
  driver::options o = options_of_model("--preset dense");
  const std::string name = o.model.filename().string();
  for (const char* more : {"", ".", "../"}) {
    o.model = test::driver::demo() / more;
    if (std::string(more) == "../") o.model /= name;
    EXPECT_EQ(make_engine(o, {})->model().name, name) << o.model;
  }
}

TEST(engine, fails_what_is_not_answered_when_it_goes) {
  const driver::options o = options_of_model("--preset dense");
  std::vector<std::shared_ptr<driver::answer_stream>> streams;
  {
    const auto engine = make_engine(o, {.running = 1});
    for (int i = 0; i < 6; ++i) streams.push_back(engine->ask(asked("Describe the image.", 1, o)));
  }
  EXPECT_TRUE(listen(*streams.back()).failed);
}

}  // namespace
}  // namespace corematching
