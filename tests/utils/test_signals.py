"""The stop behind an error."""

import signal

from memmeta_exp.utils.signals import Stopped, stopped_behind


def test_a_stop_is_found_behind_an_error_and_a_cycle_ends() -> None:
    first, second, stop = ValueError(), KeyError(), Stopped(signal.SIGTERM)
    first.__context__, second.__context__ = second, first
    assert stopped_behind(first) is None
    second.__cause__ = stop
    assert stopped_behind(first) is stop
