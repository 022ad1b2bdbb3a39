"""What happens to a message for which a subscriber has no room."""

from __future__ import annotations

from typing import Literal

from . import _control as control

__all__ = ["Delivery", "delivery_code", "delivery_name"]

Delivery = Literal["block", "drop_newest", "drop_oldest", "conflate"]
"""``"block"``: its publishers wait. Otherwise nobody waits, and what is dropped is counted and told: what comes
(``"drop_newest"``), what has waited longest (``"drop_oldest"``), or what is replaced by a newer message with the same
key (``"conflate"``)."""


_CODES: dict[Delivery, control.Delivery] = {
    "block": control.Delivery.BLOCK,
    "drop_newest": control.Delivery.DROP_NEWEST,
    "drop_oldest": control.Delivery.DROP_OLDEST,
    "conflate": control.Delivery.CONFLATE,
}
_NAMES: dict[int, Delivery] = {code: name for name, code in _CODES.items()}


def delivery_code(delivery: Delivery | None) -> control.Delivery:
    """Returns the number of a policy; None leaves the choice to the bridge.

    Raises:
        ValueError: There is no such policy.
    """
    if delivery is None:
        return control.Delivery.DEFAULT
    code = _CODES.get(delivery)
    if code is None:
        raise ValueError(f"delivery not understood: delivery={delivery!r}, legal: {', '.join(_CODES)}")
    return code


def delivery_name(code: int) -> Delivery | None:
    """Returns the name of a policy; None where the number is none."""
    return _NAMES.get(code)
