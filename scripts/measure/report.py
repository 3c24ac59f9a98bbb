"""The table of a case."""

import statistics
import sys

from measure import box, pairs, states


# Marks figures that are of all runs.
ALL_RUNS = "*"


def print_case(case, runs, options):
    """Prints medians of the runs in one state of the machine, and ratios of runs that were made beside each other."""
    timed = [run for run in runs if "cpu_us" in run]
    rounds = len({run["round"] for run in timed})
    print(f"\n{case.name}: {case.what}; rounds: {rounds}")
    if not timed:
        return
    state = states.chosen(timed, options.state)
    print(f"  {states.words(timed, state)}")
    bases = [base for base in options.base if any(run["proxy"] == base for run in timed)]
    names = list(dict.fromkeys(run["proxy"] for run in timed))
    rows = [row(case, name, timed, state, bases) for name in sorted(names, key=options.proxies.index)]
    box.print_table(columns(case, bases), rows)
    if any(ALL_RUNS in cells[1] for cells in rows):
        print(f"  {ALL_RUNS} medians of all runs of this proxy, as none was {state}")
    for run in runs:
        if run.get("instructions"):
            print(f"  {run['proxy']}: {run['instructions']:,.0f} user instructions/request")
        if "syscalls" in run:
            print(f"  {run['proxy']}: {per_request('calls', run['syscalls'])}")
        if run.get("ring"):
            print(f"  {run['proxy']}: {per_request('ring operations', run['ring'])}")
    sys.stdout.flush()


def columns(case, bases):
    found = ["proxy", "CPU us", "user", "system"]
    for base in [*bases, *([case.base] if case.base else [])]:
        found += [f"to {base}", "95 % sure (pairs)"]
    found += ["req/s", "p50 us", "p99", "p99.9", "RSS MiB"]
    if case.idle:
        found += ["bytes/idle", "private MiB", "rate kept", "CPU without"]
    return [*found, "others %", "errors"]


def row(case, name, timed, state, bases):
    own = [run for run in timed if run["proxy"] == name]
    shown = [run for run in own if states.state(run) == state]
    runs = shown or own

    def middle(key, form):
        """The median of a value; `-` without one: h2load reports no percentiles."""
        values = [run[key] for run in runs if key in run]
        return form.format(statistics.median(values)) if values else "-"

    mark = "" if shown else ALL_RUNS
    cells = [name, *(middle(key, "{:.2f}" + mark) for key in ("cpu_us", "user_us", "system_us"))]
    for base in bases:
        cells += ["1", ""] if base == name else pairs.columns(pairs.ratios(timed, name, base))
    if case.base:
        cells += pairs.columns(pairs.ratios_to_case(timed, name))
    cells += [middle(key, "{:,.0f}") for key in ("rate", "p50_us", "p99_us", "p999_us")]
    cells += [middle("rss_mib", "{:.1f}")]
    if case.idle:
        cells += [middle("idle_bytes", "{:,.0f}"), middle("idle_private_mib", "{:.1f}")]
        cells += [middle("rate_kept", "{:.0%}"), middle("cpu_without", "{:.2f}")]
    failed = sum(run["errors"] + run["unsent"] + run["idle_lost"] for run in own)
    return [*cells, middle("others_percent", "{:.0f}"), str(failed)]


def per_request(what, counted):
    most = ", ".join(f"{name} {count:.2f}" for name, count in list(counted.items())[:8] if count >= 0.005)
    return f"{sum(counted.values()):.2f} {what}/request: {most}"
