// SPDX-License-Identifier: Apache-2.0
// The threads of one block at a time, and where each of them stands.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda_emulator/collectives.hpp"
#include "cuda_emulator/emulator.hpp"
#include "fiber.hpp"

namespace cuda_emulator::detail {

enum class progress : std::uint8_t { not_begun, ready, at_barrier, at_collective, finished };

struct thread_state {
  progress stands = progress::not_begun;
  collective operation = collective::sync;
  unsigned mask = 0;
  int source = 0;
  bool vote = false;
  bool waited = false;  // for the kernels before
  std::uint64_t value = 0, result = 0;
  where at;
  fiber* runs_on = nullptr;
};

struct launch_description {
  const void* kernel = nullptr;
  dim3 grid, block;
  thread_order order = thread_order::ascending;
  std::uint32_t seed = 0;
  bool early = false;  // may be started before the kernels queued before it are done
};

class block_scheduler {
 public:
  /// Runs every thread of the block `index` to its end; throws kernel_error, or what a thread has thrown.
  void run(const launch_description& launch, uint3 index, const std::function<void()>& thread);

  block_votes meet_in_block(bool vote, const where& at);
  std::uint64_t meet_in_warp(collective operation, unsigned mask, std::uint64_t value, int source,
                             const where& at);
  void wait_for_dependencies() { threads_[current_].waited = true; }
  int lane() const { return static_cast<int>(current_ % 32); }
  bool running() const { return running_; }

 private:
  struct abandoned {};

  void prepare(const launch_description& launch, uint3 index, const std::function<void()>& thread);
  void pass();
  void resume(std::uint32_t thread);
  void work(fiber& on);
  void run_thread();
  void park(progress stands);
  void enter(std::uint32_t thread);
  bool open_barrier();
  bool complete(std::uint32_t first, unsigned mask) const;
  void exchange(std::uint32_t first, unsigned mask);
  void abandon();
  std::string position(std::uint32_t thread) const;
  std::string stuck() const;

  const std::function<void()>* body_ = nullptr;
  const launch_description* launch_ = nullptr;
  std::vector<thread_state> threads_;
  std::vector<std::uint32_t> order_;
  std::array<unsigned, 32> waiting_lanes_{};  // by warp: those at a collective call
  std::size_t cursor_ = 0;
  std::uint32_t current_ = 0, finished_ = 0;
  bool moved_ = false, running_ = false, abandoning_ = false;
  block_votes votes_;
  std::exception_ptr error_;
  std::vector<std::unique_ptr<fiber>> fibers_;
  std::vector<fiber*> idle_;
};

/// The one scheduler. It is never destroyed: its fibers wait for work until the process ends.
block_scheduler& scheduler();

}  // namespace cuda_emulator::detail
