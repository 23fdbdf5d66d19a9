"""`lab`: the live page, for a script, a notebook or the command line."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.inspect.lab.server import LabServer
from minitx.inspect.lab.session import LabSession
from minitx.inspect.page.page import render
from minitx.inspect.taps.record import check_tappable
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type


class Lab:
    """A running server of the live page; `with` closes it at the end.

    Attributes:
        url: the address of the page, on this machine only.
    """

    def __init__(self, server: LabServer) -> None:
        self._server, self.url = server, server.url
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), daemon=True, name="minitx-lab"
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits until the server is closed, or until Ctrl-C, which is raised as KeyboardInterrupt."""
        while self._thread.is_alive():
            self._thread.join(0.1)

    def close(self) -> None:
        """Stops the server, after the computation that runs; those that wait are left out."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Lab at {self.url}" if self._thread.is_alive() else "Lab, closed"


def lab(
    model: Model,
    text: str,
    *,
    tokenizer: Tokenizer,
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    port: int = 0,
) -> Lab:
    """Serves the page of `view` with the live model on this machine.

    While a request with heads switched off is computed, they are off for other forwards of the model too.

    Args:
        model: of any family, in eval mode.
        text: that the page begins with; at most 256 tokens.
        tokenizer: of the texts.
        strategy: `Sample(...)`, whose parameters the sliders begin with.
        port: of 127.0.0.1; 0: a free one.

    Returns:
        The running server; `url` is the address of the page, `close()` stops it.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a model, no tokenizer, a text that the model cannot read.
        OSError: the port is taken.

    Example:
        >>> with minitx.inspect.lab(model, "The cat sat on the", tokenizer=tokenizer) as running:
        ...     print(running.url)
        ...     running.wait()
    """
    check_tappable(model)
    check_type("tokenizer", tokenizer, Tokenizer, "the tokenizer of the model")
    port = check_integer("port", port, 0, 65535)
    session = LabSession(model, tokenizer, strategy)
    first = session.answer({"text": text})
    sizes = {kind["name"]: [kind["layers"], kind["heads"]] for kind in first["attention"]}
    name = first["model"]["architecture"]

    def _page(token: str, nonce: str) -> str:
        live: dict[str, Any] = {"token": token, "heads": sizes}
        return render(f"{name}: live", first, live, nonce)

    try:
        return Lab(LabServer(_page, session.answer, port))
    except OSError as error:
        if port == 0:
            raise
        raise ArgumentValueError(
            "port", port, "a free port", f"{error.strerror}; 0 takes a free one"
        ) from error
