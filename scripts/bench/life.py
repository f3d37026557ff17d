"""What it costs to have kapo around a command: start, memory, bytes, orphans."""

import os
import re
import shutil
import socket
import subprocess
import time

from common import (KAPO, MEASURE, PAYLOAD, Client, budget, cpu_seconds, end, have, kapo, line, median, private_kib, ratio,
                    title, wait_for)


# TCP port on loopback; the port is chosen by the kernel and logged.
PORT = ["--interface", "127.0.0.1", "--port", "0"]


def wrappers():
    """The words in front of a command, for kapo and each peer that is installed; `bare` is no wrapper."""
    peers = {"tini": ["-s", "--"], "dumb-init": [], "catatonit": ["--"]}
    found = {name: [shutil.which(name), *words] for name, words in peers.items() if have(name)}
    return {"bare": [], **found, "kapo": [KAPO, *PORT, "run", "--"]}


def measured(mode, rounds, *commands):
    """Runs `measure`; a list of its numbers for each command: a median and a tenth percentile by turns."""
    words = [MEASURE, mode, str(rounds), *commands]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [[float(word) for word in row.split()] for row in said.splitlines()]


def over_bare(rows, name, at, peer, reach):
    """Compares what kapo and `peer` add to the bare command, as medians of the number at `at`."""
    added = {each: row[at] - rows["bare"][at] for each, row in rows.items() if each != "bare"}
    for each, micros in added.items():
        line(f"{name}, added over bare: {each}", f"{micros:.0f}", "us")
    if peer in added:
        ratio(f"{name}, added over bare: kapo / {peer}", added["kapo"], added[peer], reach)


def spawn():
    """Spawn to reaped exit of `true`, wall time and CPU time; 400 interleaved rounds."""
    title("start: from spawn until the reaped exit of true")
    # The usual case: a TCP port is opened and two lines are logged.
    ways = {name: " ".join([*words, shutil.which("true")]) for name, words in wrappers().items()}
    rows = dict(zip(ways, measured("spawn", 400, *ways.values())))
    for name, (wall, wall_tenth, cpu, cpu_tenth) in rows.items():
        line(name, wall, "us", f"(p10 {wall_tenth}); CPU {cpu} us (p10 {cpu_tenth})")
    over_bare(rows, "start", 0, "tini", 0.45)
    for name, row in rows.items():
        if name in ("tini", "dumb-init", "catatonit"):
            line(f"start, CPU: {name} / bare", f"{row[2] / rows['bare'][2]:.2f}", "ratio")
    ratio("start, CPU: kapo / bare", rows["kapo"][2], rows["bare"][2], 1.65)


def stop():
    """TERM to the command's handler, and from there to the end of the wrapper; 200 interleaved rounds."""
    title("stop: from TERM to the command's handler, and from its exit to the end of the wrapper")
    ways = {name: " ".join(words) for name, words in wrappers().items()}
    rows = dict(zip(ways, measured("term", 200, *ways.values())))
    for name, (handler, handler_tenth, ended, ended_tenth) in rows.items():
        line(name, handler, "us", f"(p10 {handler_tenth}); exit {ended} us (p10 {ended_tenth})")
    over_bare(rows, "TERM to handler", 0, "dumb-init", 1.1)
    over_bare(rows, "exit", 2, "catatonit", 1)


def notice():
    """A kill of the command to the answer of GET /wait, beside the notice of a bare parent; 200 interleaved rounds."""
    title("notice: from a kill of the command to the answer that says so")
    kapo_waits = " ".join([KAPO, *PORT, "run", "--wait", "5", "--"])
    bare, port = measured("notice", 200, kapo_waits, f"{shutil.which('sleep')} 1000")
    for name, row in (("a bare parent reaps it", bare), ("GET /wait is answered", port)):
        line(name, row[0], "us", f"(p10 {row[1]})")
    ratio("notice: port / bare parent", port[0], bare[0], 2)


