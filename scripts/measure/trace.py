"""Counts system calls per request with strace, and ring operations with perf."""

import signal
import subprocess
import tempfile

from measure import box


def calls(pids, load):
    """Returns calls per request by name, most frequent first. `load` runs a load and returns the number of its answers.

    Tracing slows the server and changes its batches, so the counts are only approximate.
    """
    with tempfile.NamedTemporaryFile("r") as out:
        attach = [flag for pid in pids for flag in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out.name, *attach], stderr=subprocess.PIPE, text=True)
        # strace prints "Process N attached" for each process, with its threads in brackets on the same line.
        for _ in pids:
            tracer.stderr.readline()
        answers = load()
        tracer.terminate()
        tracer.communicate()
        counted = {}
        for line in out.read().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counted[fields[-1]] = int(fields[3]) / answers
    return dict(sorted(counted.items(), key=lambda call: -call[1]))


# The io_uring operations that a proxy may use, with their numbers in the kernel's interface.
RING_OPERATIONS = {
    "poll_add": 6,
    "sendmsg": 9,
    "recvmsg": 10,
    "timeout": 11,
    "accept": 13,
    "async_cancel": 14,
    "connect": 16,
    "close": 19,
    "read": 22,
    "write": 23,
    "send": 26,
    "recv": 27,
    "splice": 30,
    "shutdown": 34,
}


def ring_operations(pids, load):
    """Returns io_uring operations per request by name. Empty without perf and without a ring."""
    if box.missing("perf"):
        return {}
    command = ["perf", "stat", "-x", ",", "-p", ",".join(map(str, pids))]
    for number in RING_OPERATIONS.values():
        command += ["-e", "io_uring:io_uring_submit_req", "--filter", f"opcode=={number}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    answers = load()
    tracer.send_signal(signal.SIGINT)
    said = tracer.communicate()[1]
    counts = [line.split(",")[0] for line in said.splitlines() if "io_uring_submit_req" in line]
    named = zip(RING_OPERATIONS, counts)
    counted = {name: int(count) / answers for name, count in named if count.isdigit() and int(count)}
    return dict(sorted(counted.items(), key=lambda operation: -operation[1]))
