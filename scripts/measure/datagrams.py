#!/usr/bin/env python3
"""Sends datagrams to a port and counts the answers; with --echo it is the endpoint. Prints what `pace` prints."""

import argparse
import json
import select
import socket
import time

FLOWS = 64
BYTES = 100
WARM_UP_SECONDS = 0.5
# After so long a flow that has lost a datagram sends the next.
LOST_SECONDS = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--echo", type=int, metavar="PORT")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    if options.echo:
        echo(options.echo)
    load(options.port, options.seconds)


def echo(port):
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", port))
    while True:
        datagram, sender = endpoint.recvfrom(65_535)
        endpoint.sendto(datagram, sender)


def load(port, seconds):
    poll, flows = select.epoll(), {}
    for _ in range(FLOWS):
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        flow.connect(("127.0.0.1", port))
        poll.register(flow, select.EPOLLIN)
        flows[flow.fileno()] = [flow, time.monotonic()]
        flow.send(bytes(BYTES))
    run(poll, flows, WARM_UP_SECONDS)
    print(json.dumps({"event": "start"}), flush=True)
    began = time.monotonic()
    times, lost = run(poll, flows, seconds)
    took = time.monotonic() - began
    print(json.dumps({"event": "end"}), flush=True)
    times.sort()
    share = lambda part: times[int(len(times) * part)] * 1e6 if times else 0  # noqa: E731
    result = {"requests": len(times), "answers": len(times), "rate": len(times) / took, "errors": 0, "unsent": 0, "idle_lost": lost}
    result |= {"p50_us": share(0.5), "p99_us": share(0.99), "p999_us": share(0.999)}
    print(json.dumps({"event": "result", **result}), flush=True)


def run(poll, flows, seconds):
    """Answers every datagram with the next, and returns the times that answers took, and how many were lost."""
    times, lost, end = [], 0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        ready = poll.poll(LOST_SECONDS)
        for number, _ in ready:
            flow = flows[number]
            try:
                flow[0].recv(65_535)
                now = time.monotonic()
                times.append(now - flow[1])
                flow[1] = now
                flow[0].send(bytes(BYTES))
            except OSError:
                lost += 1
        if not ready:
            for flow in flows.values():
                if now - flow[1] > LOST_SECONDS:
                    lost += 1
                    flow[1] = now
                    flow[0].send(bytes(BYTES))
    return times, lost


if __name__ == "__main__":
    main()
