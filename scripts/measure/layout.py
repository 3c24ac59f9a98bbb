"""Which cores the proxy runs on, and which the load and the endpoints."""

import os
from dataclasses import dataclass


class TooFewCores(Exception):
    """The machine cannot keep the proxy and the load apart."""


@dataclass(frozen=True)
class Layout:
    """The cores of the proxy, one for each worker, and those of everything else."""

    proxy: tuple
    load: tuple

    @property
    def workers(self):
        return len(self.proxy)

    @property
    def load_threads(self):
        """Threads of the load generator, and as many of the endpoint."""
        return max(1, len(self.load) // 2)

    def words(self):
        return f"proxy on {span(self.proxy)}, load and endpoint on {span(self.load)}"


def choose(workers, overlap=False, available=None):
    """The first cores are the proxy's, the others the load's. With `overlap`, all cores are the load's if none is left."""
    cores = sorted(os.sched_getaffinity(0) if available is None else available)
    proxy, load = tuple(cores[:workers]), tuple(cores[workers:])
    if len(proxy) < workers or not (load or overlap):
        raise TooFewCores(
            f"{workers} for the proxy and at least one for load and endpoint are needed, and this machine has {len(cores)}"
        )
    return Layout(proxy, load or tuple(cores))


def span(cores):
    """Cores in words: `core 0`, `cores 0-3`, `cores 0,2`."""
    first, last = cores[0], cores[-1]
    if first == last:
        return f"core {first}"
    if list(cores) == list(range(first, last + 1)):
        return f"cores {first}-{last}"
    return "cores " + ",".join(map(str, cores))