def memory():
    """Private_Dirty of 200 idle instances, each around a waiting command; page cache written back before."""
    title("memory: Private_Dirty of each of 200 idle instances (smaps_rollup)")
    # Pages of a new binary that are not yet on disk would count as private and dirty.
    os.sync()
    ways = {name: [*words, PAYLOAD, "wait"] for name, words in wrappers().items() if name != "bare"}
    # The environment is on the stack of each process; its size is a matter of the machine.
    small = {"PATH": "/usr/bin:/bin"}
    took = {}
    for name, words in ways.items():
        all_of_them = [subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=small) for _ in range(200)]
        try:
            for each in all_of_them:
                wait_for(lambda: os.path.getsize(f"/proc/{each.pid}/task/{each.pid}/children") >= 0
                         and open(f"/proc/{each.pid}/task/{each.pid}/children").read(), what=f"the command under {name}")
            took[name] = [private_kib(each.pid) for each in all_of_them]
        finally:
            for each in all_of_them:
                end(each)
        line(name, f"{median(took[name]):.0f}", "KiB", f"(largest {max(took[name])})")
    budget("memory, private, an idle instance", median(took["kapo"]), 32, "KiB")
    if "tini" in took:
        ratio("memory: kapo / tini", median(took["kapo"]), median(took["tini"]), 0.5)
    asked(small)


def asked(environment):
    """Private_Dirty of one instance after ten probes and ten scrapes, with a pause between them as in reality."""
    with kapo("run", "--", PAYLOAD, "wait", pinned=False, env=environment) as (process, port):
        for name, path, limit in (("probes", "/readyz", 40), ("scrapes", "/metrics", 44)):
            for _ in range(10):
                Client(port).get(path)
                # More than one request in a second on average would be a busy kapo.
                time.sleep(1.1)
            wait_for(lambda: is_asleep(process.pid), what="the end of the turn")
            budget(f"memory after {name}", private_kib(process.pid), limit, "KiB")


def size():
    title("size of the static binary")
    budget("binary", os.path.getsize(KAPO) / 1024, 640, "KiB")


def orphans():
    """CPU time of PID 1 for an orphan, in a PID namespace of its own; five interleaved rounds."""
    title("orphans: CPU of PID 1 for reaping 10,000")
    if not have("unshare") or os.geteuid() != 0:
        return
    inside = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    ways = {name: [*inside, *words, MEASURE, "orphans", "10000"] for name, words in wrappers().items() if name not in ("bare", "dumb-init")}
    # 50 at once mostly find PID 1 awake. One after the other, each may wake it.
    for batch in (50, 1):
        took = {name: [] for name in ways}
        for _ in range(5):
            for name, words in ways.items():
                done = subprocess.run([*words, str(batch)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
                if done.returncode:
                    raise RuntimeError(f"{name}: {done.stderr[-500:]}")
                took[name].append(int(done.stdout) / 1e7)
        for name, values in took.items():
            line(f"{batch} at once: {name}", f"{median(values):.2f}", "us each")
        if "catatonit" in took:
            ratio(f"orphans, {batch} at once: kapo / catatonit", median(took["kapo"]), median(took["catatonit"]), 0.5)


def idle():
    """How often kapo wakes in five seconds in which nothing happens, one idle connection open; CPU time with it."""
    title("idle: wake-ups in 5 s with one open idle connection")
    target = subprocess.Popen([PAYLOAD, "wait"], stdin=subprocess.DEVNULL)
    # A server that accepts connections without a process that wakes for them.
    probed = socket.create_server(("127.0.0.1", 0), backlog=64)
    probe = ["--probe", f"tcp://127.0.0.1:{probed.getsockname()[1]}", "--probe-interval", "1"]
    modes = {
        "run": ["run", "--", PAYLOAD, "wait"],
        "supervise": ["supervise", "--", PAYLOAD, "wait"],
        "watch --pid": ["watch", "--pid", str(target.pid), os.path.basename(PAYLOAD)],
        "run --probe": ["run", *probe, "--", PAYLOAD, "wait"],
        "run --probe --unhealthy stop": ["run", *probe, "--unhealthy", "stop", "--", PAYLOAD, "wait"],
    }
    # One for each interval that begins in five seconds.
    limits = {"run --probe --unhealthy stop": 6}
    try:
        for name, words in modes.items():
            with kapo(*words) as (process, port):
                client = Client(port)
                wait_for(lambda: b'"running"' in client.get(), what="the command")
                # The last answer arrives before kapo has gone to sleep again.
                wait_for(lambda: is_asleep(process.pid), what="the end of the turn")
                before, spent = switches(process.pid), cpu_seconds(process.pid)
                # This sleep is what is measured: nothing happens meanwhile.
                time.sleep(5)
                budget(f"idle, wake-ups of kapo {name}", switches(process.pid) - before, limits.get(name, 0), "wake-ups")
                line(f"CPU of kapo {name} meanwhile", f"{(cpu_seconds(process.pid) - spent) * 1e9:.0f}", "ns")
    finally:
        end(target)
        probed.close()


def is_asleep(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0] == "S"


def switches(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
