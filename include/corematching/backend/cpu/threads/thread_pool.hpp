// SPDX-License-Identifier: Apache-2.0
// A fixed set of threads that all work on one parallel region at a time: its own, of which the calling thread
// is thread 0, so that a pool of one has no workers and no synchronisation; or somebody else's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "corematching/backend/default_threads.hpp"
#include "corematching/core/error.hpp"
#include "corematching/core/executor.hpp"
#include "corematching/core/view.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace corematching::cpu {

class thread_pool {
 public:
  /// `threads` >= 1; 0 takes as many as may run at once (default_threads.hpp).
  explicit thread_pool(int threads = 0) {
    require(threads >= 0 && threads <= most_threads, "threads must lie in 0..", most_threads, ", not ",
            threads);
    const int at_once = default_threads();
    if (threads == 0) threads = at_once;
    size_ = threads;
    if (threads > at_once) spins_ = 0;
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    try {
      for (int thread = 1; thread < threads; ++thread)
        workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error& problem) {
      const auto started = workers_.size();
      stop();
      fail("cannot start ", threads, " threads: the system allows ", started + 1, " (", problem.what(), ")");
    } catch (...) {  // no memory for one more
      stop();
      throw;
    }
  }

  /// Starts no threads: regions run on those of `owned`.
  explicit thread_pool(const executor& owned) : size_(owned.threads), given_(owned) {
    require(owned.threads >= 1 && owned.threads <= most_threads, "the threads of an executor must lie in 1..",
            most_threads, ", not ", owned.threads);
    require(owned.on_every_thread != nullptr, "an executor has no on_every_thread");
  }

  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  ~thread_pool() { stop(); }

  int size() const { return size_; }

  /// Runs body(thread) once on every thread and returns when all are done. The first exception that any of
  /// them throws is thrown here. Not reentrant.
  template <class Body>
  void on_every_thread(Body&& body) {
    if (size_ == 1) return body(0);
    region_ = {
        [](void* context, int thread) { (*static_cast<std::remove_reference_t<Body>*>(context))(thread); },
        const_cast<void*>(static_cast<const void*>(&body))};
    if (given_.on_every_thread != nullptr) {
      given_.on_every_thread(
          given_.owner, [](void* self, int thread) { static_cast<thread_pool*>(self)->run_region(thread); },
          this);
    } else {
      run_on_workers();
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  struct range {
    index first = 0, last = 0;
    bool empty() const { return first >= last; }
  };
  /// What thread `thread` works on where 0..count is split into one contiguous range per thread, bounds being
  /// multiples of `grain`. The split depends on `count`, `grain` and the number of threads alone.
  range range_of(int thread, index count, index grain) const {
    const index grains = (count + grain - 1) / grain;
    const index threads = std::min<index>(size(), grains);
    if (thread >= threads) return {};
    return {grains * thread / threads * grain, std::min(count, grains * (thread + 1) / threads * grain)};
  }

  /// Splits 0..count so: body(thread, first, last).
  template <class Body>
  void for_ranges(index count, index grain, Body&& body) {
    if (size() == 1 || count <= grain) {
      if (count > 0) body(0, index{0}, count);
      return;
    }
    on_every_thread([&](int thread) {
      const range own = range_of(thread, count, grain);
      if (!own.empty()) body(thread, own.first, own.last);
    });
  }

  /// body(thread, task) for every task in 0..tasks, each taken by whichever thread is free: for tasks of
  /// uneven cost whose results do not depend on the thread.
  template <class Body>
  void for_tasks(index tasks, Body&& body) {
    std::atomic<index> next{0};
    on_every_thread([&](int thread) {
      for (index task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) body(thread, task);
    });
  }

 private:
  void run_on_workers() {
    running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    run_region(0);
    await([this] { return running_.load(std::memory_order_acquire) == 0; }, running_);
  }

  // An empty region sends the workers home.
  void stop() {
    region_ = {};
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  struct region {
    void (*call)(void*, int) = nullptr;
    void* context = nullptr;
  };

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Regions follow each other within microseconds during decode, so a short spin avoids most futex calls.
  // With more threads than may run at once a spin only keeps from work whoever is waited for.
  template <class Done, class Value>
  void await(Done&& done, std::atomic<Value>& value) const {
    for (int spin = 0; spin < spins_; ++spin) {
      if (done()) return;
      pause();
    }
    while (!done()) {
      const Value seen = value.load(std::memory_order_acquire);
      if (!done()) value.wait(seen, std::memory_order_acquire);
    }
  }

  void run_region(int thread) {
    try {
      region_.call(region_.context, thread);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void work(int thread) {
    unsigned seen = 0;
    for (;;) {
      await([&] { return generation_.load(std::memory_order_acquire) != seen; }, generation_);
      seen = generation_.load(std::memory_order_acquire);
      if (region_.call == nullptr) return;
      run_region(thread);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
  }

  static constexpr int most_threads = 1024;

  int size_ = 1;
  executor given_;
  int spins_ = 4000;
  region region_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> running_{0};
  std::exception_ptr failure_;
  std::mutex failure_mutex_;
  std::vector<std::thread> workers_;
};

}  // namespace corematching::cpu
