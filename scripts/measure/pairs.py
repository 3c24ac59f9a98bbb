"""Ratios of runs that were made beside each other, while the machine was in the same state."""

import random
import statistics

from measure import states

# So many draws give the ends of the interval to about a hundredth of its width.
DRAWS = 2_000
# The least and the greatest of five values have the median between them in 94 of 100 cases; of fewer, more seldom.
PAIRS_MIN = 5


def ratios(runs, name, base):
    """CPU per request of a proxy to that of the base in the same round, for each round in which both ran in one state."""
    beside = {run["round"]: run for run in runs if run["proxy"] == base}
    found = [(run, beside.get(run["round"])) for run in runs if run["proxy"] == name]
    return [run["cpu_us"] / other["cpu_us"] for run, other in found if other and states.are_alike(run, other)]


def ratios_to_case(runs, name):
    """The same to the base of the case, which the same proxy ran directly before or after."""
    found = [(run, run["beside"]) for run in runs if run["proxy"] == name]
    return [run["cpu_us"] / other["cpu_us"] for run, other in found if states.are_alike(run, other)]


def confidence(ratios):
    """The interval that has the median of such pairs in 95 of 100 cases, by drawing the pairs again."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return medians[DRAWS // 40], medians[-DRAWS // 40 - 1]


def columns(ratios):
    """The median, and its interval with the number of pairs, for a table."""
    if not ratios:
        return ["-", "no pairs"]
    count = len(ratios)
    low, high = confidence(ratios)
    sure = f"{low:.2f} to {high:.2f} ({count})" if count >= PAIRS_MIN else f"too few pairs ({count})"
    return [f"{statistics.median(ratios):.2f}", sure]


def order(names, base, round_number):
    """The order of the proxies in a round: the base in the middle, and all others in turn before it, behind it and further off."""
    others = [name for name in names if name != base]
    if len(others) == len(names) or not others:
        return list(names) if round_number % 2 == 0 else list(reversed(names))
    turn, is_reversed = round_number % len(others), round_number // len(others) % 2
    ordered = others[turn:] + others[:turn]
    ordered.insert(len(others) // 2, base)
    return ordered[::-1] if is_reversed else ordered
