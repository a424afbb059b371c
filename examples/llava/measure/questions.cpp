// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>

#include "corematching/core/error.hpp"
#include "corematching/io/json.hpp"
#include "corematching/io/mapped_file.hpp"
#include "llava/measure/items.hpp"
#include "llava/option_checks.hpp"

namespace corematching::driver {
namespace {

/// The picture that a line shows, if any; its path is taken from where the file lies.
std::optional<chat::picture> picture_of(const io::json_object& line, const measure_options& o,
                                        const request& model) {
  if (!line.has("image")) return std::nullopt;
  require(model.config.llava() != nullptr, line.file(), ": image: a text model cannot look at a picture");
  // A file of that name is no standard input.
  const auto folder = o.questions.has_parent_path() ? o.questions.parent_path() : std::filesystem::path(".");
  const auto path = folder / line.string("image");
  check_picture_stays(path, o.json, "--json");
  chat::picture shown{.path = path.string()};
  try {
    static_cast<void>(read_seen_picture(o.base, model.config, shown));
  } catch (const error& problem) {
    line.contradict("image", problem.what());
  }
  return shown;
}

/// The smallest context that a configuration leaves to a question with the model's pictures.
index smallest_context(const measure_options& o, const request& model) {
  index smallest = context_of(o.base, model);
  for (const configuration& one : o.configurations) smallest = std::min(smallest, context_of(one.how, model));
  return smallest;
}

scored_item parse_question(const std::string& where, std::span<const std::byte> text,
                           const measure_options& o, request& model) {
  const io::json parsed = io::parse_json(text, where);
  const io::json_object line(parsed, where);
  for (const auto& [key, value] : parsed.items())
    require(key == "image" || key == "question" || key == "answer", where, ": the key ", io::in_quotes(key),
            " is none of image, question, answer");
  const auto shown = picture_of(line, o, model);
  const std::string question = line.string("question"), answer = line.string("answer");
  model.pictures.clear();
  if (shown) model.pictures.push_back(*shown);
  try {
    answered_question asked = first_question_with_answer(o.base, model, question, answer);
    const index tokens = asked.prompt.size() + std::ssize(asked.answer), room = smallest_context(o, model);
    require(tokens <= room, "question and answer of ", tokens, " tokens do not fit the model's context of ",
            room);
    return {where, std::move(asked.prompt), std::move(asked.answer), shown};
  } catch (const error& problem) {
    fail(where, ": ", problem.what());
  }
}

bool is_blank(std::span<const std::byte> line) {
  return std::ranges::all_of(
      line, [](std::byte b) { return b == std::byte{' '} || b == std::byte{'\t'} || b == std::byte{'\r'}; });
}

}  // namespace

std::vector<scored_item> read_questions(const measure_options& o, request& model,
                                        const std::function<void(double done, double total)>& report) {
  const io::mapped_file file = io::mapped_file::open(o.questions);
  std::vector<scored_item> items;
  auto rest = file.bytes();
  for (index number = 1; !rest.empty(); ++number) {
    const auto length = static_cast<std::size_t>(std::ranges::find(rest, std::byte{'\n'}) - rest.begin());
    const auto line = rest.first(length);
    if (!is_blank(line))
      items.push_back(
          parse_question(o.questions.string() + ": line " + std::to_string(number), line, o, model));
    rest = rest.subspan(std::min(rest.size(), length + 1));
    report(static_cast<double>(file.bytes().size() - rest.size()), static_cast<double>(file.bytes().size()));
  }
  require(!items.empty(), o.questions.string(), ": holds no question");
  return items;
}

}  // namespace corematching::driver
