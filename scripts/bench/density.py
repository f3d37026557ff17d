"""N wrappers on one host: what each costs, and what happens to all of them at once. See scripts/density.sh."""

import ctypes
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import common
from common import KAPO, PAYLOAD, budget, free_port, have, line, median, private_kib, title

BATCH = 100
SMALL = {"PATH": "/usr/bin:/bin"}
PR_SET_CHILD_SUBREAPER = 36


class Host:
    """All processes of one run. Orphans come to this process, so that it can end every process that it started."""

    def __init__(self, folder):
        self.folder = folder
        self.log = os.path.join(folder, "log")
        self.sockets = os.path.join(folder, "run")
        os.mkdir(self.sockets)
        self.cgroup = None
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def spawn(self, words, log=None):
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, log or self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        ]
        return os.posix_spawn(words[0], words, SMALL, file_actions=actions, setpgroup=0)

    def log_of(self, place):
        return os.path.join(self.folder, f"log{place}")

    def start(self, n, words_of, wrapped=True):
        """Starts `n` wrappers and returns their pids and the seconds until all commands run."""
        began, pids = time.monotonic(), []
        for first in range(0, n, BATCH):
            batch = [self.spawn(words_of(i), self.log_of(i)) for i in range(first, min(first + BATCH, n))]
            pids += batch
            if wrapped:
                for pid in batch:
                    common.wait_for(lambda: children(pid), 60, f"the command under {pid}")
        return pids, time.monotonic() - began

    def end_all(self):
        """Kills all processes that this one has started, and waits for them."""
        # The children of those that are killed become children of this process.
        while left := children(os.getpid()):
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            for pid in left:
                os.waitpid(pid, 0)

    def join_cgroup(self):
        """Enters a memory cgroup (version 1) whose kernel memory is counted; without it /proc/meminfo has to do."""
        path = f"/sys/fs/cgroup/memory/kapo-density-{os.getpid()}"
        try:
            before = re.search(r":memory:(.*)", open("/proc/self/cgroup").read()).group(1)
            os.mkdir(path)
            self.cgroup, self.before = path, "/sys/fs/cgroup/memory" + before
            write(path + "/cgroup.procs", os.getpid())
        except (OSError, AttributeError):
            self.cgroup = None

    def leave_cgroup(self):
        if self.cgroup:
            write(self.before + "/cgroup.procs", os.getpid())
            common.wait_for(lambda: removed(self.cgroup), what="the end of the cgroup")
            self.cgroup = None

    def kernel_kib(self):
        if self.cgroup:
            return int(open(self.cgroup + "/memory.kmem.usage_in_bytes").read()) / 1024
        info = open("/proc/meminfo").read()
        return sum(int(re.search(rf"^{name}:\s+(\d+)", info, re.M).group(1)) for name in ("Slab", "PageTables", "KernelStack"))


    def settled(self):
        """The kernel memory, or nothing while it still falls."""
        before = self.kernel_kib()
        time.sleep(0.3)
        after = self.kernel_kib()
        return after if after > before * 0.99 else None


def write(path, what):
    with open(path, "w") as f:
        f.write(str(what))


def removed(folder):
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(each) for each in f.read().split()]
    except OSError:
        return []


def number(path, name):
    with open(path) as f:
        return int(re.search(rf"^{name}:\s+(\d+)", f.read(), re.M).group(1))


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def reap():
    """Reaps what has ended, and returns whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def some(pids, most=200):
    return pids[:: max(1, len(pids) // most)]


def memory(name, pids, kernel):
    """Prints what each process of `pids` has for itself; `kernel` is what the kernel keeps for each wrapper and command."""
    sample = some(pids)
    private = [private_kib(pid) for pid in sample]
    anonymous = median([number(f"/proc/{pid}/smaps_rollup", "Anonymous") for pid in sample])
    tables = median([number(f"/proc/{pid}/status", "VmPTE") for pid in sample])
    text = f"{median(private):.0f} private (largest {max(private)}), {anonymous:.0f} anonymous, {tables:.0f} page tables"
    line(name, f"{kernel:.0f}", "KiB", f"kernel memory with its command; {text}")
    return median(private)


def group(host, name, n, words_of, wrapped=True):
    """Starts a group and returns its pids, its seconds and the kernel memory of each."""
    # The kernel frees the memory of ended processes a little later.
    before = common.wait_for(host.settled, 30, "a constant kernel memory")
    pids, seconds = host.start(n, words_of, wrapped)
    kernel = (host.kernel_kib() - before) / n
    line(f"{n} x {name} started", f"{seconds:.2f}", "s")
    return pids, seconds, kernel


def cpu(pids):
    return sum(common.cpu_seconds(pid) for pid in pids)


def cpu_of_threads(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ls(host, *options):
    """Runs `kapo ls` and returns (output, seconds, largest memory in KiB)."""
    began, most = time.monotonic(), 0
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([KAPO, "ls", *options, host.sockets], stdout=out, env=SMALL)
        # The largest memory that wait4 reports is that of this program before the exec.
        while process.poll() is None:
            try:
                most = max(most, number(f"/proc/{process.pid}/status", "VmHWM"))
            except (OSError, AttributeError):
                pass
            time.sleep(0.003)
        seconds = time.monotonic() - began
        out.seek(0)
        return out.read().decode(), seconds, most


def states(host):
    found = {}
    for row in ls(host)[0].splitlines()[1:]:
        state = row.split()[1]
        found[state] = found.get(state, 0) + 1
    return found


def ask(port, path):
    """One request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while part := s.recv(1 << 16):
            said += part
    if not said.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path}: {said[:80]}")


