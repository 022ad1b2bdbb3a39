"""Tests of strategies without a bridge process.

::

    from mycelium import testing
    from mycelium.messages import Quote, Signal

    def test_it_answers_a_quote():
        with testing.Bridge(settings={"window": 20}) as bridge:
            bridge.publish(Quote(symbol="EUR/USD", bid=1.1, ask=1.2))
            bridge.run(my_strategy.worker)           # or any function that calls mycelium.connect()
            assert bridge.expect(Signal).price == 1.15

The strategy runs in the thread of the test, over real rings in shared memory. :meth:`Bridge.kill`,
:meth:`Bridge.shutdown`, :meth:`Bridge.hang_up`, :meth:`Bridge.paused` and the arguments of :class:`Bridge` bring about
what is hard to bring about elsewhere. With pytest the fixture ``mycelium_bridge`` is there once this package is
installed; see :mod:`mycelium.testing.plugin`. Linux only, as shared memory is.
"""

from ._bridge import Bridge, Killed

__all__ = ["Bridge", "Killed"]
