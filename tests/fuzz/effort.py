"""How hard to try: the same few examples in every run, or other ones for as long as ``AUTOGLM_FUZZ_SECONDS`` says.

``AUTOGLM_FUZZ_SECONDS=600 python -m pytest tests/fuzz -q`` gives each property and each atheris target ten minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from hypothesis import HealthCheck, settings

Given = ParamSpec("Given")

SECONDS = float(os.environ.get("AUTOGLM_FUZZ_SECONDS", "0"))


def fuzzed(examples: int) -> Callable[[Callable[Given, None]], Callable[Given, None]]:
    """Decorate a ``@given`` test: so many examples of it, or as many as there is time for."""
    effort = settings(
        max_examples=examples,
        derandomize=not SECONDS,
        database=None,  # nothing is written into the checkout
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )

    def decorate(test: Callable[Given, None]) -> Callable[Given, None]:
        tried = effort(test)

        @wraps(tried)
        def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
            until = time.monotonic() + SECONDS
            tried(*args, **kwargs)
            while time.monotonic() < until:
                tried(*args, **kwargs)

        return run

    return decorate
