"""Which build of a proxy is compared: its version and its TLS library, as the program itself says."""

import re
import subprocess
from pathlib import Path

# For each proxy: what to ask, the version in the answer, and the TLS library; the first expression that matches counts.
ASK = {
    "nginx": ("-V", r"nginx version: nginx/(\S+)", [r"running with ([^)\n]+)", r"built with ([^\n]+)"]),
    "haproxy": ("-vv", r"HAProxy version (\S+)", [r"Running on (?:SSL library|OpenSSL) version : ([^\n]+)"]),
    "envoy": ("--version", r"version: \w+/([\d.]+)", [r"/(\w*SSL\w*)\b"]),
    "h2o": ("--version", r"h2o version (\S+)", [r"OpenSSL: ([^\n]+)"]),
    "weir": ("--version", r"weir (\S+)", []),
}
ASK["weir-pgo"] = ASK["weir"]


def of(name, program):
    """Returns the version and the TLS library of a program."""
    asked = subprocess.run([program, ASK[name][0]], capture_output=True, text=True)
    version, library = read(name, asked.stdout + asked.stderr)
    return version, weir_library(program) if name.startswith("weir") else library


def read(name, said):
    _, version, libraries = ASK[name]
    return first([version], said), first(libraries, said)


def first(expressions, text):
    found = (re.search(expression, text) for expression in expressions)
    return next((match[1].strip() for match in found if match), "unknown")


def weir_library(program):
    """The crates that are in the binary: their names stand in the places of its panics."""
    data = Path(program).read_bytes()
    crates = [re.search(rb"/(%s-\d+\.\d+\.\d+)/" % crate, data) for crate in (b"rustls", b"aws-lc-rs")]
    return ", ".join(found[1].decode() for found in crates if found) or "unknown"
