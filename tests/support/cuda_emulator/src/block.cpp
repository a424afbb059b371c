// SPDX-License-Identifier: Apache-2.0
// Threads run in turn, each to its next barrier or collective call. A fiber begins thread after thread, so
// that a kernel without barriers switches fibers once per block; a thread that waits keeps its fiber.
#include "block.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>

#include "symbols.hpp"

uint3 threadIdx{}, blockIdx{};
dim3 blockDim, gridDim;

namespace cuda_emulator::detail {

namespace {

const char* name_of(collective operation) {
  switch (operation) {
    case collective::sync: return "__syncwarp";
    case collective::vote: return "a vote";
    case collective::shuffle: return "a shuffle";
  }
  return "?";
}

std::string text_of(const where& at) {
  return std::string(at.file_name()) + ":" + std::to_string(at.line());
}

bool same_place(const where& a, const where& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

block_scheduler& scheduler() {
  static block_scheduler& one = *new block_scheduler;
  return one;
}

block_votes meet_in_block(bool vote, const where& at) {
  if (!scheduler().running()) throw kernel_error("__syncthreads outside of a kernel at " + text_of(at));
  return scheduler().meet_in_block(vote, at);
}
std::uint64_t meet_in_warp(collective operation, unsigned mask, std::uint64_t value, int source,
                           const where& at) {
  if (!scheduler().running())
    throw kernel_error(name_of(operation) + (" outside of a kernel at " + text_of(at)));
  return scheduler().meet_in_warp(operation, mask, value, source, at);
}
int lane() {
  return scheduler().lane();
}
void wait_for_dependencies() {
  if (!scheduler().running()) throw kernel_error("cudaGridDependencySynchronize outside of a kernel");
  scheduler().wait_for_dependencies();
}

void block_scheduler::prepare(const launch_description& launch, uint3 index,
                              const std::function<void()>& thread) {
  const std::uint32_t count = launch.block.x * launch.block.y * launch.block.z;
  launch_ = &launch;
  body_ = &thread;
  threads_.assign(count, {});
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0u);
  if (launch.order == thread_order::descending) std::reverse(order_.begin(), order_.end());
  if (launch.order == thread_order::shuffled) {
    std::mt19937 random(launch.seed + index.x);
    std::shuffle(order_.begin(), order_.end(), random);
  }
  blockDim = launch.block;
  gridDim = launch.grid;
  blockIdx = index;
  waiting_lanes_.fill(0);
  finished_ = 0;
  error_ = nullptr;
}

void block_scheduler::run(const launch_description& launch, uint3 index,
                          const std::function<void()>& thread) {
  prepare(launch, index, thread);
  running_ = true;
  while (finished_ < threads_.size() && error_ == nullptr) {
    moved_ = false;
    pass();
    if (moved_ || open_barrier()) continue;
    error_ = std::make_exception_ptr(kernel_error(stuck()));
  }
  if (error_ != nullptr) abandon();
  running_ = false;
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

void block_scheduler::pass() {
  for (cursor_ = 0; cursor_ < order_.size() && error_ == nullptr;) {
    const std::uint32_t thread = order_[cursor_++];
    const progress stands = threads_[thread].stands;
    if (stands == progress::not_begun || stands == progress::ready) resume(thread);
  }
}

void block_scheduler::resume(std::uint32_t thread) {
  thread_state& state = threads_[thread];
  moved_ = true;
  if (state.runs_on == nullptr) {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<fiber>([this](fiber& on) { work(on); }));
      idle_.push_back(fibers_.back().get());
    }
    state.runs_on = idle_.back();
    idle_.pop_back();
  }
  enter(thread);
  state.runs_on->resume();
}

void block_scheduler::enter(std::uint32_t thread) {
  const dim3& block = launch_->block;
  current_ = thread;
  threadIdx = {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

void block_scheduler::work(fiber& on) {
  for (;;) {
    run_thread();
    const bool goes_on = error_ == nullptr && !abandoning_ && cursor_ < order_.size() &&
                         threads_[order_[cursor_]].stands == progress::not_begun;
    if (goes_on) {
      enter(order_[cursor_++]);
      threads_[current_].runs_on = &on;
    } else {
      idle_.push_back(&on);
      on.suspend();
    }
  }
}

void block_scheduler::run_thread() {
  try {
    (*body_)();
    if (launch_->early && !threads_[current_].waited)
      throw kernel_error(position(current_) + " has returned without waiting for the kernels before");
  } catch (const abandoned&) {
  } catch (...) {
    if (error_ == nullptr) error_ = std::current_exception();
  }
  threads_[current_].stands = progress::finished;
  threads_[current_].runs_on = nullptr;
  ++finished_;
}

void block_scheduler::park(progress stands) {
  const std::uint32_t self = current_;
  threads_[self].stands = stands;
  threads_[self].runs_on->suspend();
  if (abandoning_) throw abandoned{};
}

/// Unwinds the threads that wait, so that their fibers can be used again.
void block_scheduler::abandon() {
  abandoning_ = true;
  for (std::uint32_t thread = 0; thread < threads_.size(); ++thread)
    if (threads_[thread].runs_on != nullptr) resume(thread);
  abandoning_ = false;
}

block_votes block_scheduler::meet_in_block(bool vote, const where& at) {
  thread_state& state = threads_[current_];
  state.vote = vote;
  state.at = at;
  park(progress::at_barrier);
  return votes_;
}

bool block_scheduler::open_barrier() {
  const thread_state& first = threads_.front();
  block_votes votes{1, 0, 0};
  for (const thread_state& state : threads_) {
    if (state.stands != progress::at_barrier || !same_place(state.at, first.at)) return false;
    votes.all &= state.vote;
    votes.any |= state.vote;
    votes.count += state.vote;
  }
  votes_ = votes;
  for (thread_state& state : threads_) state.stands = progress::ready;
  return true;
}

std::uint64_t block_scheduler::meet_in_warp(collective operation, unsigned mask, std::uint64_t value,
                                            int source, const where& at) {
  const std::uint32_t first = current_ / 32 * 32;
  thread_state& state = threads_[current_];
  state.operation = operation;
  state.mask = mask;
  state.source = source;
  state.value = value;
  state.at = at;
  if ((mask >> lane() & 1u) == 0)
    throw kernel_error(position(current_) + " calls " + name_of(operation) + " at " + text_of(at) +
                       " with a mask that lacks its own lane");
  state.stands = progress::at_collective;
  waiting_lanes_[first / 32] |= 1u << lane();
  if (complete(first, mask)) {
    exchange(first, mask);
  } else {
    park(progress::at_collective);
  }
  return state.result;
}

/// Whether every lane that `mask` names has come with this mask to one operation. Lanes past the block's end
/// do not exist, and are not waited for.
bool block_scheduler::complete(std::uint32_t first, unsigned mask) const {
  const std::size_t lanes = std::min<std::size_t>(threads_.size() - first, 32);
  const thread_state& self = threads_[current_];
  mask &= 0xffffffffu >> (32 - lanes);
  if ((waiting_lanes_[first / 32] & mask) != mask) return false;  // most calls end here
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const thread_state& other = threads_[first + static_cast<std::uint32_t>(std::countr_zero(rest))];
    if (other.mask != self.mask || other.operation != self.operation) return false;
  }
  return true;
}

void block_scheduler::exchange(std::uint32_t first, unsigned mask) {
  waiting_lanes_[first / 32] &= ~mask;
  std::uint64_t votes = 0;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int bit = std::countr_zero(rest);
    const std::size_t thread = first + static_cast<std::uint32_t>(bit);
    if (thread < threads_.size() && threads_[thread].value == 1) votes |= std::uint64_t{1} << bit;
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const std::size_t thread = first + static_cast<std::uint32_t>(std::countr_zero(rest));
    if (thread >= threads_.size()) return;
    thread_state& state = threads_[thread];
    state.stands = progress::ready;
    if (state.operation == collective::vote) {
      state.result = votes;
      continue;
    }
    const std::size_t source = first + static_cast<std::uint32_t>(state.source);
    const bool brings = state.source >= 0 && state.source < 32 && (mask >> state.source & 1u) != 0;
    state.result = brings && source < threads_.size() ? threads_[source].value : ~std::uint64_t{0};
  }
}

std::string block_scheduler::position(std::uint32_t thread) const {
  const dim3& block = launch_->block;
  std::ostringstream text;
  text << symbol_name(launch_->kernel) << ": thread (" << thread % block.x << ", "
       << thread / block.x % block.y << ", " << thread / (block.x * block.y) << ") of block (" << blockIdx.x
       << ", " << blockIdx.y << ", " << blockIdx.z << ")";
  return text.str();
}

/// Where the threads wait for each other: one thread of each place.
std::string block_scheduler::stuck() const {
  std::ostringstream text;
  text << "the threads of a block wait for each other forever";
  std::vector<std::string> seen;
  for (std::uint32_t thread = 0; thread < threads_.size(); ++thread) {
    const thread_state& state = threads_[thread];
    std::ostringstream what;
    if (state.stands == progress::finished) {
      what << " has returned";
    } else if (state.stands == progress::at_barrier) {
      what << " waits in __syncthreads at " << text_of(state.at);
    } else {
      what << " waits in " << name_of(state.operation) << " of the lanes 0x" << std::hex << state.mask
           << " at " << text_of(state.at);
    }
    if (std::find(seen.begin(), seen.end(), what.str()) != seen.end()) continue;
    seen.push_back(what.str());
    text << "\n  " << position(thread) << what.str();
  }
  return text.str();
}

}  // namespace cuda_emulator::detail
