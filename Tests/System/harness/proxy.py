"""A reverse proxy in front of a real Consul: basic auth, which Consul leaves to proxies, and faults on demand."""

import base64
import http.server
import threading
import time

from .http import ask
from .net import Address, new_host


class ConsulProxy:
    """`fault` is None to pass requests on, or a status, "garbage", "slow" or "close"."""

    def __init__(self, consul, username=None, password=None):
        self.consul = consul
        self.fault = None
        self.faults_served = 0
        self.refused = 0
        self.expected = None
        if username:
            self.expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                proxy.serve(self)

            do_PUT = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((new_host(), 0), Handler)
        self.server.daemon_threads = True
        self.address = Address(*self.server.server_address)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if self.expected and request.headers.get("Authorization") != self.expected:
            self.refused += 1
            return self.answer(request, 401, b"who are you?")
        if self.fault is None:
            answer = ask(self.consul.address, request.command, request.path, body)
            return self.answer(request, answer.status, answer.body, answer.headers)
        self.faults_served += 1
        if isinstance(self.fault, int):
            return self.answer(request, self.fault, b"No cluster leader")
        if self.fault == "garbage":
            return self.answer(request, 200, b'[{"Node": {"Addr')
        if self.fault == "slow":
            time.sleep(5)
        request.close_connection = True

    @staticmethod
    def answer(request, status, body, headers=()):
        request.send_response(status)
        for name, value in headers:
            if name.lower().startswith(("x-consul", "content-type")):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
