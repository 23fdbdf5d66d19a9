"""`view`: the page as one HTML file without a network."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.inspect.inputs import Subject, Text, plain_ids
from minitx.inspect.page.data import page_data
from minitx.inspect.page.tokens import visible
from minitx.inspect.taps.record import check_tappable
from minitx.io import write_atomically
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_output, check_type

ASSETS = Path(__file__).parent / "assets"
HEIGHT = 900  # pixels of the page in a notebook


@dataclass(frozen=True)
class Page:
    """A page of `view`; `save` writes it, and a notebook shows it.

    Attributes:
        title: of the page.
        data: what it shows; see `page_data`.
    """

    title: str
    data: dict[str, Any] = field(repr=False)

    def html(self) -> str:
        """Returns the whole page, with scripts and styles in it."""
        return render(self.title, self.data)

    def save(self, path: str | Path) -> Path:
        """Writes an .html file, all or nothing; its folder is created if it does not exist.

        Raises:
            ValueError: another kind of file, or a folder.
        """
        checked = check_output("path", path, (".html",))
        checked.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(checked, lambda temporary: temporary.write_text(self.html(), encoding="utf-8"))
        return checked

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {HEIGHT}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self.html())}" style="{style}"></iframe>'


def view(
    model: Model,
    text: Text,
    *,
    tokenizer: Tokenizer | None = None,
    target: Text | None = None,
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    num_beams: int = 4,
    max_new_tokens: int = 8,
    title: str | None = None,
) -> Page:
    """Makes a page that shows a model at work on a text, and computes the next token's choice in the page.

    It has the attention of every head, the queries, keys and values of a pair of tokens, the logit lens, the
    next token's distribution after each step of the chain with sliders, the tree of a beam search, and an
    inspector of tokens. It needs no network and no server.

    Args:
        model: of any family, in eval mode.
        text: a text, or its token ids, a list or a tensor; at most 256 tokens.
        tokenizer: of the text; None: it is ids.
        target: the decoder input of an encoder-decoder; None: the answer that it generates.
        strategy: `Sample(...)`, whose parameters the sliders begin with.
        num_beams: of the beam search whose tree is shown; 0: none.
        max_new_tokens: length of its hypotheses.
        title: of the page; None: the architecture and the text.

    Returns:
        The page; `page.save("page.html")` writes it.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a model, a text without a tokenizer or of too many tokens,
            other arguments out of range.

    Example:
        >>> minitx.inspect.view(model, "The cat sat on the", tokenizer=tokenizer).save("page.html")
    """
    check_tappable(model)
    check_type("tokenizer", tokenizer, Tokenizer | None, "the tokenizer of the model or None")
    check_type("title", title, str | None, "a text or None")
    text = text if isinstance(text, str) else plain_ids("text", text)
    if target is not None and len(model.families) < 2:
        expected = "left out for a model without encoder and decoder"
        raise ArgumentValueError("target", target, expected)
    subject = Subject(model, tokenizer, (text,), target)
    data = page_data(subject, strategy=strategy, num_beams=num_beams, max_new_tokens=max_new_tokens)
    shown = visible(text[:60]).strip() or "an empty text" if isinstance(text, str) else f"{len(text)} tokens"
    return Page(title or f"{data['model']['architecture']}: {shown}", data)


def render(title: str, data: dict[str, Any], live: dict[str, Any] | None = None, nonce: str = "") -> str:
    """Returns the page as HTML.

    Its modules are inlined in an import map: each stays a file of its own, and the page needs no other.

    Args:
        title: of the page.
        data: of `page_data`.
        live: settings of a server that computes further data; None: the page is a file.
        nonce: of a content security policy, which the scripts get.
    """
    modules = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ASSETS.glob("*.js"))}
    imports = {f"minitx/{name}": _data_url(code) for name, code in modules.items() if name != "d3.min"}
    imports["d3"] = _data_url(modules["d3.min"])
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "IMPORTS": json.dumps({"imports": imports}),
        "DATA": script_json({**data, "title": title, "live": live}),
        "NONCE": html.escape(nonce),
    }
    page = (ASSETS / "page.html").read_text(encoding="utf-8")
    return re.sub(
        "@([A-Z]+)@", lambda match: parts[match[1]], page
    )  # in one pass: the data may have such marks


def script_json(value: Any) -> str:
    """Returns JSON that can stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _data_url(code: str) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(code.encode()).decode()}"
