"""A connection over TLS with the methods of a non-blocking socket that the links use."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl

__all__ = ["TlsSocket", "wrap"]

_RECORD_LEN = 16384
_DROP_LEN = 65536


def wrap(
    sock: socket.socket, host: str, ca: str | os.PathLike[str] | None, context: ssl.SSLContext | None
) -> TlsSocket:
    """Does the handshake with ``host``, within the timeout of the socket; owns the socket from here on.

    Raises:
        OSError: The certificate is not trusted or names another host, or the connection broke.
    """
    try:
        if context is None:
            context = ssl.create_default_context(cafile=None if ca is None else os.fspath(ca))
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        return TlsSocket(context.wrap_socket(sock, server_hostname=host))
    except BaseException:
        sock.close()
        raise


class TlsSocket:
    """Hides from a link that a TLS connection may have to read to write, and may hold what ``poll`` does not show.

    There are such bytes only while a record is read in part. So records are read whole: between two calls everything
    that has come is either with the link or still in the kernel, and a link may sleep on the descriptor.

    Args:
        sock: After its handshake.
    """

    __slots__ = ("_parted", "_sock", "family")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._parted = False
        self.family: int = sock.family

    def fileno(self) -> int:
        """Returns the descriptor of the connection."""
        return self._sock.fileno()

    def setblocking(self, flag: bool, /) -> None:
        """As for any socket; the links need False."""
        self._sock.setblocking(flag)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receives until the buffer has no room for a whole record or nothing more has come; 0 is the end.

        Args:
            buffer: At least 16384 bytes: a record.

        Raises:
            BlockingIOError: Nothing has come.
        """
        if self._parted:
            return self._drop()
        count = 0
        while len(buffer) - count >= _RECORD_LEN:
            try:
                received = self._sock.recv_into(buffer[count:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not count:
                    raise BlockingIOError from None
                break
            except OSError:
                if not count:
                    raise
                break  # The next call finds it again.
            if not received:
                break
            count += received
        return count

    def recv(self, size: int, /) -> bytes:
        """As :meth:`recv_into`, into new bytes."""
        buffer = bytearray(size)
        with memoryview(buffer) as view:
            count = self.recv_into(view)
        return bytes(buffer[:count])

    def send(self, data: bytes | bytearray | memoryview, _flags: int = 0, /) -> int:
        """Sends what the connection takes. What it did not take has to be sent next, with more behind it if need be.

        Raises:
            BlockingIOError: It takes nothing now.
        """
        sent = 0
        with memoryview(data) as view:
            while sent < len(view):
                try:
                    sent += self._sock.send(view[sent:])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if not sent:
                        raise BlockingIOError from None
                    break
        return sent

    def shutdown(self, how: int, /) -> None:
        """Tells the peer that nothing more comes; what it still sends is dropped, and its end is still found."""
        self._parted = True
        # It cannot wait for the peer's answer, and where data comes instead TLS is over at once.
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        socket.socket.shutdown(self._sock, how)

    def _drop(self) -> int:
        """Reads encrypted bytes until none are there."""
        while socket.socket.recv(self._sock, _DROP_LEN):
            pass
        return 0

    def close(self) -> None:
        """Closes the connection."""
        self._sock.close()
