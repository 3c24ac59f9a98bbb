"""System calls per request, counted by strace."""

import subprocess
import tempfile

from measure import box


def calls(pids, start_load):
    """Calls by name and request, most frequent first; `start_load` starts a load generator.

    Tracing slows the server and so changes its batches: read the counts as classes.
    """
    with tempfile.NamedTemporaryFile("r") as out:
        attach = [flag for pid in pids for flag in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out.name, *attach], stderr=subprocess.PIPE, text=True)
        # It says "Process N attached" for each, with its threads in brackets on the same line.
        for _ in pids:
            tracer.stderr.readline()
        *_, result = box.events(start_load().process)
        tracer.terminate()
        tracer.communicate()
        counted = {}
        for line in out.read().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counted[fields[-1]] = int(fields[3]) / result["answers"]
    return dict(sorted(counted.items(), key=lambda call: -call[1]))
