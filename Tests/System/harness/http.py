"""HTTP by raw sockets: what is sent is sent byte for byte, and what comes back is read strictly."""

import socket

from .net import Address


class Response:
    def __init__(self, version, status, reason, headers, body):
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode()

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        """The value of a header that may come at most once; None when it does not."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:200]!r}>"


class Closed(Exception):
    """The peer closed or reset the connection before the answer was whole."""

    def __init__(self, received):
        super().__init__(f"closed after {received!r}")
        self.received = received


class Connection:
    def __init__(self, address: Address, timeout=15):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.address = address
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method, target, body=b"", headers=(), host=True):
        """Sends one HTTP/1.1 request; Content-Length comes with a body, or with PUT and POST."""
        self.send(encode(method, target, body, headers, self.address.text if host else None))

    def ask(self, method, target, body=b"", headers=()):
        self.request(method, target, body, headers)
        return self.read(method)

    def _fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def read(self, method="GET"):
        """Reads one response. An answer that is not framed by Content-Length runs to the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        response = parse_head(head)
        self.buffer = rest
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        if response.header("Transfer-Encoding") == "chunked":
            response.body = self._read_chunks()
            return response
        length = response.header("Content-Length")
        if length is None:
            response.body = self.read_all()
            return response
        assert length.isdigit(), f"Content-Length {length!r}"
        response.body = self._take(int(length))
        return response

    def _take(self, count):
        while len(self.buffer) < count:
            self._fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def _read_chunks(self):
        """As Go's servers frame what is long; shardd itself always sends a Content-Length."""
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                self._fill()
            line, _, self.buffer = self.buffer.partition(b"\r\n")
            data = self._take(int(line, 16) + 2)[:-2]
            if not data:
                return body
            body += data

    def read_all(self):
        """What comes until the peer closes; socket.timeout when it does not."""
        while True:
            try:
                self._fill()
            except Closed:
                data, self.buffer = self.buffer, b""
                return data

    def is_closed(self, timeout=5):
        """Whether the peer closes within the timeout with nothing more to say."""
        self.socket.settimeout(timeout)
        try:
            return self.read_all() == b""
        except socket.timeout:
            return False


def encode(method, target, body=b"", headers=(), host=None):
    lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method in ("PUT", "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def parse_head(head):
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, reason = (status_line.split(" ", 2) + [""])[:3]
    assert version in ("HTTP/1.1", "HTTP/1.0") and len(status) == 3 and status.isdigit(), status_line
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon and name and name == name.strip(), f"header line {line!r}"
        headers.append((name, value.strip(" \t")))
    return Response(version, int(status), reason, headers, b"")


def ask(address, method, target, body=b"", headers=(), timeout=15):
    """One request on a connection of its own."""
    with Connection(address, timeout) as connection:
        return connection.ask(method, target, body, headers)
