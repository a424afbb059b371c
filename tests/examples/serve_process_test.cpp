// SPDX-License-Identifier: Apache-2.0
// llava serve and llava batch as processes, with the demo model.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "corematching/io/json.hpp"
#include "support/driver_program.hpp"
#include "support/http_client.hpp"
#include "support/paths.hpp"
#include "support/run_program.hpp"
#include "support/running_server.hpp"
#include "support/temporary_directory.hpp"

namespace corematching {
namespace {

using namespace std::chrono_literals;

class served_model {
 public:
  /// `files`: how many the process may have open unless it asks for more, as a shell sets it; 0: as this one.
  explicit served_model(rlim_t files = 0) {
    const std::string program = support::llava_program(), model = test::driver::demo().string(),
                      log = log_.string();
    process_ = ::fork();
    if (process_ == 0) {
      const int to = ::open(log.c_str(), O_WRONLY | O_CREAT, 0600);
      ::dup2(to, STDERR_FILENO);
      rlimit open_files{};
      if (files > 0 && ::getrlimit(RLIMIT_NOFILE, &open_files) == 0) {
        open_files.rlim_cur = files;
        ::setrlimit(RLIMIT_NOFILE, &open_files);
      }
      ::execl(program.c_str(), program.c_str(), "serve", "--model", model.c_str(), "--port", "0", nullptr);
      std::_Exit(127);
    }
    const auto place = [&] { return said().find("127.0.0.1:"); };
    EXPECT_TRUE(
        support::comes_true([&] { return place() != std::string::npos && said().ends_with("\n"); }, 120s))
        << said();
    port_ = std::atoi(said().c_str() + place() + 10);
  }
  served_model(const served_model&) = delete;
  served_model& operator=(const served_model&) = delete;
  ~served_model() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    static_cast<void>(wait());
  }

  int port() const { return port_; }
  std::string said() const {
    std::ifstream in(log_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void tell(int signal) const { ::kill(process_, signal); }
  /// Whether it has ended; it can still be waited for.
  bool ended() const {
    siginfo_t what{};
    return ::waitid(P_PID, static_cast<id_t>(process_), &what, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           what.si_pid != 0;
  }
  /// The exit code, or -1 for a signal.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(process_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  support::temporary_directory directory_;
  std::filesystem::path log_ = directory_.path() / "log";
  pid_t process_ = -1;
  int port_ = 0;
};

std::string file_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A question about a picture in the request, of which nothing is left out unless `settings` say so.
std::string demo_question(const std::string& more, const std::string& settings = R"({"preset":"dense"})") {
  const auto encoded = test::run_program("/usr/bin/base64", {"-w0", test::driver::picture_path().string()});
  return R"({"model":"demo","core_matching":)" + settings +
         R"(,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,)" +
         encoded.out + R"("}},{"type":"text","text":"Describe the image."}]}])" + more + "}";
}

/// What the driver itself says about the picture, as JSON.
io::json told_alone(const std::string& preset) {
  const auto alone =
      test::run_program(support::llava_program(), {"--model", test::driver::demo().string(), "--image",
                                                   test::driver::picture_path().string(), "--prompt",
                                                   "Describe the image.", "--preset", preset, "--json"});
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  return io::json::parse(alone.out);
}

