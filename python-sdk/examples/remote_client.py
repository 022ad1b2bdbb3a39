"""A client on another host: prints the signals of all strategies, over TCP.

``python remote_client.py tcp:bridge.example:7001`` with the token of that endpoint in ``MYCELIUM_TOKEN``. Over TCP
there is no shared memory, and nothing else differs. The program ends when the bridge does.
"""

from __future__ import annotations

import os
import sys

import mycelium
from mycelium.messages import Signal


def main() -> int:
    """Runs the client; returns the exit code."""
    if len(sys.argv) != 2:
        print("usage: remote_client.py tcp:host:port, with the token in MYCELIUM_TOKEN", file=sys.stderr)
        return 2
    try:
        # A name of its own would refuse a second client of the same name; without one the bridge chooses.
        with mycelium.connect(sys.argv[1], token=os.environ.get("MYCELIUM_TOKEN", "")) as channel:
            channel.subscribe(Signal)
            print(f"connected: link={channel.name} transport={channel.transport}", flush=True)
            for signal in channel:
                print(signal.quote_sequence, signal.worker, signal.side.name, signal.price, flush=True)
    except (mycelium.ChannelError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
