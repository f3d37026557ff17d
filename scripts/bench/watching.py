"""What watching costs: a scan at 5,000 processes beside pgrep -x, and the time from a kill to the status."""

import os
import re
import subprocess
import sys
import time

from common import KAPO, MEASURE, PAYLOAD, Client, budget, cpu_seconds, end, have, kapo, line, median, ratio, title, wait_for

CROWD = 5000
PAUSE = 0.2
# Fifteen bytes, the maximum that pgrep -x compares.
NOBODY = "nobody-so-named"


def watch():
    """One scan of kapo in the steady state beside one pgrep -x, with 5,000 processes; in a PID namespace of its own."""
    title(f"watch: CPU of one scan at {CROWD:,} processes")
    if not have("unshare", "pgrep") or os.geteuid() != 0:
        return
    # All processes end with the namespace.
    inside = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", sys.executable, os.path.dirname(os.path.abspath(__file__)), "--inside-watch"]
    environment = {**os.environ, "KAPO_BIN": KAPO}
    said = subprocess.run(inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120, env=environment)
    if said.returncode:
        raise RuntimeError("the part in the namespace failed")
    ours, theirs, scans, first, early, worst = (float(word) for word in said.stdout.split()[-6:])
    line("pgrep -x, one call", f"{theirs * 1e3:.2f}", "ms")
    line("kapo watch, one scan", f"{ours * 1e3:.3f}", "ms", f"(mean of {scans:.0f}, --wait {PAUSE})")
    ratio("watch, CPU of a scan: kapo / pgrep -x", ours, theirs, 0.05)
    line("kapo watch, the first scan", f"{first * 1e3:.1f}", "ms", "(reads all processes)")
    line("kapo watch, the dearest of scans 2 to 10", f"{worst * 1e3:.1f}", "ms", "(--wait 1, all processes older than 10 s)")
    budget("watch, CPU of each of scans 2 to 10, mean", early * 1e3, 6, "ms")


def inside_watch():
    """As the second process of a PID namespace: prints seconds of a scan, seconds of a pgrep, number of scans, and seconds of
    the first scan, of a mean one of the next nine, and of the dearest one of these."""
    crowd = subprocess.Popen([MEASURE, "crowd", str(CROWD), PAYLOAD, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    crowd.stdout.readline()
    watcher = watch_for_nobody(PAUSE)
    # The first scans read everything. The steady state begins when the processes are no longer young.
    time.sleep(11)
    before, began = cpu_seconds(watcher.pid), time.monotonic()
    time.sleep(6)
    spent, scans = cpu_seconds(watcher.pid) - before, (time.monotonic() - began) / PAUSE
    end(watcher)
    calls = []
    for _ in range(9):
        pgrep = subprocess.Popen(["pgrep", "-x", NOBODY], stdout=subprocess.DEVNULL)
        _, _, usage = os.wait4(pgrep.pid, 0)
        pgrep.returncode = 0
        calls.append(usage.ru_utime + usage.ru_stime)
    # The crowd is now older than ten seconds.
    first, *early = first_scans(10)
    crowd.stdin.close()
    crowd.wait()
    print(spent / scans, median(calls), scans, first, sum(early) / len(early), max(early))


def watch_for_nobody(pause):
    return subprocess.Popen([KAPO, "--interface", "127.0.0.1", "--port", "0", "watch", "--wait", str(pause), NOBODY],
                            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def first_scans(count):
    """CPU seconds of each of the first scans of a watcher, one a second; the first one includes the start of kapo."""
    watcher, began = watch_for_nobody(1), time.monotonic()
    spent = [0]
    for scan in range(count):
        time.sleep(max(0, began + scan + 0.6 - time.monotonic()))
        spent.append(cpu_seconds(watcher.pid))
    end(watcher)
    return [after - before for before, after in zip(spent, spent[1:])]


def kill():
    """From kill(2) until an answer says so: kapo watch of a process that is not its child; 30 rounds."""
    title("kill: from the kill of a watched process to the status")
    took = []
    for _ in range(30):
        target = subprocess.Popen([PAYLOAD, "wait"])
        try:
            with kapo("watch", "--pid", str(target.pid), os.path.basename(PAYLOAD), pinned=False) as (_, port):
                client = Client(port)
                wait_for(lambda: b'"running"' in client.get(), what="the watched process")
                began = time.perf_counter()
                target.kill()
                wait_for_answer(client)
                took.append((time.perf_counter() - began) * 1e3)
        finally:
            end(target)
    line("from kill to the answer that tells", f"{median(took):.2f}", "ms", f"(worst of {len(took)}: {max(took):.2f})")


def wait_for_answer(client):
    limit = time.perf_counter() + 5
    while re.search(rb'"Status": ?"running"', client.get()):
        if time.perf_counter() > limit:
            raise RuntimeError("the end was not noticed")