TEST(llava_serve, answers_as_the_driver_does_and_ends_when_it_is_told_to) {
  served_model server;
  support::http_client client(server.port());
  client.send(support::post_request(demo_question("")));
  const support::http_response response = client.response(true, 60s);
  ASSERT_EQ(response.status, 200) << response.body;
  const io::json answer = io::json::parse(response.body), expected = told_alone("dense");
  EXPECT_EQ(answer.at("choices").at(0).at("message").at("content"), expected.at("answer"));
  EXPECT_EQ(answer.at("usage").at("prompt_tokens"), expected.at("prompt_tokens"));
  EXPECT_EQ(answer.at("core_matching").at("pictures").at(0).at("tokens"), expected.at("image_tokens"));

  for (const auto& [settings, param] :
       {std::pair(R"({"sparsity":"tokens","reference":"anchor","anchor":5000})", "core_matching"),
        std::pair(R"({"sparsity":"tokens","match_layers":"900"})", "core_matching.match_layers")}) {
    support::http_client other(server.port());
    other.send(support::post_request(demo_question("", settings)));
    const support::http_response refused = other.response(true, 60s);
    EXPECT_EQ(refused.status, 400) << refused.body;
    EXPECT_EQ(io::json::parse(refused.body).at("error").at("param"), param) << refused.body;
  }

  support::http_client streaming(server.port());
  streaming.send(
      support::post_request(demo_question(R"(,"stream":true,"temperature":2,"max_tokens":300,"seed":1)")));
  ASSERT_TRUE(streaming.receive(60s));
  server.tell(SIGTERM);
  const support::http_response rest = streaming.response(true, 60s);
  EXPECT_TRUE(rest.body.ends_with("data: [DONE]\n\n")) << rest.body;
  EXPECT_EQ(server.wait(), 0) << server.said();
  EXPECT_TRUE(server.said().ends_with("every question that was taken has been answered\n")) << server.said();
}

TEST(llava_serve, ends_in_order_however_often_it_is_told_to) {
  served_model server;
  server.tell(SIGTERM);
  EXPECT_TRUE(support::comes_true([&] { return server.said().ends_with("has been answered\n"); }));
  EXPECT_TRUE(support::comes_true([&] {
    server.tell(SIGTERM);
    return server.ended();
  }));
  EXPECT_EQ(server.wait(), 0) << server.said();
}

TEST(llava_serve, ends_while_it_is_told_to_without_a_pause) {
  served_model server;
  EXPECT_TRUE(support::comes_true([&] {
    server.tell(SIGTERM);
    return server.ended();
  }));
  EXPECT_EQ(server.wait(), 0) << server.said();
}

TEST(llava_serve, has_files_for_all_connections_or_says_that_it_has_not) {
  const auto refused =
      test::run_program("/bin/sh", {"-c", "ulimit -n 64; exec \"$0\" \"$@\"", support::llava_program(),
                                    "serve", "--model", test::driver::demo().string(), "--port", "0"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("--max-connections: 256 take 320 open files, and the system allows 64"),
            std::string::npos)
      << refused.err;

  const served_model server(64);
  std::vector<std::unique_ptr<support::http_client>> idle;
  for (int i = 0; i < 100; ++i) idle.push_back(std::make_unique<support::http_client>(server.port()));
  support::http_client asks(server.port());
  asks.send("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(asks.response(true, 60s).status, 200);
}

TEST(llava_batch, answers_as_the_driver_does) {
  const support::temporary_directory directory;
  const auto picture = test::driver::picture_path();
  const std::string begin = R"(","messages":[{"role":"user","content":[{"type":"image","path":")",
                    end = R"("},{"type":"text","text":"Describe the image."}]}]})";
  const auto input = directory.write("in.jsonl", "{\"id\":\"sound" + begin + picture.string() + end +
                                                     "\n{\"id\":\"bad" + begin + "no.png" + end + "\n");
  const auto output = directory.path() / "out.jsonl";
  const std::vector<std::string> arguments{"batch",        "--model",      test::driver::demo().string(),
                                           "--input",      input.string(), "--output",
                                           output.string()};
  EXPECT_EQ(test::run_program(support::llava_program(), arguments).exit_code, 1) << "one of them is bad";
  const std::string answers = file_text(output);
  const io::json expected = told_alone("default");
  EXPECT_NE(answers.find(io::json_text(expected.at("answer"))), std::string::npos) << answers;
  EXPECT_NE(answers.find("no.png"), std::string::npos) << answers;
  EXPECT_EQ(test::run_program(support::llava_program(), arguments).exit_code, 0);
  EXPECT_EQ(file_text(output), answers);
}

}  // namespace
}  // namespace corematching
