"""The environment of measurements: a private network, pinned processes, CPU accounting."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PRIVATE = "WEIR_MEASURE_PRIVATE"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
OPEN_FILES = 200_000
ANSWER_SECONDS_MAX = 10
# A proxy takes long to drain under a slow tracer.
STOP_SECONDS_MAX = 40


def enter_private_network():
    """Restarts this script in network and process namespaces of its own.

    They need no clean-up, because the kernel removes them with the script.
    """
    if os.environ.get(PRIVATE):
        prepare_network()
        return
    if os.geteuid() != 0:
        sys.exit("a private network requires root; or use --no-namespace, which is noisier")
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, PRIVATE: "1"})


def prepare_network():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    settings = {
        # The pacing of bbr would use timers, although loopback has no bottleneck.
        "ipv4/tcp_congestion_control": "reno",
        "ipv4/ip_local_port_range": "10000 65535",
        "ipv4/tcp_tw_reuse": "1",
        "core/somaxconn": "65535",
        "ipv4/tcp_max_syn_backlog": "65535",
    }
    for name, value in settings.items():
        Path("/proc/sys/net", name).write_text(value)


def raise_open_files():
    """Raises the limit of open files for this process and its children. Returns the new limit."""
    for limit in (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Pinned:
    """A child process on some cores, in its own process group. `stop` ends it."""

    def __init__(self, command, cores, nice, log, stdout=subprocess.DEVNULL):
        def before_exec():
            os.sched_setaffinity(0, cores)
            try:
                os.nice(nice)
            except PermissionError:
                pass

        self.log = log
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=log,
            start_new_session=True,
            preexec_fn=before_exec,
        )

    def pids(self):
        """The process and all its descendants."""
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
                self.process.wait(timeout=STOP_SECONDS_MAX)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            return


class Account:
    """CPU time of all threads of some processes, and of everything on their cores."""

    def __init__(self, pids, cores):
        self.pids, self.cores = pids, cores
        self.user, self.system, self.precise = 0.0, 0.0, 0.0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self.user += int(fields[11]) / TICKS_PER_SECOND
            self.system += int(fields[12]) / TICKS_PER_SECOND
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    self.precise += int((task / "schedstat").read_text().split()[0]) / 1e9
                except (OSError, IndexError):
                    continue
        self.busy = sum(core_busy_seconds(core) for core in cores)
        self.at = time.monotonic()

    def until_now(self):
        """User and system seconds of the processes since the start, and the share of the cores that others used."""
        now = Account(self.pids, self.cores)
        user, system = now.user - self.user, now.system - self.system
        ticked = user + system
        # Ticks take 10 ms. The scheduler's clock is exact, but does not count threads that have ended.
        total = max(now.precise - self.precise, ticked - 2 / TICKS_PER_SECOND)
        share = user / ticked if ticked else 0.0
        others = max(0.0, now.busy - self.busy - total) / max((now.at - self.at) * len(self.cores), 1e-9)
        return {"user": total * share, "system": total * (1 - share), "others": others}


def core_busy_seconds(core):
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
    return 0.0


def memory(pids):
    """Resident and private bytes of the processes."""
    total = {"Rss:": 0, "Private_Clean:": 0, "Private_Dirty:": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, value, *_ = line.split()
            if name in total:
                total[name] += int(value) * 1024
    return {"rss": total["Rss:"], "private": total["Private_Clean:"] + total["Private_Dirty:"]}


def wait_until_answers(process, port):
    """Sends requests until one gets a 200. Raises an error if the process ends or the time runs out."""
    import http.client

    end = time.monotonic() + ANSWER_SECONDS_MAX
    last = "no response"
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"ended with code {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/b/1")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
            last = f"status {status}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        time.sleep(0.02)
    raise RuntimeError(last)


def events(process):
    """Yields the JSON lines of a load generator."""
    for line in process.stdout:
        yield json.loads(line)


def h2load_events(process, warm_up, seconds):
    """Yields the same events for h2load, which prints only at its end. They delimit the middle of its measured time."""
    margin = 0.1
    time.sleep(warm_up + margin)
    yield {"event": "start"}
    began = time.monotonic()
    time.sleep(seconds - 2 * margin)
    accounted = time.monotonic() - began
    yield {"event": "end"}
    said = process.stdout.read().decode()
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", said).group(1))
    done, failed = map(int, re.search(r"(\d+) succeeded, (\d+) failed", said).groups())
    result = {"requests": rate * accounted, "answers": done, "rate": rate, "errors": failed}
    yield {"event": "result", **result, "unsent": 0, "idle_lost": 0}


def missing(*tools):
    return [tool for tool in tools if not shutil.which(tool)]


def build():
    """Builds the measuring programs."""
    subprocess.run(["cargo", "build", "-q", "--profile", "quick", "-p", "weir-benches"], check=True, cwd=ROOT)


def tool(name):
    return str(ROOT / "target/quick" / name)


def print_noise():
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: the load average is {load:.1f}, so other processes use this machine: rely on CPU per request and not on times")


def print_table(columns, rows):
    """Prints a table with the first column aligned left and the others right."""
    widths = [max(len(line[at]) for line in [columns, *rows]) for at in range(len(columns))]
    for line in [columns, *rows]:
        cells = "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:]))
        print("  " + line[0].ljust(widths[0]) + cells)
    sys.stdout.flush()
