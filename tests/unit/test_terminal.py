"""Control characters in output, and signals that are none of a command's."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest

from minitx import signals
from minitx.cli.render import emit
from minitx.terminal import visible

HOSTILE = "\x07\x1b\x7f\x9b\u061c\u200e\u200f\u202e\u2066\u2028"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_has_no_control_characters(capsys: pytest.CaptureFixture[str], indent: int | None) -> None:
    value = {"text": f"é {HOSTILE}\n\t", HOSTILE: [1]}
    emit(True, value, "", indent=indent)
    printed = capsys.readouterr().out
    assert not {*printed} & {*HOSTILE}
    assert r"\u009b\u061c\u200e\u200f\u202e" in printed
    assert "é" in printed
    assert json.loads(printed) == value


def test_text_has_none_either() -> None:
    assert not {*visible(HOSTILE)} & {*HOSTILE}


def test_other_signals_do_not_end_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(signals, "GRACE", 0.3)
    monkeypatch.setattr(signals.Stop, "end", lambda _, number: ended.append(number))
    stop = signals.Stop()
    watch = threading.Thread(target=stop.watch, daemon=True)
    watch.start()
    for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
        stop._sender.send(bytes([number]))
    time.sleep(0.1)
    assert not ended
    stop.handled()
    time.sleep(0.4)
    assert not ended
    stop._sender.send(bytes([signal.SIGINT, signal.SIGCHLD]))
    for _ in range(100):
        time.sleep(0.02)
        if ended:
            break
    assert set(ended) == {signal.SIGINT}
    stop.close()
