// SPDX-License-Identifier: Apache-2.0
// llava: asks a LLaVA-1.5 checkpoint about a picture, or a LLaMA checkpoint about anything.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "llava/batch/command.hpp"
#include "llava/calibrate/command.hpp"
#include "llava/inspect_command.hpp"
#include "llava/line_reader.hpp"
#include "llava/measure/command.hpp"
#include "llava/measure/run.hpp"
#include "llava/pack_command.hpp"
#include "llava/run.hpp"
#include "llava/serve/command.hpp"
#include "llava/serve/make_engine.hpp"
#include "llava/sparse_hooks.hpp"

namespace {

using namespace corematching::driver;

/// The answer on standard output, piece by piece. Its line ends before anything is said on standard error, be
/// it statistics or why the rest of the answer is missing: both often go to the same place.
class answer_line {
 public:
  answer_line() = default;
  answer_line(const answer_line&) = delete;
  answer_line& operator=(const answer_line&) = delete;
  ~answer_line() {
    if (open_) end();
  }

  void add(const std::string& piece) {
    std::cout << piece << std::flush;
    open_ = open_ || !piece.empty();
  }
  void end() {
    std::cout << '\n' << std::flush;
    open_ = false;
  }

 private:
  bool open_ = false;  // something stands on it
};

void print_answer(const options& o, const run_report& report, answer_line& answer, console& terminal) {
  if (o.json) {
    print_json(report, std::cout);
    std::cout.flush();
  } else {
    if (!report.has_text)
      for (const auto id : report.generated_ids) std::cout << id << ' ';
    answer.end();
    if (report.finished == "context")
      terminal.notice("the answer ends where the model's context of " + std::to_string(report.context) +
                      " tokens does");
  }
  if (o.stats) print_statistics(report, std::cerr);
}

/// What of the picture further questions of a conversation see.
class tokens_left {
 public:
  void add(const run_report& report) {
    total_ += report.image_tokens;
    left_ += report.image_tokens_left();
  }
  std::string text() const {
    return std::to_string(left_) + " of " + std::to_string(total_) +
           " image tokens are left for further questions";
  }

 private:
  std::ptrdiff_t total_ = 0, left_ = 0;
};

int run_program(int argc, char** argv) {
  console terminal;
  if (argc > 1 && argv[1] == std::string_view("pack")) {
    run_pack(argc - 1, argv + 1, terminal);
    return 0;
  }
  if (argc > 1 && argv[1] == std::string_view("inspect")) return run_inspect(argc - 1, argv + 1) ? 0 : 1;
  if (argc > 1 && argv[1] == std::string_view("measure")) {
    run_measure(argc - 1, argv + 1, terminal, measure);
    return 0;
  }
  if (argc > 1 && argv[1] == std::string_view("calibrate")) {
    run_calibrate(argc - 1, argv + 1, terminal, measure);
    return 0;
  }
  if (argc > 1 && argv[1] == std::string_view("serve")) {
    run_serve(argc - 1, argv + 1, terminal, make_engine);
    return 0;
  }
  if (argc > 1 && argv[1] == std::string_view("batch"))
    return run_batch(argc - 1, argv + 1, terminal, make_engine) ? 0 : 1;
  const options o = parse_options(argc, argv);
  answer_line answer;
  line_reader lines;
  tokens_left seen;
  const bool all_asked =
      run(o, terminal,
          {.next_question = [&] { return o.chat && std::cout ? lines.next() : std::nullopt; },
           .on_text =
               [&](const std::string& piece) {
                 if (!o.json) answer.add(piece);
               },
           .on_answer =
               [&](const run_report& report) {
                 print_answer(o, report, answer, terminal);
                 seen.add(report);
                 if (o.chat && drops_tokens(o)) terminal.notice(seen.text());
               }});
  if (std::cout && !std::cerr) {
    // Heard only where the cause has passed; the exit code remains.
    std::cerr.clear();
    std::cerr << "llava: the statistics could not be written to standard error\n";
    return 1;
  }
  return all_asked ? 0 : 1;
}

/// The exit code; what went wrong is on standard error.
int run_and_explain(int argc, char** argv) {
  try {
    return run_program(argc, argv);
  } catch (const usage_exit& exit) {
    return exit.code;
  } catch (const std::bad_alloc&) {
    std::cerr << "llava: out of memory\n";
  } catch (const std::exception& problem) {
    std::cerr << "llava: " << problem.what() << '\n';
  }
  return 1;
}

/// The first file that is opened takes the place of a standard stream that is closed, and what the stream is
/// told is then written into it. What is put there instead can be neither read nor written, as nothing can.
void keep_places_of_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0)
      static_cast<void>(::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY));
}

}  // namespace

int main(int argc, char** argv) {
  // A file that may not grow is an error of writing it, not an end of the program.
  std::signal(SIGXFSZ, SIG_IGN);
  keep_places_of_closed_streams();
  const int code = run_and_explain(argc, argv);
  if (std::cout.flush()) return code;
  std::cerr << "llava: what was to be said could not be written to standard output\n";
  return code == 0 ? 1 : code;
}
