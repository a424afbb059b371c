// SPDX-License-Identifier: Apache-2.0
#include "corematching/backend/default_threads.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/temporary_directory.hpp"

namespace corematching::cpu {
namespace {

using maybe = std::optional<int>;

/// The files of a system that bound processor time.
class bounded_system {
 public:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root() / name).parent_path());
    directory_.write(name, text);
  }
  std::filesystem::path root() const { return directory_.path(); }
  maybe quota() const { return control_group_quota(root()); }

 private:
  support::temporary_directory directory_;
};

TEST(default_threads, a_quota_is_rounded_up_to_whole_processors) {
  EXPECT_EQ(quota_in_cpu_max("200000 100000\n"), maybe(2));
  EXPECT_EQ(quota_in_cpu_max("200001 100000\n"), maybe(3));
  EXPECT_EQ(quota_in_cpu_max("1000 100000"), maybe(1));
  EXPECT_EQ(quota_in_cpu_max("150000 50000\n"), maybe(3));
  EXPECT_EQ(quota_in_cpu_max("9223372036854775807 1\n"), maybe(2147483647));
}

TEST(default_threads, what_is_no_quota_bounds_nothing) {
  for (const char* text : {"", "\n", "max 100000\n", "max", "200000", "200000 ", "200000 0", "0 100000",
                           "-1 100000", "2e5 100000", "200000 100000 1", "200000  100000",
                           "99999999999999999999 1", "200000 -100000", "max max"})
    EXPECT_EQ(quota_in_cpu_max(text), std::nullopt) << "\"" << text << "\"";
  EXPECT_EQ(quota_processors(-1, 100000), std::nullopt) << "no quota in cgroup v1";
  EXPECT_EQ(quota_processors(std::nullopt, 100000), std::nullopt);
}

TEST(default_threads, finds_the_groups_that_can_have_a_quota) {
  const auto groups =
      cpu_groups("12:memory:/m\n4:cpuacct,cpu:/a:b\n3:cpuset:/s\n1:name=systemd:/\n0::/x/y\n");
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].controllers, "cpuacct,cpu");
  EXPECT_EQ(groups[0].path, "/a:b");
  EXPECT_EQ(groups[1].controllers, "");
  EXPECT_EQ(groups[1].path, "/x/y");
  for (const char* text : {"", "\n", ":::", "0:", "0::", "0::relative", "7::/named", "cpu", "4:cpu"})
    EXPECT_TRUE(cpu_groups(text).empty()) << "\"" << text << "\"";
}

TEST(default_threads, the_least_quota_from_a_group_to_the_root_counts) {
  const bounded_system system;
  system.write("proc/self/cgroup", "0::/outer/inner\n");
  EXPECT_EQ(system.quota(), std::nullopt);
  system.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
  EXPECT_EQ(system.quota(), std::nullopt);
  system.write("sys/fs/cgroup/outer/cpu.max", "250000 100000\n");
  EXPECT_EQ(system.quota(), maybe(3)) << "of the group around it";
  system.write("sys/fs/cgroup/outer/inner/cpu.max", "600000 100000\n");
  EXPECT_EQ(system.quota(), maybe(3));
  system.write("sys/fs/cgroup/outer/inner/cpu.max", "200000 100000\n");
  EXPECT_EQ(system.quota(), maybe(2)) << "its own";
  system.write("sys/fs/cgroup/other/cpu.max", "100000 100000\n");
  EXPECT_EQ(system.quota(), maybe(2)) << "another group's is not ours";
  system.write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(system.quota(), maybe(1)) << "that of the root, which is the container's own group inside of one";
}

TEST(default_threads, a_path_from_outside_of_a_container_ends_at_what_is_mounted) {
  const bounded_system system;
  system.write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  for (const char* path : {"/", "/docker/4f1c", "/../outside"}) {
    system.write("proc/self/cgroup", std::string("0::") + path + "\n");
    EXPECT_EQ(system.quota(), maybe(1)) << path;
  }
}

TEST(default_threads, quotas_of_the_first_version_count_too) {
  const bounded_system system;
  system.write("proc/self/cgroup", "5:memory:/\n4:cpu,cpuacct:/a/b\n0::/\n");
  const auto set = [&](const std::string& group, const std::string& quota) {
    system.write("sys/fs/cgroup/cpu,cpuacct" + group + "/cpu.cfs_quota_us", quota);
    system.write("sys/fs/cgroup/cpu,cpuacct" + group + "/cpu.cfs_period_us", "100000\n");
  };
  set("", "-1\n");
  set("/a/b", "-1\n");
  EXPECT_EQ(system.quota(), std::nullopt);
  set("/a", "350000\n");
  EXPECT_EQ(system.quota(), maybe(4));
  set("/a/b", "50000\n");
  EXPECT_EQ(system.quota(), maybe(1));
  system.write("proc/self/cgroup", "4:cpuacct,cpu:/\n");
  system.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  system.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(system.quota(), maybe(2)) << "by the name of the link";
}

TEST(default_threads, files_that_are_none_are_passed_over) {
  const bounded_system system;
  EXPECT_EQ(system.quota(), std::nullopt) << "no such files";
  system.write("proc/self/cgroup", "0::/a\n\nnonsense\n0::/" + std::string(100'000, 'x') + "\n");
  std::filesystem::create_directories(system.root() / "sys/fs/cgroup/a/cpu.max");
  EXPECT_EQ(system.quota(), std::nullopt) << "a directory where a file should be";
  EXPECT_EQ(default_threads(system.root()), allowed_processors());
}

TEST(default_threads, are_no_more_than_the_quota_and_the_processors) {
  const bounded_system system;
  system.write("proc/self/cgroup", "0::/\n");
  system.write("sys/fs/cgroup/cpu.max", "1 100000\n");
  EXPECT_EQ(default_threads(system.root()), 1);
  system.write("sys/fs/cgroup/cpu.max", "100000000000 100000\n");
  EXPECT_EQ(default_threads(system.root()), allowed_processors());
}

#if defined(__linux__)
TEST(default_threads, follow_the_affinity_mask) {
  const support::temporary_directory no_quota;
  int in_mask = 0, allowed = 0, threads = 0;
  // A mask is a thread's: that of the test stays.
  std::thread([&] {
    cpu_set_t mask;
    ASSERT_EQ(::sched_getaffinity(0, sizeof mask, &mask), 0);
    in_mask = CPU_COUNT(&mask);
    allowed = allowed_processors();
    int first = 0;
    while (!CPU_ISSET(first, &mask)) ++first;
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(::sched_setaffinity(0, sizeof mask, &mask), 0);
    threads = default_threads(no_quota.path());
  }).join();
  EXPECT_EQ(allowed, in_mask);
  EXPECT_EQ(threads, 1);
}
#endif

}  // namespace
}  // namespace corematching::cpu
