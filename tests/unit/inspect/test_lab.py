"""`minitx lab`: the live page, its server, and what it refuses."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

import minitx
from minitx.inspect import Lab, ablate, lab
from minitx.inspect.lab.server import LARGEST, LabServer
from minitx.inspect.lab.session import LabSession
from minitx.inspect.page.arrays import unpack
from tests.unit.inspect.browser import chromium, opened, until

TEXTS = {
    "minitx/tiny-encoder": "The capital of [MASK] is Paris.",
    "minitx/tiny-decoder": "It was a dark night. It was",
    "minitx/tiny-seq2seq": "thought",
}


def loaded(name: str) -> tuple[Any, Any]:
    return minitx.load(name, dtype="float32"), minitx.load_tokenizer(name)


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    model, tokenizer = loaded("minitx/tiny-decoder")
    with lab(model, TEXTS["minitx/tiny-decoder"], tokenizer=tokenizer) as server:
        yield server


def request(
    url: str, method: str = "POST", path: str = "/data", body: Any = None, **headers: str | None
) -> tuple[int, Any]:
    """Sends a request as the page does, with other headers where they are given; None leaves one out."""
    address = urlsplit(url)
    token = address.query.partition("=")[2]
    sent = {"Host": address.netloc, "X-Token": token, "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Content-Length": str(len(content)), **sent}.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(content)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text.startswith(b"{") else text.decode()


@pytest.mark.parametrize("name", TEXTS)
def test_heads_off_are_those_of_ablate(name: str) -> None:
    model, tokenizer = loaded(name)
    session, text = LabSession(model, tokenizer), TEXTS[name]
    kind = "encoder.self" if name == "minitx/tiny-encoder" else "decoder.self"
    heads = {1: [0, 2], 2: [1, 3]}
    off = {kind: [[layer, head] for layer, numbers in heads.items() for head in numbers]}
    before, after = session.answer({"text": text}), session.answer({"text": text, "off": off})
    with ablate(model, heads=heads):
        expected = session.answer({"text": text})
    assert after["attention"] == expected["attention"]
    assert after["lens"] == expected["lens"] != before["lens"]
    assert after["output"] == {"before": before["output"]["before"], "after": expected["output"]["before"]}
    assert unpack(after["attention"][0]["weights"]).sum(-1) == pytest.approx(1, abs=1e-4)
    assert session.answer({"text": text}) == before  # nothing stays switched off


def test_heads_of_the_encoder_and_of_cross_attention_can_be_off() -> None:
    model, tokenizer = loaded("minitx/tiny-seq2seq")
    session = LabSession(model, tokenizer)
    logits = []
    for kind in (None, "encoder.self", "decoder.cross", "decoder.self"):
        request = {"text": "thought", "target": "θ", "num_beams": 0}
        answer = session.answer(request | ({} if kind is None else {"off": {kind: [[0, 0], [0, 1]]}}))
        logits.append(unpack(answer["next"]["distributions"][0]["logits"]))
    assert all(not torch.equal(logits[0], other) for other in logits[1:])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Host": "example.org"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Host": None}, 403),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"X_Token": "wrong"}, 403),
        ({"X_Token": None}, 403),
        ({"path": "/other"}, 404),
        ({"method": "PUT"}, 501),
        ({"method": "OPTIONS"}, 501),
        ({"body": b"{"}, 400),
        ({"body": b"[1]"}, 400),
        ({"body": b"[" * 100_000}, 400),
        ({"body": b"\xff"}, 400),
        ({"Content_Length": str(LARGEST + 1)}, 413),
        ({"Content_Length": "many"}, 411),
        ({"body": {"text": 5}}, 422),
        ({"body": {"text": "a " * 2000}}, 422),
        ({"body": {"text": "a", "other": 1}}, 422),
        ({"body": {"text": "a", "off": {"decoder.self": [[99, 0]]}}}, 422),
        ({"body": {"text": "a", "off": {"decoder.self": [[0, 99]]}}}, 422),
        ({"body": {"text": "a", "off": {"decoder.cross": [[0, 0]]}}}, 422),
        ({"body": {"text": "a", "off": [[0, 0]]}}, 422),
        ({"body": {"text": "a", "max_new_tokens": 10**9}}, 422),
        ({"body": {"text": "a", "num_beams": "many"}}, 422),
    ],
)
def test_other_requests_are_refused(running: Lab, change: dict[str, Any], status: int) -> None:
    answer = request(running.url, **{"body": {"text": "It was"}, **change})
    assert answer[0] == status
    assert answer[1]["error"]
    assert request(running.url, body={"text": "It was"})[0] == 200  # and the server goes on


def test_the_page_needs_its_token(running: Lab) -> None:
    path = f"/?{urlsplit(running.url).query}"
    assert request(running.url, "GET", "/")[0] == 403
    status, page = request(running.url, "GET", path)
    assert status == 200
    assert "<!doctype html>" in page
    assert request(running.url, "GET", "/other" + path[1:])[0] == 404
    assert request(running.url, "GET", path, Host="evil.example")[0] == 403
    assert running.url.startswith("http://127.0.0.1:")


def test_200_quick_edits_end_with_the_last_text(running: Lab) -> None:
    """Of many requests those that newer ones have overtaken are not computed; the last is answered."""
    answers: dict[int, tuple[int, Any]] = {}

    def _send(number: int) -> None:
        body = {"text": f"It was {number}", "sequence": number, "client": "c", "num_beams": 0}
        answers[number] = request(running.url, body=body)

    threads = [threading.Thread(target=_send, args=(number,)) for number in range(1, 201)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 200
    assert {status for status, _ in answers.values()} == {200}
    assert answers[200][1]["text"] == "It was 200"
    assert all(data.get("superseded") or data["text"] == f"It was {n}" for n, (_, data) in answers.items())
    assert request(running.url, body={"text": "It was", "sequence": 1, "client": "other"})[0] == 200


def test_a_newer_request_overtakes_those_that_wait() -> None:
    computed, first, go = [], threading.Event(), threading.Event()

    def _answer(asked: Any) -> dict[str, int]:
        computed.append(asked["sequence"])
        first.set()
        go.wait(10)
        return {"sequence": asked["sequence"]}

    with Lab(LabServer(lambda token, nonce: "", _answer)) as server:
        answers: dict[int, Any] = {}

        def _send(number: int) -> None:
            answers[number] = request(server.url, body={"sequence": number, "client": "c"})[1]

        threads = [threading.Thread(target=_send, args=(number,)) for number in (1, 2, 3)]
        threads[0].start()
        assert first.wait(10)
        threads[2].start()
        while server._server._newest.get("c") != 3:
            pass
        threads[1].start()
        go.set()
        for thread in threads:
            thread.join()
    assert answers == {1: {"sequence": 1}, 2: {"superseded": True}, 3: {"sequence": 3}}
    assert computed == [1, 3]


def test_a_client_that_leaves_does_not_stop_the_server(running: Lab) -> None:
    address = urlsplit(running.url)
    for _ in range(5):
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        headers = {"X-Token": address.query.partition("=")[2], "Content-Type": "application/json"}
        connection.request("POST", "/data", json.dumps({"text": "It was"}), headers)
        connection.close()
    assert request(running.url, body={"text": "It was"})[0] == 200


def test_a_failure_of_the_model_is_an_answer() -> None:
    def _fails(asked: Any) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    with Lab(LabServer(lambda token, nonce: "", _fails)) as server:
        assert request(server.url, body={})[1]["error"] == "RuntimeError: out of memory"


def test_closing_waits_for_the_computation_and_leaves_out_those_that_wait() -> None:
    """A model whose heads are off during a computation has them again when `close` returns."""
    began, go, ended = threading.Event(), threading.Event(), []

    def _answer(asked: Any) -> dict[str, int]:
        began.set()
        go.wait(10)
        ended.append(asked["sequence"])
        return {}

    server = Lab(LabServer(lambda token, nonce: "", _answer))
    send = [
        threading.Thread(target=request, args=(server.url,), kwargs={"body": {"sequence": n, "client": c}})
        for n, c in ((1, "a"), (2, "b"))
    ]
    send[0].start()
    assert began.wait(10)
    send[1].start()
    while "b" not in server._server._newest:
        pass
    closing = threading.Thread(target=server.close)
    closing.start()
    while not server._server._closed:
        pass
    assert closing.is_alive()
    go.set()
    closing.join()
    for thread in send:
        thread.join()
    assert ended == [1]


def test_closing_leaves_no_thread_and_frees_the_port() -> None:
    before = {*threading.enumerate()}
    server = Lab(LabServer(lambda token, nonce: "page", lambda asked: {}))
    port = urlsplit(server.url).port
    assert repr(server) == f"Lab at {server.url}"
    server.close()
    assert repr(server) == "Lab, closed"
    assert {*threading.enumerate()} <= before
    assert port is not None
    with Lab(LabServer(lambda token, nonce: "page", lambda asked: {}, port)) as again:
        assert urlsplit(again.url).port == port
        model, tokenizer = loaded("minitx/tiny-decoder")
        with pytest.raises(ValueError, match=f"port={port} must be a free port"):
            lab(model, "It was", tokenizer=tokenizer, port=port)


def test_bad_arguments_are_errors() -> None:
    model, tokenizer = loaded("minitx/tiny-decoder")
    for options, message in (
        ({"tokenizer": None}, "tokenizer"),
        ({"port": 70000}, "port=70000"),
        ({"strategy": minitx.Greedy()}, "a Sample"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            lab(model, "It was", **{"tokenizer": tokenizer, **options})


def test_the_live_page_follows_text_and_heads() -> None:
    model, tokenizer = loaded("minitx/tiny-decoder")
    session = LabSession(model, tokenizer)
    with (
        lab(model, "It was", tokenizer=tokenizer) as server,
        chromium() as browser,
        opened(browser, server.url) as tab,
    ):
        tab.locator("textarea").press_sequentially(" a dark and stormy night", delay=5)
        until(tab, "document.querySelectorAll('.strip button').length > 6")
        text = "It was a dark and stormy night"
        until(tab, "window.minitx.state.values.data.text === document.querySelector('textarea').value")
        assert tab.locator(".strip button").count() == len(tokenizer.encode(text))
        for head in range(4):
            tab.click(f'.toggles button[data-layer="3"][data-head="{head}"]')
        until(tab, "document.querySelector('#lab-output').textContent.includes('with 4 heads off')")
        until(tab, "!document.querySelector('#lab-status').textContent.includes('computing')")
        off = {"decoder.self": [[3, head] for head in range(4)]}
        expected = session.answer({"text": text, "off": off})
        shown = [line.inner_text().partition(": ")[2] for line in tab.locator("#lab-output p").all()]
        assert shown == ["".join(expected["output"][part]).replace("·", " ") for part in ("before", "after")]
        values = tab.evaluate("[...window.minitx.state.values.data.attention[0].weights.values]")
        assert values == pytest.approx(
            unpack(expected["attention"][0]["weights"]).flatten().tolist(), abs=1e-5
        )
        for number in range(40):  # quick edits
            tab.fill("textarea", f"It was {number}")
        tab.click('button[name="all-on"]')
        until(tab, "window.minitx.state.values.data.text === 'It was 39'")
        assert tab.locator("#lab-output p").count() == 1
        assert tab.evaluate("window.minitx.state.values.query") == len(tokenizer.encode("It was 39")) - 1
        tab.fill("textarea", "a " * 2000)
        until(tab, "document.querySelector('#lab-status').className === 'error'")
        assert tab.locator(".strip button").count() > 2  # the last good state stays, dimmed
        assert tab.locator("#views.stale").count() == 1
        tab.problems.pop()  # type: ignore[attr-defined] # the browser's own message on an answer 422


def test_the_page_tells_when_the_server_has_gone() -> None:
    model, tokenizer = loaded("minitx/tiny-decoder")
    server = lab(model, "It was", tokenizer=tokenizer)
    with chromium() as browser:
        tab = browser.new_page()
        tab.goto(server.url)
        tab.wait_for_selector("html[data-ready]")
        server.close()
        tab.fill("textarea", "It was a")
        until(tab, "document.querySelector('#lab-status').textContent.includes('still running')")


def test_the_command_ends_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "minitx", "lab", "minitx/tiny-decoder", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert request(url, body={"text": "It was"})[0] == 200
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "for this machine only; Ctrl-C ends it\n"
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "minitx: interrupted\n"
