"""A connection over TLS with the methods of a non-blocking socket that the links use."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl

__all__ = ["TlsSocket", "wrap"]


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
    """Hides from a link that a TLS connection may have to read to write, and has bytes that ``poll`` does not show.

    Args:
        sock: After its handshake.
    """

    __slots__ = ("_sock", "family")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self.family: int = sock.family

    def fileno(self) -> int:
        """Returns the descriptor of the connection."""
        return self._sock.fileno()

    def setblocking(self, flag: bool, /) -> None:
        """As for any socket; the links need False."""
        self._sock.setblocking(flag)

    def pending(self) -> int:
        """Returns how many decrypted bytes wait that ``poll`` knows nothing of."""
        return self._sock.pending()

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receives until the buffer is full or nothing more has come; 0 is the end.

        Raises:
            BlockingIOError: Nothing has come.
        """
        count = 0
        while count < len(buffer):
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
        """Tells the peer that nothing more comes."""
        # Without blocking this cannot wait for the peer's answer.
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        # SSLSocket.shutdown() forgets that there is TLS, and later reads would return encrypted bytes.
        socket.socket.shutdown(self._sock, how)

    def close(self) -> None:
        """Closes the connection."""
        self._sock.close()
