"""Fixtures of the tests of networks."""

import socket

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks the network in these tests fails at once."""

    connect = socket.socket.connect

    def refused(*arguments: object, **_: object) -> None:
        raise AssertionError(f"asked the network: {arguments}")

    def connect_here(own: socket.socket, address: object) -> None:
        connect(own, address) if own.family == socket.AF_UNIX else refused(address)  # processes talk through files

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
