// SPDX-License-Identifier: Apache-2.0
// A thread for each client, up to a number; made when they are needed first.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace corematching::driver {

class client_threads {
 public:
  using job = std::function<void()>;

  /// `make_room` ends another client's job and says whether there was one to end, `refuse` runs a job so that
  /// it does not last; `on_wait` is called every now and then, and `on_end` while the last jobs are waited
  /// for.
  struct callbacks {
    std::function<bool()> make_room;
    std::function<void(const job&)> refuse;
    std::function<void()> on_wait;
    std::function<void()> on_end;
  };
  /// Of `most` threads at a time.
  client_threads(std::size_t most, callbacks call) : most_(most), call_(std::move(call)) {}

  /// Has a thread do `work`.
  void add(job work) {
    call_.on_wait();
    std::unique_lock lock(mutex_);
    const bool has_free = free_ > waiting_.size();
    if (!has_free && threads_.size() >= most_) {
      lock.unlock();
      if (!call_.make_room()) return call_.refuse(work);
      lock.lock();
    }
    waiting_.push_back(std::move(work));
    if (!has_free && threads_.size() < most_) add_thread();
    lock.unlock();
    changed_.notify_one();
  }
  /// Returns when all jobs are done.
  void finish() {
    constexpr std::chrono::milliseconds now_and_then{50};
    std::unique_lock lock(mutex_);
    has_ended_ = true;
    changed_.notify_all();
    while (running_ > 0) {
      changed_.wait_for(lock, now_and_then);
      lock.unlock();
      call_.on_end();
      lock.lock();
    }
    lock.unlock();
    for (std::thread& one : threads_) one.join();
  }
  /// No client came for a while.
  void stay_idle() { call_.on_wait(); }

 private:
  /// Where the system gives no more threads, those that there are have to do.
  void add_thread() {
    try {
      threads_.emplace_back([this] { run(); });
      ++running_;
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;
      most_ = threads_.size();
    }
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++free_;
      changed_.wait(lock, [&] { return !waiting_.empty() || has_ended_; });
      --free_;
      if (waiting_.empty()) break;
      const job work = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
    --running_;
    changed_.notify_all();
  }

  std::size_t most_;
  callbacks call_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<job> waiting_;
  std::vector<std::thread> threads_;
  std::size_t free_ = 0, running_ = 0;
  bool has_ended_ = false;
};

}  // namespace corematching::driver
