"""A shard that is not a Pushgateway: for what a real one cannot show (the bytes it got) or do (faults on demand)."""

import socket
import threading
import time

from .net import Address, new_host

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answers(status, body=b""):
    """Bytes of an answer."""
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


class Request:
    def __init__(self, head, body):
        self.head = head
        self.body = body
        self.line, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = self.line.split(" ")
        self.headers = [tuple(line.split(": ", 1)) for line in lines]

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


class StubShard:
    """Answers each push with what `answer(request)` returns, in one piece or, if `pieces` is set, in pieces of that size; and
    then closes if it `closes`.

    Health checks are answered 200 and not recorded; nor is the question who it is, unless `answer.relays` to one who can tell. `requests` holds the pushes, `connections` counts connections
    that carried any.
    """

    def __init__(self, answer=lambda request: OK, closes=False):
        self.answer = answer
        self.closes = closes
        self.pieces = None
        self.requests = []
        self.connections = 0
        self.lock = threading.Lock()
        self.is_open = True
        self.listener = socket.create_server((new_host(), 0), backlog=128)
        self.address = Address(*self.listener.getsockname())
        self.accepted = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while self.is_open:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            # What is sent is not to wait for an acknowledgement of what was sent before.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        is_counted = False
        try:
            with connection, connection.makefile("rb") as stream:
                while request := read_request(stream):
                    if request.target == "/-/healthy":
                        connection.sendall(OK)
                        continue
                    if request.target == "/api/v1/status" and not getattr(self.answer, "relays", False):
                        connection.sendall(answers(404))
                        continue
                    with self.lock:
                        self.requests.append(request)
                        self.connections += 0 if is_counted else 1
                    is_counted = True
                    self._send(connection, self.answer(request))
                    if self.closes:
                        return
        except OSError:
            pass

    def _send(self, connection, answer):
        size = self.pieces or len(answer) or 1
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])
            if self.pieces:
                time.sleep(0.0005)

    def say(self, text):
        """Sends it on all connections, unasked."""
        for connection in self.accepted:
            try:
                connection.sendall(text)
            except OSError:
                pass

    def stop(self):
        self.is_open = False
        self.listener.close()
        for connection in self.accepted:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def read_request(stream):
    """One request, which must be framed by one Content-Length; None at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    request = Request(head[:-4], b"")
    lengths = request.all("Content-Length")
    assert len(lengths) <= 1 and not request.all("Transfer-Encoding"), head
    request.body = stream.read(int(lengths[0])) if lengths else b""
    return request