def wake_ups(pids):
    def count():
        return sum(number(f"/proc/{pid}/status", "voluntary_ctxt_switches") for pid in pids)

    # Whoever has not gone to sleep after its start would count once.
    common.wait_for(lambda: (before := count()) == (time.sleep(0.5), count())[1], 60, "the rest after the start")
    before, spent = count(), cpu(pids)
    time.sleep(10)
    budget("wake-ups of all in 10 s", count() - before, 0, "wake-ups")
    line("CPU time of all meanwhile", f"{(cpu(pids) - spent) * 1e3:.1f}", "ms")


def sweep(host, n):
    took = [ls(host, "-o", "json") for _ in range(3)]
    line("kapo ls -o json", f"{min(seconds for _, seconds, _ in took) * 1e3:.0f}", "ms", f"{max(most for _, _, most in took) / 1024:.1f} MiB at most")
    budget("kapo ls: not listed as running", n - states(host).get("running", 0), 0, "kapos")


def after_requests(ports, pids):
    """Private memory after ten probes and ten scrapes of each of a sample."""
    sample = list(zip(some(pids), some(ports)))
    for name, path in (("probes", "/healthz"), ("scrapes", "/metrics")):
        for _ in range(10):
            began = time.monotonic()
            for _, port in sample:
                ask(port, path)
            # Faster requests on average would be a busy kapo, which keeps its memory.
            time.sleep(max(0, 0.7 - (time.monotonic() - began)))
        got = [private_kib(pid) for pid, _ in sample]
        budget(f"private memory of {len(sample)} after ten {name}", median(got), 48, "KiB")


def scrape(host, n, pids, ports):
    """A scrape of all each 15 s: by Prometheus, or by a client if there are too many for this machine.

    PROMETHEUS=1 uses Prometheus for any number. It needs 200 KiB for each target.
    """
    every, name = 15, "CPU of all kapos for a scrape each 15 s"
    if not have("prometheus") or (n > 1000 and os.environ.get("PROMETHEUS") != "1"):
        spent, began = cpu(pids), time.monotonic()
        for port in ports:
            ask(port, "/metrics")
        line("scrape of all by a client, one after the other", f"{time.monotonic() - began:.1f}", "s")
        used = (cpu(pids) - spent) / every
    else:
        rounds = 4 if os.environ.get("PROMETHEUS") == "1" else 1
        targets, port = os.path.join(host.folder, "targets.json"), free_port()
        write(targets, json.dumps([{"targets": [f"127.0.0.1:{each}" for each in ports]}]))
        write(os.path.join(host.folder, "prometheus.yml"), json.dumps({
            "global": {"scrape_interval": f"{every}s"},
            "scrape_configs": [{"job_name": "kapo", "file_sd_configs": [{"files": [targets]}]}],
        }))
        own = host.spawn([
            shutil.which("prometheus"), f"--config.file={host.folder}/prometheus.yml", "--log.level=error",
            f"--storage.tsdb.path={host.folder}/data", f"--web.listen-address=127.0.0.1:{port}",
        ])
        common.wait_for(lambda: up(port) == n, 90, "the first scrape of all by Prometheus")
        spent, of_prometheus, began = cpu(pids), cpu_of_threads(own), time.monotonic()
        time.sleep(rounds * every)
        took = time.monotonic() - began
        used = (cpu(pids) - spent) / took
        line("Prometheus itself", f"{(cpu_of_threads(own) - of_prometheus) / took * 100:.1f}", "% of a core",
             f"{number(f'/proc/{own}/status', 'VmRSS') / 1024:.0f} MiB")
        budget("scrape by Prometheus: targets that are not up", n - up(port), 0, "kapos")
        os.kill(own, signal.SIGTERM)
        os.waitpid(own, 0)
    text = f"({used * every / n * 1e6:.0f} us each; {used / n * 1e6:.1f} % for 10,000)"
    line(name, f"{used * 100:.2f}", "% of a core", text)


