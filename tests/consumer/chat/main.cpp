// SPDX-License-Identifier: Apache-2.0
// A program that renders conversations for a tokenizer of its own, as the README shows it.
#include <corematching/chat/render.hpp>
#include <corematching/chat/template_file.hpp>

#include <iostream>
#include <string>
#include <vector>

namespace chat = corematching::chat;

int main(int argc, char** argv) {
  if (argc != 2) return 1;
  const auto [format, notice] = chat::choose_format(argv[1], /*is_llava=*/true);
  if (!format) return 1;
  std::vector<chat::message> messages{{chat::role::user, {"What is this?"}}};
  std::vector<chat::segment> prompt = chat::render(*format, messages);
  std::vector<chat::message> next{{chat::role::user, {"And that?"}}};
  const auto more = chat::render_further(*format, chat::answer_end::missing, next);
  prompt.insert(prompt.end(), more.begin(), more.end());
  std::string text;
  for (const chat::segment& each : prompt) text += each.text;
  std::cout << notice << '\n' << text << '\n';
  const auto first = text.find("What is this?"), second = text.find("And that?");
  return first < second && second != std::string::npos ? 0 : 1;
}
