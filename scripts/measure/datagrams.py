#!/usr/bin/env python3
"""Sends datagrams to a port and counts the answers; with --echo it is the endpoint. Prints what `pace` prints."""

import argparse
import json
import select
import socket
import struct
import time

FLOWS = 64
BYTES = 100
# With --train, each flow sends so many datagrams of this size with one call, and the endpoint sends them back so, as QUIC
# libraries do (UDP GSO and GRO).
TRAIN_DATAGRAMS, TRAIN_BYTES = 16, 1_200
UDP_SEGMENT, UDP_GRO = 103, 104
WARM_UP_SECONDS = 0.5
# After so long a flow that has lost a datagram sends the next.
LOST_SECONDS = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--echo", type=int, metavar="PORT")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--train", action="store_true", help="several datagrams at once")
    options = parser.parse_args()
    if options.echo:
        echo(options.echo)
    load(options.port, options.seconds, options.train)


def echo(port):
    """Sends datagrams back; those that arrive together go together."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", port))
    endpoint.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    while True:
        datagrams, control, _, sender = endpoint.recvmsg(65_535, 64)
        length = [struct.unpack("i", data)[0] for level, kind, data in control if (level, kind) == (socket.SOL_UDP, UDP_GRO)]
        split = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", length[0]))] if length else []
        endpoint.sendmsg([datagrams], split, 0, sender)


def load(port, seconds, train):
    poll, flows = select.epoll(), {}
    message = bytes(TRAIN_DATAGRAMS * TRAIN_BYTES if train else BYTES)
    answers = TRAIN_DATAGRAMS if train else 1
    for _ in range(FLOWS):
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        flow.connect(("127.0.0.1", port))
        if train:
            flow.setsockopt(socket.SOL_UDP, UDP_SEGMENT, TRAIN_BYTES)
            flow.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        poll.register(flow, select.EPOLLIN)
        flows[flow.fileno()] = Flow(flow, message)
        flows[flow.fileno()].send()
    run(poll, flows, WARM_UP_SECONDS)
    print(json.dumps({"event": "start"}), flush=True)
    began = time.monotonic()
    times, lost = run(poll, flows, seconds)
    took = time.monotonic() - began
    print(json.dumps({"event": "end"}), flush=True)
    times.sort()
    share = lambda part: times[int(len(times) * part)] * 1e6 if times else 0  # noqa: E731
    count = len(times) * answers
    result = {"requests": count, "answers": count, "rate": count / took, "errors": 0, "unsent": 0, "idle_lost": lost}
    result |= {"p50_us": share(0.5), "p99_us": share(0.99), "p999_us": share(0.999)}
    print(json.dumps({"event": "result", **result}), flush=True)


class Flow:
    """A client that sends the next message when it has the whole answer."""

    def __init__(self, socket, message):
        self.socket, self.message = socket, message

    def send(self):
        self.began, self.missing = time.monotonic(), len(self.message)
        self.socket.send(self.message)

    def receive(self):
        """Returns whether the answer is whole."""
        self.missing -= len(self.socket.recv(65_535))
        return self.missing <= 0


def run(poll, flows, seconds):
    """Answers every message with the next, and returns the times that answers took, and how many were lost."""
    times, lost, end = [], 0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        ready = poll.poll(LOST_SECONDS)
        for number, _ in ready:
            flow = flows[number]
            try:
                if flow.receive():
                    times.append(time.monotonic() - flow.began)
                    flow.send()
            except OSError:
                lost += 1
        if not ready:
            for flow in flows.values():
                if now - flow.began > LOST_SECONDS:
                    lost += 1
                    flow.send()
    return times, lost


if __name__ == "__main__":
    main()
