"""What captured output costs: raw beside cat, lines beside ts, svlogd and s6-log."""

import os
import shutil
import subprocess
import tempfile
import time

from common import KAPO, MEASURE, budget, have, line, median, ratio, title

ROUNDS = 5


def through(filter_words, writer_words, wraps=False, to_file=False):
    """(seconds, CPU seconds of the filter, bytes that arrived) for what the writer writes until the reader has read its
    end; with `to_file`, until the filter has ended.

    A filter stands between writer and reader; kapo wraps the writer, and the writer's own time is taken off."""
    with tempfile.TemporaryDirectory(prefix="kapo-bench-") as folder:
        spent = os.path.join(folder, "cpu")
        environment = {**os.environ, "MEASURE_CPU": spent}
        quiet = {"stderr": subprocess.DEVNULL}
        began = time.perf_counter()
        reader = None if to_file else subprocess.Popen([MEASURE, "read"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        sink = open(os.path.join(folder, "lines"), "wb") if to_file else reader.stdin
        if wraps:
            middle = subprocess.Popen([*filter_words, *writer_words], env=environment, stdin=subprocess.DEVNULL,
                                      stdout=sink, **quiet)
            writer = None
        elif filter_words:
            middle = subprocess.Popen(filter_words, stdin=subprocess.PIPE, stdout=sink, cwd=folder, **quiet)
            writer = subprocess.Popen(writer_words, env=environment, stdin=subprocess.DEVNULL, stdout=middle.stdin, **quiet)
            middle.stdin.close()
        else:
            middle = None
            writer = subprocess.Popen(writer_words, env=environment, stdin=subprocess.DEVNULL, stdout=sink, **quiet)
        sink.close()
        if reader:
            total = int(reader.stdout.read() or 0)
            reader.wait()
        seconds = time.perf_counter() - began
        cpu = 0.0
        if middle:
            _, status, usage = os.wait4(middle.pid, 0)
            middle.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
            if wraps:
                # Processes that kapo has reaped count in its own usage.
                with open(spent) as f:
                    cpu -= int(f.read()) / 1e9
        if to_file:
            seconds, total = time.perf_counter() - began, os.path.getsize(sink.name)
        if writer:
            writer.wait()
        if (middle and middle.returncode) or (writer and writer.returncode):
            raise RuntimeError(f"{filter_words or writer_words} failed")
        return seconds, cpu, total


def kapo_words(*flags):
    return [KAPO, "--interface", "127.0.0.1", "--port", "0", *flags, "run", "--"]


def raw():
    """Bytes between pipes: direct, through cat, through kapo --stdout; interleaved."""
    for name, size, block, faster, cheaper in (("64 KiB blocks", 1 << 30, 65536, 1.3, 0.6), ("100-byte writes", 100_000_000, 100, None, 1.0)):
        title(f"raw: {size / 1e9:.2f} GB in {name} between pipes")
        writer = [MEASURE, "write", str(size), str(block)]
        ways = {"direct": ([], False), "cat": (["cat"], False), "kapo --stdout": (kapo_words("--stdout"), True)}
        speed, cost = {}, {}
        for _ in range(ROUNDS):
            for way, (words, wraps) in ways.items():
                seconds, cpu, total = through(words, writer, wraps)
                if total != size:
                    raise RuntimeError(f"{way}: {total} of {size} bytes arrived")
                speed.setdefault(way, []).append(size / seconds / 1e9)
                cost.setdefault(way, []).append(cpu / (size / 1e9))
        for way in ways:
            line(way, f"{median(speed[way]):.2f}", "GB/s", f"{median(cost[way]):.2f} CPU s/GB" if way != "direct" else "")
        if faster:
            ratio(f"raw, {name}, throughput: kapo / cat", median(speed["kapo --stdout"]), median(speed["cat"]), faster, at_least=True)
        ratio(f"raw, {name}, CPU: kapo / cat", median(cost["kapo --stdout"]), median(cost["cat"]), cheaper)


def lines():
    """Time-stamped lines of 100 bytes: kapo --stdlog, ts, svlogd -tt, s6-log T; interleaved, each as many as it can."""
    title("lines: 100 bytes each, time-stamped, pipe to pipe")
    ways = {"kapo --stdlog": (kapo_words("--stdout", "--stdlog"), True, 2_000_000)}
    if have("ts"):
        ways["ts"] = (["ts", "%FT%T"], False, 100_000)
    if have("svlogd"):
        # svlogd writes to a directory, not to a pipe.
        ways["svlogd -tt"] = (["sh", "-c", "mkdir -p log && exec svlogd -tt log"], False, 300_000)
    if have("s6-log"):
        ways["s6-log T"] = (["s6-log", "T", "1"], False, 1_000_000)
    speed, cost = {}, {}
    for _ in range(3):
        for way, (words, wraps, count) in ways.items():
            seconds, cpu, total = through(words, [MEASURE, "write", str(count * 100), "65536"], wraps)
            if way != "svlogd -tt" and total < count * 100:
                raise RuntimeError(f"{way}: {total} bytes arrived, of {count * 100} and their stamps")
            speed.setdefault(way, []).append(count / seconds / 1e6)
            cost.setdefault(way, []).append(cpu / count * 1e6)
    for way in ways:
        line(way, f"{median(speed[way]):.2f}", "M lines/s", f"{median(cost[way]):.3f} CPU s/million")
    peers = [way for way in ways if way != "kapo --stdlog"]
    if peers:
        best = min(peers, key=lambda way: median(cost[way]))
        ratio(f"lines, CPU: {best} / kapo", median(cost[best]), median(cost["kapo --stdlog"]), 5, at_least=True)
    if not shutil.which("s6-log"):
        line("s6-log, the best of the peers, is not here", "-", "")
    lines_to_file({way: ways[way] for way in ("kapo --stdlog", "s6-log T") if way in ways})


def lines_to_file(ways):
    """The same lines to a file, where the kernel copies less; interleaved."""
    title("lines: 100 bytes each, time-stamped, pipe to file")
    cost = {way: [] for way in ways}
    for _ in range(5):
        for way, (words, wraps, count) in ways.items():
            _, cpu, total = through(words, [MEASURE, "write", str(count * 100), "65536"], wraps, to_file=True)
            if total < count * 100:
                raise RuntimeError(f"{way}: {total} bytes arrived, of {count * 100} and their stamps")
            cost[way].append(cpu / count * 1e6)
    for way in ways:
        line(f"to a file: {way}", f"{median(cost[way]):.3f}", "CPU s/million")
    budget("lines to a file, CPU of kapo for a million", median(cost["kapo --stdlog"]) * 1e3, 110, "ms")
