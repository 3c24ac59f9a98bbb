"""The state of the machine during a run.

A virtual machine may have two speeds that alternate within seconds: while its host runs another guest on the second thread
of the same physical core, all work takes up to 1.7 times as long. So a fixed computation is timed beside each run, on the
proxy's cores. The times of all runs together tell whether there were two speeds, and how much of a run had the lower one.
"""

import math
import os
import statistics
import threading
import time

# A sample takes 0.2 to 0.4 ms of each core, so that samples take less than 1 % of it.
SAMPLE_SECONDS = 0.05
LOOPS = 5_000
# Two speeds are two groups of times whose means differ at least so much; samples at one speed differ less.
RATIO_MIN = 1.25
# A run is in a state if at most this share of its samples are not. Runs whose shares of slow samples differ no more are alike.
SHARE = 0.15
FAST, SLOW, MIXED = "fast", "slow", "mixed"


class Sampler:
    """Times the computation again and again, from `start` to `stop`."""

    def __init__(self, cores, nice):
        self.cores, self.nice, self.times = cores, nice, []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        """Returns the times in us of CPU of the sampling thread, so other processes do not count."""
        self.ended.set()
        if self.thread.ident:
            self.thread.join()
        return self.times

    def run(self):
        # On Linux, both are for this thread only.
        try:
            os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        except PermissionError:
            pass
        while True:
            for core in self.cores:
                os.sched_setaffinity(0, {core})
                self.times.append(compute())
                if self.ended.wait(SAMPLE_SECONDS / len(self.cores)):
                    return


def compute():
    """The CPU time in us of a fixed computation. Exchanges over sockets tell the speeds apart less well."""
    began = time.thread_time_ns()
    total = 0
    for number in range(LOOPS):
        total += number * number
    return (time.thread_time_ns() - began) / 1e3


def label(runs):
    """Gives each run, and the run of its base if it has one, its share of slow samples."""
    timed = [*runs, *(run["beside"] for run in runs if "beside" in run)]
    limit = boundary([sample for run in timed for sample in run["samples_us"]])
    for run in timed:
        slow = sum(limit is not None and sample > limit for sample in run["samples_us"])
        run["slow_share"] = slow / max(len(run["samples_us"]), 1)


def state(run):
    if run["slow_share"] <= SHARE:
        return FAST
    return SLOW if run["slow_share"] >= 1 - SHARE else MIXED


def chosen(runs, wanted):
    """The state whose runs the table shows: the wanted one, or that of the most runs."""
    counts = {name: sum(state(run) == name for run in runs) for name in (FAST, SLOW, MIXED)}
    return max(counts, key=counts.get) if wanted == "most" else wanted


def words(runs, shown):
    """How many of the runs were in which state."""
    counts = {name: sum(state(run) == name for run in runs) for name in (FAST, SLOW, MIXED)}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"medians of the {shown} runs ({told})"


def are_alike(run, other):
    return abs(run["slow_share"] - other["slow_share"]) <= SHARE


def boundary(times):
    """The time between the two groups that fit the times best; `None` if they are one group."""
    logs = sorted(math.log(time) for time in times)
    if len(logs) < 2:
        return None
    before = [(0.0, 0.0)]
    for value in logs:
        before.append((before[-1][0] + value, before[-1][1] + value * value))
    (whole, squares), count = before[-1], len(logs)

    def spread(cut):
        """The sum of squared distances from the means of both groups."""
        first, squares_first = before[cut]
        return squares - first * first / cut - (whole - first) ** 2 / (count - cut)

    cut = min(range(1, count), key=spread)
    apart = statistics.fmean(logs[cut:]) - statistics.fmean(logs[:cut])
    if apart < math.log(RATIO_MIN) or apart < 3 * math.sqrt(max(spread(cut), 0.0) / count):
        return None
    return math.exp((statistics.fmean(logs[cut:]) + statistics.fmean(logs[:cut])) / 2)
