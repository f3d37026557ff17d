"""A small HTTP server on port 8080. After SIGTERM it accepts no more connections and finishes the open requests."""
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(2)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")


server = ThreadingHTTPServer(("", 8080), Handler)
# server_close() then waits for the threads of the open requests.
server.daemon_threads = False
# shutdown() waits for serve_forever(), which the signal handler interrupts, so it needs a thread.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening on 8080", flush=True)
server.serve_forever()
server.server_close()
print("finished", flush=True)
