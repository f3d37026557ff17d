"""What an answer costs: requests beside nginx, scrapes, a thousand waiters."""

import os
import re
import select
import socket
import subprocess
import tempfile
import time

from common import (CLIENT_CPU, PAYLOAD, SERVER_CPU, Client, cpu_seconds, end, free_port, have, kapo, line, median,
                    private_kib, ratio, title, wait_for)

PIPELINE = """
init = function(args)
    local all = {}
    for i = 1, 16 do all[i] = wrk.format("GET", "/") end
    text = table.concat(all)
end
request = function() return text end
"""
# name, connections, further words for wrk, what is to be reached against nginx
LOADS = [
    ("64 connections", 64, [], 0.85),
    ("256 connections", 256, [], 0.88),
    ("16 requests pipelined, 64 connections", 64, ["-s", "PIPELINE"], 0.15),
    ("a connection per request", 64, ["-H", "Connection: close"], 0.75),
]
ROUNDS = 7


def http():
    """CPU time of the server for each request: pinned to one processor, wrk on the other; interleaved seconds."""
    title("http: CPU of the server for a request, same body, one processor each for server and wrk")
    if not have("wrk", "nginx", "taskset"):
        return
    with tempfile.TemporaryDirectory(prefix="kapo-bench-") as folder, kapo("run", "--", PAYLOAD, "wait") as (ours, port):
        script = os.path.join(folder, "pipeline.lua")
        with open(script, "w") as f:
            f.write(PIPELINE)
        body = Client(port).get().decode()
        with nginx(folder, body) as (theirs, nginx_port):
            servers = {"nginx": (theirs, nginx_port), "kapo": (ours.pid, port)}
            line("body of both", len(body), "bytes")
            for name, connections, words, reach in LOADS:
                words = [script if word == "PIPELINE" else word for word in words]
                took = {server: [] for server in servers}
                rates = {server: [] for server in servers}
                for _ in range(ROUNDS):
                    for server, (pid, at) in servers.items():
                        before = cpu_seconds(pid)
                        requests = load(at, connections, words)
                        took[server].append((cpu_seconds(pid) - before) / requests * 1e6)
                        rates[server].append(requests)
                for server in servers:
                    line(f"{name}: {server}", f"{median(took[server]):.2f}", "us/request", f"({median(rates[server]):.0f} requests/s)")
                ratio(f"http, {name}: kapo / nginx", median(took["kapo"]), median(took["nginx"]), reach)


def load(port, connections, words):
    """One second of wrk; how many requests were answered. An error where one was not a 200."""
    said = subprocess.run(
        ["taskset", "-c", CLIENT_CPU, "wrk", "-t1", f"-c{connections}", "-d1s", *words, f"http://127.0.0.1:{port}/"],
        check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"not all were answered: {said}")
    answered = int(re.search(r"(\d+) requests in", said).group(1))
    if not answered:
        raise RuntimeError(f"not one of {connections} connections {' '.join(words)} was answered: {said}")
    return answered


class nginx:
    """One worker that returns the same body: (pid of the worker, port)."""

    def __init__(self, folder, body):
        self.port = free_port()
        self.folder = folder
        quoted = body.replace("\\", "\\\\").replace("'", "\\'")
        with open(os.path.join(folder, "nginx.conf"), "w") as f:
            f.write(f"""
                daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
                events {{ worker_connections 2048; }}
                http {{
                    access_log off; keepalive_requests 1000000000; tcp_nodelay on; default_type application/json;
                    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
                    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                    server {{ listen 127.0.0.1:{self.port} backlog=1024; location / {{ return 200 '{quoted}'; }} }}
                }}""")

    def __enter__(self):
        self.master = subprocess.Popen(
            ["taskset", "-c", SERVER_CPU, "nginx", "-c", os.path.join(self.folder, "nginx.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            worker = wait_for(lambda: open(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read().split(),
                              what="nginx's worker")[0]
            wait_for(lambda: answers(self.port), what="nginx")
        except BaseException:
            end(self.master)
            raise
        return worker, self.port

    def __exit__(self, *_):
        end(self.master)


def answers(port):
    try:
        return Client(port).get()
    except (OSError, RuntimeError):
        return None


def metrics():
    """CPU time of kapo for a scrape, beside that for a request of the document; one kept connection."""
    title("metrics: CPU of kapo for a scrape")
    with kapo("run", "--", PAYLOAD, "wait") as (process, port):
        client = Client(port)
        took = {"/": [], "/metrics": []}
        sizes = {}
        for _ in range(7):
            for path, values in took.items():
                before = cpu_seconds(process.pid)
                for _ in range(300):
                    sizes[path] = len(client.get(path))
                values.append((cpu_seconds(process.pid) - before) / 300 * 1e6)
        for path, values in took.items():
            line(f"GET {path} ({sizes[path]} bytes)", f"{median(values):.1f}", "us")


def waiters():
    """1,000 connections on /wait, released by one exit: time to the last answer, memory for each."""
    title("waiters: 1,000 on /wait, released by one exit")
    count = 1000
    lasts, each_kib = [], []
    for _ in range(5):
        with kapo("--max-connections", "2000", "run", "--wait", "5", "--", PAYLOAD, "wait") as (process, port):
            document = Client(port)
            pid = int(re.search(rb'"Pid": ?(\d+)', document.get()).group(1))
            before = private_kib(process.pid)
            poll = select.epoll()
            sockets = {}
            for _ in range(count):
                s = socket.create_connection(("127.0.0.1", port))
                s.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
                sockets[s.fileno()] = s
                poll.register(s.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
            # Requests are handled in order, so this answer shows that all of them were read.
            document.get("/livez")
            each_kib.append((private_kib(process.pid) - before) / count)
            os.kill(pid, 9)
            began = time.perf_counter()
            left = count
            while left:
                ready = poll.poll(10)
                if not ready:
                    raise RuntimeError(f"{left} waiters got no answer")
                left -= len(ready)
            lasts.append((time.perf_counter() - began) * 1e3)
            some = next(iter(sockets.values())).recv(65536)
            if b"exit-code: 137" not in some.lower():
                raise RuntimeError(f"an answer without the exit code: {some[:200]!r}")
            for s in sockets.values():
                s.close()
    line("from kill to the last answer", f"{median(lasts):.1f}", "ms", f"(worst of 5: {max(lasts):.1f})")
    line("private memory for a waiter", f"{median(each_kib) * 1024:.0f}", "bytes")
