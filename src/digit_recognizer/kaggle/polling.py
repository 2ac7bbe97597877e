"""Waiting for something at Kaggle: looks at it again and again, with longer and longer pauses."""

import math
import time
from collections.abc import Callable

from tqdm import tqdm

from digit_recognizer.data import paths

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two looks
BACK_OFF = 1.5  # factor from one pause to the next

_TICK = 0.5  # seconds in which a bar on a terminal moves once


def poll(look: Callable[[], tuple[str, bool]], what: str, seconds: float = math.inf) -> None:
    """Calls `look` until it finds the end, or the time is up; the last look is when the time is up.

    The state is shown as a bar on a terminal, elsewhere as a line for each state that is new.

    Args:
        look: returns the state in words, and whether that is the end.
        what: is waited for, such as "the score".
        seconds: to wait at most; 0 looks once.
    """
    began, pause, last = time.monotonic(), FIRST_PAUSE, ""
    limited, terminal = math.isfinite(seconds), paths.on_terminal()
    limit = f" of at most {tqdm.format_interval(seconds)}" if limited else ""
    form = f"waiting for {what}: {{desc}}{'|{bar}| ' if limited else ''}{{elapsed}}{limit}"
    with tqdm(total=seconds if limited else None, bar_format=form, disable=not terminal, leave=False) as bar:
        while True:
            state, ended = look()
            elapsed = time.monotonic() - began
            if state != last and not terminal:
                passed = tqdm.format_interval(elapsed)
                print(f"waiting for {what}, {passed}{limit}: {state}", flush=True)
                last = state
            if ended or elapsed >= seconds:
                break
            bar.set_description(state)
            _sleep(min(pause, seconds - elapsed), bar)
            pause = min(pause * BACK_OFF, LONGEST_PAUSE)
    if terminal and not ended:  # the bar is gone, and with it why there is no end
        print(f"waited for {what}, {tqdm.format_interval(elapsed)}{limit}: {state}", flush=True)


def _sleep(seconds: float, bar: tqdm) -> None:
    for _ in range(max(1, math.ceil(seconds / _TICK))):
        time.sleep(min(_TICK, seconds))
        seconds -= _TICK
        bar.n = min(bar.format_dict["elapsed"], bar.total or math.inf)
        bar.refresh()
