"""A TCP load balancer: each connection to it goes to the next of its servers."""

import itertools
import socket
import threading

from .net import Address, new_host


class Balancer:
    def __init__(self, servers, address=None):
        self.turns = itertools.cycle(servers)
        self.listener = socket.create_server(address or (new_host(), 0), backlog=128)
        self.address = Address(*self.listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(next(self.turns).address)
            for origin, target in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(origin, target), daemon=True).start()

    @staticmethod
    def _copy(origin, target):
        try:
            while data := origin.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.close()