def up(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=count(up==1)", timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:
        return 0
    return int(result[0]["value"][1]) if result else 0


def storm(host, n):
    """Commands that end at once, started again each second."""
    pids, _ = host.start(n, lambda i: [KAPO, "-i", "127.0.0.1", "-p", "0", "supervise", "--wait", "1", "--", PAYLOAD, "exit", "3"], False)
    # The first ends are logged whole.
    seconds = 10 if n >= 1000 else 5
    time.sleep(seconds)
    def logged():
        return sum(os.path.getsize(host.log_of(i)) for i in range(n))

    size, spent = logged(), cpu(pids)
    time.sleep(seconds)
    line(f"crash storm of {n}: log", f"{(logged() - size) / seconds / 1e3:.1f}", "kB/s")
    line(f"crash storm of {n}: CPU of the kapos", f"{(cpu(pids) - spent) / seconds * 100:.0f}", "% of a core")
    gone(pids, signal.SIGTERM, f"TERM to {n} in the storm: gone after")


def gone(pids, how, name):
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, how)
    common.wait_for(lambda: (reap(), not any(is_alive(pid) for pid in pids))[1], 60, "the end of all")
    line(name, f"{time.monotonic() - began:.2f}", "s")


def kill_some(host, pids, n):
    """KILL to every tenth: its command ends by --orphan-signal, and its socket is found dead."""
    killed = pids[::10]
    commands = list(itertools.chain.from_iterable(children(pid) for pid in killed))
    gone(killed, signal.SIGKILL, f"KILL to {len(killed)} kapos: gone after")
    began = time.monotonic()
    try:
        common.wait_for(lambda: (reap(), not any(is_alive(pid) for pid in commands))[1], what="the commands")
    except RuntimeError:
        pass
    line("their commands: gone after another", f"{time.monotonic() - began:.2f}", "s")
    budget("commands that outlive their kapo", sum(is_alive(pid) for pid in commands) + len(killed) - len(commands), 0, "commands")
    found = states(host)
    budget("killed kapos that ls does not show as dead", len(killed) - found.get("dead", 0), 0, "sockets")
    budget("others that ls does not show as running", n - len(killed) - found.get("running", 0), 0, "kapos")
    return [pid for pid in pids if pid not in set(killed)], len(killed)


def measure(host, n):
    needed = 2 * n + 200
    most = int(open("/proc/sys/kernel/pid_max").read())
    if needed > most:
        raise RuntimeError(f"{n} wrappers need {needed} pids, and kernel.pid_max is {most}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    title(f"{n} wrappers: {os.cpu_count()} CPUs, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}")
    # Pages of a new binary that are not yet on disk would count as private and dirty.
    os.sync()
    host.join_cgroup()
    line("kernel memory is counted by", "a cgroup" if host.cgroup else "/proc/meminfo", "")
    pids, bare, kernel = group(host, "bare", n, lambda i: [PAYLOAD, "wait"], False)
    memory("bare command", pids, kernel)
    gone(pids, signal.SIGKILL, f"KILL to {n}: gone after")
    tini = None
    if have("tini"):
        program = shutil.which("tini")
        pids, _, tini = group(host, "tini", min(n, 1000), lambda i: [program, "-s", "--", PAYLOAD, "wait"])
        memory("tini", pids, tini)
        commands = [child for pid in pids for child in children(pid)]
        gone([*pids, *commands], signal.SIGKILL, f"KILL to {len(pids)}: gone after")
    own = ["--run-dir", host.sockets, "-i", "127.0.0.1", "-p", "0"]
    pids, seconds, kernel = group(
        host, "kapo", n, lambda i: [KAPO, *own, "--name", f"w{i:05}", "run", "--orphan-signal", "KILL", "--", PAYLOAD, "wait"])
    budget("private memory", memory("kapo", pids, kernel), 36, "KiB")
    if tini is not None:
        line("kernel memory more than that of tini", f"{kernel - tini:.1f}", "KiB", "(12 with one listener; these have two)")
    line("start: more than 1.2 times bare", f"{seconds - 1.2 * bare:.2f}", "s", "(6 for 10,000)")
    wake_ups(pids)
    sweep(host, n)
    # Prometheus of Debian cannot scrape Unix sockets.
    ports = [common.port_in(host.log_of(i)) for i in range(n)]
    after_requests(ports, pids)
    scrape(host, n, pids, ports)
    pids, dead = kill_some(host, pids, n)
    gone(pids, signal.SIGTERM, f"TERM to {len(pids)}: gone after")
    budget("sockets that are left, besides the dead", len(os.listdir(host.sockets)) - dead, 0, "sockets")
    storm(host, min(n, 1000))


def main(words):
    n = int(words[0]) if len(words) == 1 and words[0].isdigit() else 0
    if n < 10:
        print("usage: scripts/density.sh N, at least 10", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kapo-density-") as folder:
        host = Host(folder)
        try:
            measure(host, n)
        finally:
            # A second ^C must not end this early.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            host.end_all()
            host.leave_cgroup()
    missed = [name for name, _, _, good in common.RESULTS if not good]
    print(f"\ndensity: {n} wrappers, {len(common.RESULTS)} checks, {len(missed)} not reached, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


try:
    sys.exit(main(sys.argv[1:]))
except (RuntimeError, KeyboardInterrupt) as error:
    sys.exit(f"density: {str(error) or 'interrupted'}")
