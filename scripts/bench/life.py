"""What it costs to have kapo around a command: start, memory, bytes, orphans."""

import os
import re
import shutil
import socket
import subprocess
import time

from common import (KAPO, MEASURE, PAYLOAD, Client, budget, cpu_seconds, end, have, kapo, line, median, private_kib, ratio,
                    title, wait_for)


def spawn():
    """Spawn to reaped exit of a static program that ends at once: bare, tini, dumb-init, kapo; 400 interleaved rounds."""
    title("start: from spawn until the reaped exit of a command that ends at once")
    commands = {"bare": PAYLOAD}
    if have("tini"):
        commands["tini"] = f"{shutil.which('tini')} -s -- {PAYLOAD}"
    if have("dumb-init"):
        commands["dumb-init"] = f"{shutil.which('dumb-init')} {PAYLOAD}"
    # The usual case: a TCP port is opened and two lines are logged.
    commands["kapo"] = f"{KAPO} --interface 127.0.0.1 --port 0 run -- {PAYLOAD}"
    said = subprocess.run([MEASURE, "spawn", "400", *commands.values()], check=True, capture_output=True, text=True).stdout
    took = {}
    for name, row in zip(commands, said.splitlines()):
        _, middle, tenth = row.split()
        took[name] = float(middle)
        line(name, middle, "us", f"(p10 {tenth})")
    added = {name: value - took["bare"] for name, value in took.items()}
    for peer in ("tini", "dumb-init"):
        if peer in added:
            line(f"added over bare: kapo {added['kapo']:.0f}, {peer}", f"{added[peer]:.0f}", "us")
    if "tini" in added:
        ratio("start, added over bare: kapo / tini", added["kapo"], added["tini"], 0.6)


def memory():
    """Private_Dirty of 200 idle instances, each around a waiting command; page cache written back before."""
    title("memory: Private_Dirty of each of 200 idle instances (smaps_rollup)")
    # Pages of a new binary that are not yet on disk would count as private and dirty.
    os.sync()
    ways = {"kapo": [KAPO, "--interface", "127.0.0.1", "--port", "0", "run", "--", PAYLOAD, "wait"]}
    # The environment is on the stack of each process; its size is a matter of the machine.
    small = {"PATH": "/usr/bin:/bin"}
    if have("tini"):
        ways["tini"] = ["tini", "-s", "--", PAYLOAD, "wait"]
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
    budget("memory, private, an idle instance", median(took["kapo"]), 36, "KiB")
    if "tini" in took:
        ratio("memory: kapo / tini", median(took["kapo"]), median(took["tini"]), 0.5)
    asked(small)


def asked(environment):
    """Private_Dirty of one instance after ten probes and ten scrapes, with a pause between them as in reality."""
    with kapo("run", "--", PAYLOAD, "wait", pinned=False, env=environment) as (process, port):
        for name, path in (("probes", "/healthz"), ("scrapes", "/metrics")):
            for _ in range(10):
                Client(port).get(path)
                # More than one request in a second on average would be a busy kapo.
                time.sleep(1.1)
            wait_for(lambda: is_asleep(process.pid), what="the end of the turn")
            budget(f"memory after {name}", private_kib(process.pid), 48, "KiB")


def size():
    title("size of the static binary")
    budget("binary", os.path.getsize(KAPO) / 1024, 512, "KiB")


def orphans():
    """CPU time of PID 1 for 20,000 orphans, in a PID namespace of its own; five interleaved rounds."""
    title("orphans: CPU of PID 1 for reaping 20,000")
    if not have("unshare", "tini") or os.geteuid() != 0:
        return
    inside = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    ways = {
        "tini": [*inside, "tini", "--", MEASURE, "orphans", "20000"],
        "kapo": [*inside, KAPO, "--interface", "127.0.0.1", "--port", "0", "run", "--", MEASURE, "orphans", "20000"],
    }
    took = {name: [] for name in ways}
    for _ in range(5):
        for name, words in ways.items():
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stderr[-500:]}")
            took[name].append(int(done.stdout) / 1e6)
    for name, values in took.items():
        line(name, f"{median(values):.1f}", "ms")
    ratio("orphans: kapo / tini", median(took["kapo"]), median(took["tini"]), 1.2)


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
