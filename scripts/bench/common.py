"""Starting, timing and printing: what every part of the bench uses."""

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

# Taken out of the environment, because kapo looks for a misspelt name behind each KAPO_ that it does not know.
KAPO = os.environ.pop("KAPO_BIN")
MEASURE = os.environ["MEASURE"]
PAYLOAD = os.environ["PAYLOAD"]
# The server under test runs on the first processor, its clients on the second.
SERVER_CPU, CLIENT_CPU = "0", "1" if (os.cpu_count() or 1) > 1 else "0"

RESULTS = []


def have(*programs):
    """Whether all are installed; says so where one is not."""
    missing = [each for each in programs if not shutil.which(each)]
    if missing:
        print(f"   left out: {', '.join(missing)} not installed")
    return not missing


def title(text):
    print(f"\n== {text}", flush=True)


def line(name, value, unit, note=""):
    print(f"   {name:<46} {value:>12} {unit:<10} {note}".rstrip(), flush=True)


def ratio(name, ours, theirs, reach, at_least=False):
    """Prints ours/theirs beside what is to be reached, and keeps it for the summary."""
    if ours <= 0 or theirs <= 0:
        raise RuntimeError(f"{name}: nothing was measured ({ours} and {theirs})")
    got = ours / theirs
    good = got >= reach if at_least else got <= reach
    sign = ">=" if at_least else "<="
    line(name, f"{got:.3f}", "ratio", f"{'reached' if good else 'NOT REACHED'} ({sign} {reach})")
    RESULTS.append((name, f"{got:.3f}", f"{sign} {reach}", good))


def budget(name, got, limit, unit):
    good = got <= limit
    line(name, f"{got:.1f}", unit, f"{'reached' if good else 'NOT REACHED'} (<= {limit})")
    RESULTS.append((name, f"{got:.1f} {unit}", f"<= {limit}", good))


median = statistics.median


def cpu_seconds(pid):
    """CPU time of a single-threaded process, to the nanosecond; user and kernel together."""
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e9


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"^Private_Dirty:\s+(\d+)", f.read(), re.M).group(1))


def wait_for(condition, seconds=10, what="a condition"):
    """As soon as it holds; an error when it does not within the limit."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > limit:
            raise RuntimeError(f"{what} did not come about within {seconds} s")
        time.sleep(0.002)
    return value


def end(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def kapo(*arguments, prefix=(), pinned=True, **options):
    """A kapo on a port that the kernel chooses: (process, port)."""
    with tempfile.NamedTemporaryFile("w+", prefix="kapo-bench-") as log:
        words = [*(["taskset", "-c", SERVER_CPU] if pinned else []), *prefix, KAPO, "--interface", "127.0.0.1", "--port", "0", *arguments]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log, **options)
        try:
            port = wait_for(lambda: port_in(log.name), what=f"the port of {' '.join(arguments)}")
            yield process, port
        finally:
            end(process)


def port_in(path):
    with open(path) as f:
        found = re.search(r'msg="?listening.*address="?[^\s"]*:(\d+)', f.read())
    return int(found.group(1)) if found else None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    """One kept connection; http.client's own cost would hide what is measured."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path="/"):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        data = self.socket.recv(1 << 20)
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: *(\d+)", head, re.I).group(1))
        while len(body) < length:
            body += self.more()
        return body

    def more(self):
        part = self.socket.recv(1 << 20)
        if not part:
            raise RuntimeError("the connection was closed")
        return part
