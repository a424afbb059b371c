// SPDX-License-Identifier: Apache-2.0
// A program that tokenizes and does nothing else: it has neither Eigen nor SentencePiece.
#include <corematching/text/checkpoint_tokenizer.hpp>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) return 1;
  const auto tokens = corematching::text::open_tokenizer(argv[1]);
  if (!tokens) return 1;
  const auto ids = tokens->encode("What is in the picture?", corematching::text::special_tokens::are_text);
  const std::string again = tokens->decode(ids);
  std::cout << tokens->name() << ": " << ids.size() << " tokens, " << again << '\n';
  return again == "What is in the picture?" ? 0 : 1;
}
