// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/cpu/threads/thread_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "support/error_text.hpp"

namespace corematching::cpu {
namespace {

struct range {
  int thread;
  index first, last;
  friend bool operator==(const range&, const range&) = default;
};

/// The ranges that a pool makes of 0..count, in the order of their beginnings.
std::vector<range> ranges_of(thread_pool& pool, index count, index grain) {
  std::mutex guard;
  std::vector<range> ranges;
  pool.for_ranges(count, grain, [&](int thread, index first, index last) {
    const std::lock_guard lock(guard);
    ranges.push_back({thread, first, last});
  });
  std::ranges::sort(ranges, {}, &range::first);
  return ranges;
}

class pool_of : public testing::TestWithParam<int> {
 protected:
  thread_pool pool{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(threads, pool_of, testing::Values(1, 2, 3, 5));

TEST_P(pool_of, runs_a_region_once_on_every_thread) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(GetParam()));
  pool.on_every_thread([&](int thread) { ++runs.at(static_cast<std::size_t>(thread)); });
  for (const auto& run : runs) EXPECT_EQ(run, 1);
  EXPECT_EQ(pool.size(), GetParam());
}

TEST_P(pool_of, ranges_cover_everything_once_without_gaps) {
  for (const index count : {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 100, 1000}) {
    for (const index grain : {1, 2, 16, 64, 5000}) {
      index reached = 0;
      for (const range& r : ranges_of(pool, count, grain)) {
        ASSERT_EQ(r.first, reached);
        ASSERT_LT(r.first, r.last);
        reached = r.last;
      }
      ASSERT_EQ(reached, count) << count << " in grains of " << grain;
    }
  }
}

TEST_P(pool_of, range_bounds_are_multiples_of_the_grain) {
  for (const index count : {17, 100, 1001})
    for (const range& r : ranges_of(pool, count, 16)) {
      EXPECT_EQ(r.first % 16, 0);
      EXPECT_TRUE(r.last % 16 == 0 || r.last == count);
    }
}

TEST_P(pool_of, the_same_split_comes_back_every_time) {
  const auto first = ranges_of(pool, 1000, 16);
  for (int round = 0; round < 20; ++round) ASSERT_EQ(ranges_of(pool, 1000, 16), first);
}

TEST_P(pool_of, ranges_are_shared_evenly) {
  const auto ranges = ranges_of(pool, 16 * 8 * 3, 16);
  ASSERT_EQ(std::ssize(ranges), GetParam());
  const auto size = [](const range& r) { return r.last - r.first; };
  const auto [least, most] = std::ranges::minmax(ranges, {}, size);
  EXPECT_LE(size(most) - size(least), 16);
}

TEST_P(pool_of, every_task_is_done_once) {
  for (const index tasks : {0, 1, 2, 5, 100}) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(tasks));
    pool.for_tasks(tasks, [&](int thread, index task) {
      EXPECT_LT(thread, pool.size());
      ++done.at(static_cast<std::size_t>(task));
    });
    for (const auto& times : done) ASSERT_EQ(times, 1);
  }
}

TEST_P(pool_of, hundreds_of_regions_follow_each_other) {
  std::atomic<index> sum{0};
  for (int region = 0; region < 600; ++region)
    pool.for_ranges(10, 1, [&](int, index first, index last) { sum += last - first; });
  EXPECT_EQ(sum, 6000);
}

TEST_P(pool_of, regions_work_after_the_workers_fell_asleep) {
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(ranges_of(pool, 1000, 1).back().last, 1000);
  }
}

TEST_P(pool_of, an_exception_of_any_thread_reaches_the_caller_and_the_pool_goes_on) {
  for (int thrower = 0; thrower < GetParam(); ++thrower) {
    const auto body = [&](int thread) {
      if (thread == thrower) throw std::out_of_range("thread " + std::to_string(thread));
    };
    try {
      pool.on_every_thread(body);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::out_of_range& thrown) {
      EXPECT_EQ(thrown.what(), "thread " + std::to_string(thrower));
    }
    EXPECT_EQ(ranges_of(pool, 100, 1).back().last, 100);
  }
}

TEST_P(pool_of, one_exception_is_thrown_when_all_threads_fail) {
  for (int round = 0; round < 10; ++round) {
    EXPECT_THROW(pool.on_every_thread([](int) { throw std::runtime_error("all"); }), std::runtime_error);
    EXPECT_NO_THROW(pool.on_every_thread([](int) {}));
  }
}

TEST_P(pool_of, what_threads_wrote_is_visible_after_the_region) {
  std::vector<index> values(999);
  for (index round = 1; round < 50; ++round) {
    pool.for_ranges(std::ssize(values), 1, [&](int, index first, index last) {
      for (index i = first; i < last; ++i) values[static_cast<std::size_t>(i)] = round * i;
    });
    for (index i = 0; i < std::ssize(values); ++i) ASSERT_EQ(values[static_cast<std::size_t>(i)], round * i);
  }
}

TEST(thread_pool, zero_threads_means_as_many_as_may_run_at_once) {
  EXPECT_EQ(thread_pool(0).size(), default_threads());
}

TEST(thread_pool, refuses_a_number_of_threads_that_cannot_be_meant) {
  for (const int threads : {-1, 1025})
    support::expect_parts(support::error_text([&] { thread_pool pool(threads); }), "threads", "0..1024",
                          std::to_string(threads));
}

TEST(thread_pool, pools_come_and_go) {
  for (int round = 0; round < 50; ++round) {
    thread_pool pool(3);
    if (round % 2 == 0) continue;
    EXPECT_EQ(ranges_of(pool, 3, 1).size(), 3u);
  }
}

TEST(thread_pool, pools_of_several_callers_work_side_by_side) {
  std::vector<std::thread> callers;
  std::atomic<index> sum{0};
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&] {
      thread_pool pool(2);
      for (int round = 0; round < 100; ++round)
        pool.for_ranges(7, 1, [&](int, index first, index last) { sum += last - first; });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 3 * 100 * 7);
}

/// Threads of somebody else's that run one after the other, the last one first.
struct one_by_one {
  int threads;
  executor lent() {
    return {threads, this, [](void* self, void (*call)(void*, int), void* argument) {
              for (int i = static_cast<one_by_one*>(self)->threads; i-- > 0;) call(argument, i);
            }};
  }
};

TEST(pool_of_lent_threads, makes_the_ranges_of_its_own_threads) {
  for (const int threads : {1, 2, 5}) {
    one_by_one others{threads};
    thread_pool lent(others.lent()), own(threads);
    EXPECT_EQ(lent.size(), threads);
    EXPECT_EQ(ranges_of(lent, 1000, 16), ranges_of(own, 1000, 16));
  }
}

TEST(pool_of_lent_threads, takes_exceptions_from_them_to_the_caller) {
  one_by_one others{3};
  thread_pool pool(others.lent());
  std::vector<int> done;
  const auto body = [&](int thread) {
    if (thread == 1) throw std::out_of_range("one");
    done.push_back(thread);
  };
  EXPECT_THROW(pool.on_every_thread(body), std::out_of_range);
  EXPECT_EQ(done, (std::vector<int>{2, 0}));
  EXPECT_NO_THROW(pool.on_every_thread([](int) {}));
}

}  // namespace
}  // namespace corematching::cpu
