"""The one thing that is special about the far side of a link between two Python processes."""

from __future__ import annotations

from mycelium import _layout, _segment


def take_the_bridges_ends() -> None:
    """Makes the next connection of this process use the ends of the rings that are the bridge's otherwise."""
    _layout.RING_TO_PEER, _layout.RING_TO_BRIDGE = _layout.RING_TO_BRIDGE, _layout.RING_TO_PEER
    _segment._PEER_ENDS = (4, 2)  # locks of its own, so that both sides are taken for the owners of their ends
