"""A reverse proxy in front of a real Consul: basic auth, which Consul leaves to proxies, and faults on demand."""

import base64
import http.server
import json
import threading
import time

from .http import ask
from .net import Address, new_host


class ConsulProxy:
    """`fault` is None to pass requests on, or a status, "garbage", "slow", "close", "filtered": a part of the list, with
    the header by which newer versions of Consul than ours say so, "late": health as it was, and all else as it is, or "behind":
    health as it was, but who asks for a consistent answer waits until the fault has ended.
    `hides` are names of headers to leave out;
    paths that begin with `refuses` are answered 403, and so are DELETEs if it `refuses_deletes`.
    """

    def __init__(self, consul, username=None, password=None):
        self.consul = consul
        self.fault = None
        self.faults_served = 0
        self.served = 0
        self.waiting = 0
        self.hides = ()
        self.last_health = None
        self.refuses = None
        self.refuses_deletes = False
        self.refused = 0
        self.expected = None
        if username:
            self.expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                proxy.serve(self)

            do_PUT = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((new_host(), 0), Handler)
        self.server.daemon_threads = True
        self.address = Address(*self.server.server_address)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.served += 1
        if self.expected and request.headers.get("Authorization") != self.expected:
            self.refused += 1
            return self.answer(request, 401, b"who are you?")
        is_refused = self.refuses_deletes and request.command == "DELETE"
        if is_refused or self.refuses and request.path.startswith(self.refuses):
            self.refused += 1
            return self.answer(request, 403, b"Permission denied")
        is_health = request.path.startswith("/v1/health/")
        if self.fault == "late" and is_health and self.last_health:
            # A query that has nothing new to tell takes its time.
            time.sleep(0.1)
            answer = self.last_health
            return self.answer(request, answer.status, answer.body, answer.headers)
        if self.fault == "behind" and is_health:
            if "consistent" not in request.path:
                answer = self.last_health
                return self.answer(request, answer.status, answer.body, answer.headers)
            self.waiting += 1
            while self.fault == "behind":
                time.sleep(0.02)
            self.waiting -= 1
        if self.fault in (None, "late", "behind"):
            answer = ask(self.consul.address, request.command, request.path, body)
            if is_health:
                self.last_health = answer
            return self.answer(request, answer.status, answer.body, answer.headers)
        if self.fault == "filtered" and request.path.startswith("/v1/health/"):
            self.faults_served += 1
            visible = json.loads(ask(self.consul.address, "GET", request.path).body)[:1]
            return self.answer(
                request, 200, json.dumps(visible).encode(), [("X-Consul-Results-Filtered-By-ACLs", "true")]
            )
        self.faults_served += 1
        if isinstance(self.fault, int):
            return self.answer(request, self.fault, b"No cluster leader")
        if self.fault == "garbage":
            return self.answer(request, 200, b'[{"Node": {"Addr')
        if self.fault == "slow":
            time.sleep(5)
        request.close_connection = True

    def answer(self, request, status, body, headers=()):
        request.send_response(status)
        for name, value in headers:
            if name.lower().startswith(("x-consul", "content-type")) and name not in self.hides:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
