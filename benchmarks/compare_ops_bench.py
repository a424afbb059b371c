#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs two programs of ops_bench in turns and prints the second one's speed over the first one's: by operation the
median of each, and the geometric mean of each group.

    compare_ops_bench.py build/release/benchmarks/ops_bench_included build/release/benchmarks/ops_bench
        [--rounds 5] [--filter REGEX] [--min-time SECONDS]
"""

import argparse
import json
import math
import os
import statistics
import subprocess

GROUPS = {
    "products": ("matmul", "gated_up", "gated_up_each", "weighted_rows", "weighted_rows_each", "coarse_matmul",
                 "finish_gated_up"),
    "attention": ("attention",),
    "pointwise": ("rms_norm", "layer_norm", "rotary", "add", "activate", "store_rows"),
    "selection": ("activated_neurons", "count_core_neurons", "core_neurons", "overlap", "top_k"),
}


def group_of(name):
    operation = name.split("/")[0]
    for group, operations in GROUPS.items():
        if operation in operations:
            return group
    raise SystemExit(f"compare_ops_bench.py: {operation} of ops_bench belongs to no group; add it to GROUPS")


def times(program, name, min_time):
    """Seconds of one run of the benchmark `name`."""
    done = subprocess.run([program, f"--benchmark_filter=^{name}$", "--benchmark_format=json",
                           f"--benchmark_min_time={min_time}"],
                          check=True, capture_output=True, text=True, env=os.environ)
    return json.loads(done.stdout)["benchmarks"][0]["real_time"]


def names_of(program, pattern):
    listed = subprocess.run([program, "--benchmark_list_tests", f"--benchmark_filter={pattern}"], check=True,
                            capture_output=True, text=True)
    return listed.stdout.split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filter", default=".")
    parser.add_argument("--min-time", type=float, default=0.2)
    o = parser.parse_args()
    ratios = {group: [] for group in GROUPS}
    groups = {name: group_of(name) for name in names_of(o.first, o.filter)}
    for name, group in groups.items():
        seconds = ([], [])
        for turn in range(o.rounds):
            for side in ((0, 1) if turn % 2 == 0 else (1, 0)):
                seconds[side].append(times((o.first, o.second)[side], name, o.min_time))
        ratio = statistics.median(seconds[0]) / statistics.median(seconds[1])
        ratios[group].append(ratio)
        print(f"{name:55} {ratio:.3f}", flush=True)
    print()
    for group, values in ratios.items():
        if values:
            mean = math.exp(statistics.fmean(map(math.log, values)))
            print(f"{group:12} {len(values):4} operations  geometric mean {mean:.3f}  least {min(values):.3f}")


if __name__ == "__main__":
    main()
