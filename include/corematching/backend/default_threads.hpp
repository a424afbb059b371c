// SPDX-License-Identifier: Apache-2.0
// How many threads a program should work on that nobody told a number: as many as it may run on at once. That
// is the least of the processors in its affinity mask (taskset, cpusets) and of the quotas of its control
// group and of those around it (containers), which bound processor time and not processors: more threads than
// that spend their period and then all wait for the next one. What cannot be read bounds nothing.
// Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cgroup v1).
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace corematching::cpu {

// Not `detail`: huge_pages.hpp says why.
namespace quotas {

// Nothing where the file cannot be read: it then says nothing.
inline std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string text;
  std::getline(in, text, '\0');
  return text;
}

/// Cuts off what stands in front of `separator`; all of `rest` where there is none.
inline std::string_view take_until(std::string_view& rest, char separator) {
  const std::string_view taken = rest.substr(0, rest.find(separator));
  rest.remove_prefix(std::min(rest.size(), taken.size() + 1));
  return taken;
}

inline std::optional<std::int64_t> whole_number(std::string_view text) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace quotas

/// Processors that `quota` microseconds in every `period` keep busy, rounded up; nothing where the two are no
/// quota (-1 in cgroup v1, "max" in v2).
inline std::optional<int> quota_processors(std::optional<std::int64_t> quota,
                                           std::optional<std::int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  const std::int64_t whole = *quota / *period + (*quota % *period > 0 ? 1 : 0);
  return static_cast<int>(std::min<std::int64_t>(whole, std::numeric_limits<int>::max()));
}

/// The same of the text of a cpu.max: "200000 100000" or "max 100000".
inline std::optional<int> quota_in_cpu_max(std::string_view text) {
  const std::string_view quota = quotas::take_until(text, ' ');
  return quota_processors(quotas::whole_number(quota), quotas::whole_number(text));
}

/// One line of /proc/self/cgroup: "0::/a/b" for cgroup v2, "4:cpu,cpuacct:/a/b" for v1.
struct control_group {
  std::string controllers;  // empty: v2
  std::string path;         // from the root of the hierarchy
};

/// The groups that can have a quota of processor time.
inline std::vector<control_group> cpu_groups(std::string_view text) {
  std::vector<control_group> groups;
  while (!text.empty()) {
    std::string_view line = quotas::take_until(text, '\n');
    const std::string_view number = quotas::take_until(line, ':');
    const std::string_view controllers = quotas::take_until(line, ':');
    bool counts = controllers.empty() && number == "0";
    for (std::string_view rest = controllers; !rest.empty();)
      counts = quotas::take_until(rest, ',') == "cpu" || counts;
    if (counts && line.starts_with('/')) groups.push_back({std::string(controllers), std::string(line)});
  }
  return groups;
}

/// The least quota on the way from `group` to the root of the hierarchy that is mounted at `mount`. In a
/// container the path may begin outside of what is mounted; its own group is then the mount itself, where
/// every way ends.
inline std::optional<int> quota_of_group(const std::filesystem::path& mount, const control_group& group) {
  std::optional<int> least;
  std::filesystem::path inside = std::filesystem::path(group.path).relative_path().lexically_normal();
  for (;;) {
    const std::filesystem::path directory = mount / inside;
    const auto quota =
        group.controllers.empty()
            ? quota_in_cpu_max(quotas::text_of(directory / "cpu.max"))
            : quota_processors(quotas::whole_number(quotas::text_of(directory / "cpu.cfs_quota_us")),
                               quotas::whole_number(quotas::text_of(directory / "cpu.cfs_period_us")));
    if (quota && (!least || *quota < *least)) least = quota;
    if (inside.empty()) return least;
    inside = inside.parent_path();
  }
}

/// The least quota of this process's control groups, as the files under `root` say ("/": the system's own).
inline std::optional<int> control_group_quota(const std::filesystem::path& root) {
  std::optional<int> least;
  const std::filesystem::path mounts = root / "sys/fs/cgroup";
  for (const control_group& group : cpu_groups(quotas::text_of(root / "proc/self/cgroup"))) {
    // v2 beside v1 is mounted at unified; v1 at the names of its controllers, to which links lead.
    const bool v2 = group.controllers.empty();
    for (const std::filesystem::path& mount :
         {v2 ? mounts : mounts / group.controllers, v2 ? mounts / "unified" : mounts / "cpu"}) {
      const auto quota = quota_of_group(mount, group);
      if (quota && (!least || *quota < *least)) least = quota;
    }
  }
  return least;
}

/// Processors in the affinity mask of the calling thread, or all of them where the system has no such masks.
inline int allowed_processors() {
#if defined(__linux__)
  // The kernel refuses a mask that is shorter than its own.
  for (std::size_t sets = 1; sets <= 64; sets *= 2) {
    std::vector<cpu_set_t> mask(sets);
    const std::size_t bytes = sets * sizeof(cpu_set_t);
    if (::sched_getaffinity(0, bytes, mask.data()) == 0) return std::max(1, CPU_COUNT_S(bytes, mask.data()));
  }
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// At least 1. `root` is for tests.
inline int default_threads(const std::filesystem::path& root = "/") {
  const int processors = allowed_processors();
  return std::min(processors, control_group_quota(root).value_or(processors));
}

}  // namespace corematching::cpu
