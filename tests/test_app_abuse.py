"""The app's server under what it should never be sent: it answers with a sentence, and the others go on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

import relprop.app
from relprop import zoo
from relprop.app import asking, pictures, serving, web, work
from relprop.app.guard import Guard
from relprop.app.refusals import Gone, Refused

PHOTO = "efficientnet-lite0"
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}
PATIENCE = 10.0  # seconds, after which a refusal counts as a hang, on a machine that is busy with other tests

DRAWING = base64.b64encode(bytes(300) + bytes([255] * 184) + bytes(300)).decode()
FINE: dict[str, Any] = {"model": "mnist-cnn", "input": {"digit": DRAWING}}


@pytest.fixture(scope="module")
def client() -> TestClient:
    # Errors that nobody foresaw become answers, as they do in a running server.
    return TestClient(relprop.app.create(), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that runs, in a process of its own, as users start it."""
    command = [sys.executable, "-m", "relprop", "serve", "--no-browser", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        httpx.get(f"{found.group()}api/about", timeout=60)
        yield found.group()
        process.kill()


def refused(answer: Any, status: int, *words: str) -> None:
    """An answer that says in one sentence what was wrong."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "code", "details"}
    sentence = told["error"]
    assert sentence[0].isupper() or sentence[0] in "'\"/"
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    assert len(sentence) < 600
    for word in words:
        assert word in sentence


def works(client: Any) -> None:
    """The server still answers, and right."""
    answer = client.post("/api/explain", json=FINE)
    assert answer.status_code == 200
    assert answer.json()["sheets"][0]["heat"]["width"] == 28


# Bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["no JSON"]),
        (b"not json", ["no JSON"]),
        (b"\xff\xfe\x00", ["no JSON"]),
        (b'{"model": "mnist-cnn"', ["no JSON"]),
        (b"[]", ["model, input"]),
        (b"null", ["model, input"]),
        (b"{}", ['"model"']),
        (b"[" * 100_000, ["no JSON", "recursion"]),
        (b'{"model":' * 50_000, ["no JSON", "recursion"]),
        (b'{"model":"mnist-cnn","input":{"values":' + b"[" * 5000 + b"]" * 5000 + b"}}", ["no JSON", "recursion"]),
        (b'{"model":"mnist-cnn","input":{"values":[NaN]}}', ['"input.values"', "finite"]),
        (b'{"model":"mnist-cnn","input":{"values":[[1, Infinity]]}}', ['"input.values"', "finite"]),
        (b'{"model":"mnist-cnn","input":{"values":[-1e999]}}', ['"input.values"', "finite"]),
        (b'{"model":"mnist-cnn","input":{"values":[1e39]}}', ['"input.values"', "finite"]),
        (b'{"model":"mnist-cnn","input":{"text":"a"},"target":' + b"9" * 4000 + b"}", ['"target"', "index"]),
        (b'{"model":"mnist-cnn","input":{"text":"a"},"target":' + b"9" * 9000 + b"}", ["no JSON"]),
        (b'{"model":"reviews-en","input":{"text":"half \\ud83d a sign"}}', ["no JSON", "hex escape"]),
        (b'{"model":"reviews-en","input":{"text":"\xed\xa0\xbd"}}', ["no JSON"]),
        (b'{"model":"mnist-cnn","input":{"digit":"AAAA"}}', ["3 bytes", "784"]),
        (b'{"model":"mnist-cnn","input":{"digit":"not base64!"}}', ["base64"]),
        (b'{"model":"mnist-cnn","input":{"digit":"' + b"A" * 1_000 * 100 + b'"}}', ['"input.digit"']),
        (b'{"model":"mnist-cnn","input":{}}', ["Give one of", "none"]),
        (b'{"model":"mnist-cnn","input":{"text":"a","picture":"cat"}}', ["Give one of", "picture and text"]),
        (b'{"model":"mnist-cnn","input":{"values":[]}}', ["one row of numbers"]),
        (b'{"model":"mnist-cnn","input":{"values":[[1],[1,2]]}}', ["one row of numbers"]),
        (b"{" + b",".join(b'"%d":1' % i for i in range(50_000)) + b"}", ["50,002 mistakes"]),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_body_that_cannot_be_read_is_told(client: TestClient, body: bytes, words: list[str]) -> None:
    began = time.perf_counter()
    refused(client.post("/api/explain", content=body, headers=JSON), 422, *words)
    assert time.perf_counter() - began < PATIENCE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": 1}, ['no field "extra"']),
        ({"__proto__": {}}, ['no field "__proto__"']),
        ({"x" * 5000: 1}, ["no field", "x" * 60]),
        ({"input": {"digit": DRAWING, "path": "/etc/passwd"}}, ['no field "input.path"']),
        ({"questions": [{"rule": "epsilon"}]}, ['no field "questions.0.rule"']),
        ({"questions": []}, ['"questions"', "1 to 12"]),
        ({"questions": [{}] * 13}, ['"questions"', "1 to 12"]),
        ({"questions": [{"rules": [["affine", "Zero()"]] * 51}]}, ['"questions.0.rules"', "1 to 50 rows"]),
        ({"questions": [{"rules": []}]}, ['"questions.0.rules"']),
        ({"questions": [{"rules": [["affine"]]}]}, ['"questions.0.rules"']),
        ({"questions": [{"rules": 5}]}, ['"questions.0.rules"']),
        ({"questions": [{"method": 5}]}, ['"questions.0.method"']),
        ({"target": 3.5}, ['"target"', "index"]),
        ({"target": True}, ['"target"', "index"]),
        ({"target": [1]}, ['"target"', "index"]),
        ({"target": 10}, ["out of range", "0 to 9"]),
        ({"target": -11}, ["out of range"]),
        ({"target": "zebra"}, ["zebra", "The names are"]),
        ({"target": "a" * 500}, ['"target"']),
        ({"model": 5}, ['"model"']),
        ({"input": {"text": "five"}}, ["drawings and pictures", "no texts"]),
        ({"questions": [{"rules": "epsilom"}]}, ["Did you mean 'epsilon'?"]),
        ({"questions": [{"rules": [["affine", "Gama(1)"]]}]}, ["Did you mean Gamma?"]),
        ({"questions": [{"rules": [["affine", "Gamma(-1)"]]}]}, ["number >= 0"]),
        ({"questions": [{"rules": [["affine", "Gamma(1, 2, 3)"]]}]}, ["parameters of Gamma"]),
        ({"questions": [{"rules": [["affine", "__import__('os').abort()"]]}]}, ["no rule"]),
        ({"questions": [{"rules": [["nowhere.*", "Zero()"], ["affine", "Zero()"]]}]}, ["matches no operation"]),
        ({"questions": [{"layer": "nowhere"}]}, ["no module named 'nowhere'"]),
        ({"questions": [{"method": "gradient", "layer": "conv1"}]}, ["for the method lrp"]),
        ({"questions": [{"method": "gradient", "rules": "epsilon"}]}, ["for the method lrp"]),
        ({"questions": [{"method": "magic"}]}, ["no method 'magic'"]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_what_a_request_may_not_ask_is_told(client: TestClient, change: dict[str, Any], words: list[str]) -> None:
    refused(client.post("/api/explain", json=FINE | change), 422, *words)
    works(client)


def test_a_model_there_is_not_is_told(client: TestClient) -> None:
    refused(client.post("/api/explain", json=FINE | {"model": "../../etc/passwd"}), 404, "no model", "mnist-cnn")
    refused(client.post("/api/explain", json=FINE | {"model": "m" * 5000}), 422, '"model"')


@pytest.mark.parametrize("path", ["/api/operations", "/api/download/png"])
def test_a_single_question_has_no_list_of_them(client: TestClient, path: str) -> None:
    refused(client.post(path, json=FINE | {"questions": [{}]}), 422, 'no field "questions"')


def test_only_lrp_has_operations(client: TestClient) -> None:
    refused(client.post("/api/operations", json=FINE | {"question": {"method": "gradient"}}), 422, "Only LRP")


def test_there_are_files_of_four_kinds(client: TestClient) -> None:
    refused(client.post("/api/download/exe", json=FINE), 404, "png, svg, html, npz")


# Texts


@pytest.mark.parametrize("text", ["", "   \n\t", "\x00", "\u200b\u200d\ufeff", "\u3000"])
def test_a_text_without_letters_is_told(client: TestClient, text: str) -> None:
    body = {"model": "reviews-en", "input": {"text": text}}
    refused(client.post("/api/explain", json=body), 422, "no text to explain")


def test_a_text_that_is_too_long_is_told(client: TestClient) -> None:
    body = {"model": "reviews-en", "input": {"text": "a" * 5001}}
    refused(client.post("/api/explain", json=body), 422, "5,001 characters", "5,000")
    body["input"]["text"] = "좋다 " * 200_000  # type: ignore[index]
    refused(client.post("/api/explain", json=body), 413, "1 MB")
    body = {"model": "reviews-en-transformer", "input": {"text": "good " * 1000}}
    refused(client.post("/api/explain", json=body), 422, "512 tokens at most")


@pytest.mark.parametrize("model", ["reviews-en", "reviews-en-transformer"])
@pytest.mark.parametrize(
    "text",
    [
        "a \x00 good \x07 film\x1b[31m",
        "right \u202e to left \u2066",
        "👩‍👩‍👧 great 👍🏽",
        "<script>alert(1)</script> good",
        "e" + "\u0301" * 2000,
        "\uffff\U0010ffff good",
        "x" * 5000,
        "good\r\nbad\u2028worse",
    ],
    ids=range(8),
)
def test_a_strange_text_comes_back_as_it_was_sent(client: TestClient, model: str, text: str) -> None:
    answer = client.post("/api/explain", json={"model": model, "input": {"text": text}})
    assert answer.status_code == 200, answer.text
    sheet = answer.json()["sheets"][0]
    assert sheet["text"] == text
    assert all(text[word["start"] : word["end"]] == word["text"] for word in sheet["words"])
    answer.content.decode("ascii")  # so that no sign in it can be more than a sign


# Uploads


def _png(width: int, height: int, data: bytes = bytes(1000)) -> bytes:
    """A PNG file whose header says these sides."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _file(kind: str, mode: str = "RGB", size: tuple[int, int] = (60, 50)) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.new("I;16", (60, 50), 40_000).save(buffer, "PNG")
    return buffer.getvalue()


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GARBAGE = {
    "empty": (b"", 422, ["empty"]),
    "noise": (bytes(range(256)) * 40, 422, ["no picture"]),
    "text": (b"hello", 422, ["no picture"]),
    "svg with a script": (SVG, 422, ["SVG"]),
    "html": (b"<!doctype html><script>alert(1)</script>", 422, ["no picture"]),
    "pdf": (b"%PDF-1.7\n" + bytes(500), 422, ["no picture"]),
    "postscript, which pillow gives to a program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        422,
        ["no p"],
    ),
    "zip": (b"PK\x03\x04" + bytes(500), 422, ["no picture"]),
    "tiff": (_file("TIFF"), 422, ["no picture"]),
    "icon": (_file("ICO"), 422, ["no picture"]),
    "50,000 x 50,000": (_png(50_000, 50_000), 413, ["40 million"]),
    "7,000 x 7,000": (_png(7_000, 7_000), 413, ["7,000 x 7,000", "40 million"]),
    "2^31 wide": (_png(2**31 - 1, 1), 413, ["40 million"]),
    "no width": (_png(0, 10), 422, []),
    "one pixel high": (_png(5_000, 1), 422, ["too narrow"]),
    "truncated png": (_file("PNG")[:400], 422, ["truncated"]),
    "truncated jpeg": (_file("JPEG")[:500], 422, ["truncated"]),
    "truncated webp": (_file("WEBP")[:200], 422, []),
    "truncated gif": (_file("GIF")[:60], 422, []),
    "a header alone": (b"\x89PNG\r\n\x1a\n", 422, []),
    "sixteen bits": (_sixteen_bits(), 422, ["8 bits"]),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_told(client: TestClient, kind: str) -> None:
    content, status, words = GARBAGE[kind]
    began = time.perf_counter()
    refused(client.post("/api/pictures", content=content, headers=BYTES), status, *words)
    assert time.perf_counter() - began < PATIENCE


def test_a_picture_that_is_a_page_too_never_comes_back_as_a_page(client: TestClient) -> None:
    content = _file("GIF") + b"<html><script>alert(1)</script></html>"
    kept = client.post("/api/pictures", content=content, headers={"content-type": "image/gif"}).json()
    preview = client.get(f"/api/pictures/{kept['picture']}")
    assert preview.headers["content-type"] == "image/png"
    assert preview.headers["x-content-type-options"] == "nosniff"
    assert preview.content.startswith(b"\x89PNG")
    assert b"<script" not in preview.content


def test_a_text_packed_into_a_picture_does_not_unfold(client: TestClient) -> None:
    buffer = io.BytesIO()
    info = PngInfo()
    info.add_text("bomb", "a" * 50_000_000, zip=True)
    Image.new("RGB", (20, 20)).save(buffer, "PNG", pnginfo=info)
    assert len(buffer.getvalue()) < 100_000
    refused(client.post("/api/pictures", content=buffer.getvalue(), headers=BYTES), 422, "damaged")


@pytest.mark.parametrize("name", ["nope", "a" * 32, "cat.png", "..", "%2e%2e", "%00", "é"])
def test_a_picture_there_is_not_is_told(client: TestClient, name: str) -> None:
    refused(client.get(f"/api/pictures/{name}"), 404)
    if "%" not in name:
        refused(client.post("/api/explain", json=FINE | {"input": {"picture": name}}), 404, "Choose it again")


def test_the_pictures_that_were_used_longest_ago_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [_file("PNG", size=(60 + i, 50)) for i in range(4)]
    monkeypatch.setattr(pictures, "KEPT", 2 * sum(map(len, files)) * 3 // 4)
    held = pictures.Pictures()
    names = [held.add(content)[0] for content in files[:3]]
    held.preview(names[0])
    held.add(files[3])
    assert held.open(names[0]).size == (60, 50)
    with pytest.raises(Refused, match="Choose it again"):
        held.open(names[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(("PNG", "JPEG", "WEBP", "GIF", "BMP")),
    cut=st.floats(0, 1),
    place=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=20),
)
def test_damaged_pictures_are_read_or_refused(
    client: TestClient, kind: str, cut: float, place: float, junk: bytes
) -> None:
    whole = _file(kind)
    at = int(place * (len(whole) - 1))
    content = (whole[:at] + junk + whole[at + len(junk) :])[: max(1, int(cut * len(whole)) + 1)]
    answer = client.post("/api/pictures", content=content, headers=BYTES)
    assert answer.status_code in (200, 413, 422), answer.text
    if answer.status_code != 200:
        refused(answer, answer.status_code)


# Who may ask


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "127.0.0.2.",
        "0.0.0.0",
        "",
        "[",
        "a/b",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/about", "/viewer/viewer.js"])
def test_another_host_is_refused(client: TestClient, host: str, path: str) -> None:
    refused(client.get(path, headers={"host": host}), 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1", "127.0.0.1:9", "[::1]:7860"])
def test_this_machine_is_let_in(client: TestClient, host: str) -> None:
    assert client.get("/api/about", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://localhost:7860"},
        {"origin": "file://127.0.0.1:7860"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/api/explain", "/api/pictures", "/api/download/png", "/nothing"])
def test_pages_of_other_sites_may_not_write(client: TestClient, headers: dict[str, str], path: str) -> None:
    refused(client.post(path, json=FINE, headers=headers), 403, "other sites")


def test_its_own_pages_may_write(client: TestClient) -> None:
    own = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert client.post("/api/explain", json=FINE, headers=own).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(client: TestClient, kind: str) -> None:
    content = json.dumps(FINE).encode()
    refused(client.post("/api/explain", content=content, headers={"content-type": kind}), 415, "application/json")
    refused(client.post("/api/pictures", content=_file("PNG"), headers={"content-type": kind}), 415)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    refused(client.request(method, "/api/explain"), 405)


@pytest.mark.parametrize("content", [b"a body", iter([b"in", b"parts"])], ids=["whole", "in parts"])
def test_what_is_read_is_asked_without_a_body(client: TestClient, content: Any) -> None:
    refused(client.request("GET", "/api/about", content=content), 400, "no body")


def test_reading_and_writing_are_kept_apart(client: TestClient) -> None:
    refused(client.get("/api/explain"), 405)
    refused(client.post("/api/about"), 405)


@pytest.mark.parametrize("path", ["/", "/api/about", "/viewer/viewer.js", "/nothing"])
def test_every_answer_says_what_browsers_may_do(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
    assert headers["cache-control"] == ("no-store" if path.startswith("/api") else "no-cache")


def test_served_elsewhere_than_the_loopback_it_answers_by_address_only() -> None:
    client = TestClient(relprop.app.create(host="0.0.0.0"), base_url="http://192.168.1.7:7860")
    assert client.get("/").status_code == 200
    refused(client.get("/", headers={"host": "evil.example"}), 421)


def test_a_socket_is_closed() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(None, "127.0.0.1")({"type": "websocket", "headers": []}, receive, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# Anything


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(("mnist-cnn", "mnist-mlp", "reviews-en", "nope")) | _anything,
        "input": st.sampled_from(({"digit": DRAWING}, {"text": "fine"}, {"values": [1.0]})) | _anything,
        "target": st.integers(-20, 20) | st.sampled_from(("positive", "3", None)) | _anything,
        "questions": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "method": st.sampled_from(("lrp", "gradient", "grad_cam")) | _anything,
                    "rules": st.sampled_from(("auto", "epsilon", "w-square"))
                    | st.lists(
                        st.tuples(
                            st.sampled_from(("conv", "affine", "first", "linear*", "sum", "")) | st.text(max_size=8),
                            st.sampled_from(("Zero()", "Gamma(1e9)", "Epsilon(-1)", "Pass()", "ZBox(0, 1)", "Half()"))
                            | st.text(max_size=12),
                        ),
                        max_size=3,
                    )
                    | _anything,
                    "layer": st.sampled_from(("conv1", "linear*", "", "lstm", None)) | _anything,
                },
            ),
            max_size=3,
        )
        | _anything,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_requests)
def test_whatever_is_asked_there_is_an_answer(client: TestClient, body: Any) -> None:
    answer = client.post("/api/explain", content=json.dumps(body).encode(), headers=JSON)
    assert answer.status_code in (200, 404, 422), answer.text
    if answer.status_code != 200:
        refused(answer, answer.status_code)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_whatever_is_sent_there_is_an_answer(client: TestClient, body: bytes) -> None:
    refused(client.post("/api/explain", content=body, headers=JSON), 422)


def test_an_error_that_nobody_foresaw_is_a_sentence(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr("relprop.app.answering.Answers.explain", fail)
    refused(client.post("/api/explain", json=FINE), 500, "ZeroDivisionError: division by zero", "terminal")


# A server that runs


def test_bodies_that_are_too_large_are_refused_while_they_arrive(address: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            yield bytes(1_000_000)

    for path, most in (("api/pictures", asking.BYTES), ("api/explain", asking.BODY)):
        kind = BYTES if path.endswith("pictures") else JSON
        refused(httpx.post(address + path, content=bytes(most + 1), headers=kind), 413, f"{most // 1_000_000} MB")
        sent: list[int] = []
        # The server may close the connection before the client has read the answer.
        with contextlib.suppress(httpx.TransportError):
            refused(httpx.post(address + path, content=endless(), headers=kind), 413)
        assert len(sent) < 4 * most // 1_000_000 + 20
    with httpx.Client(base_url=address, timeout=30) as client:
        works(client)


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n",
    ],
    ids=["no host", "no http", "tls", "endless"],
)
def test_what_is_no_request_is_ended(address: str, request_line: bytes) -> None:
    host, port = address.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 421"))
    with httpx.Client(base_url=address, timeout=30) as client:
        works(client)


def test_slow_requests_do_not_block_the_others(address: str, record_property: Callable[[str, object], None]) -> None:
    """100 at once, most of them slow; light ones are answered meanwhile; how long they wait is noted."""
    photo = zoo.entry(PHOTO).available
    slow: list[dict[str, Any]] = [
        FINE | {"questions": [{"method": "lime"}]},
        FINE | {"questions": [{"rules": f"Gamma({i / 10})"} for i in range(12)], "model": "mnist-vit"},
        {"model": "reviews-en-transformer", "input": {"text": "good " * 80}, "questions": [{"method": "smoothgrad"}]},
        {"model": PHOTO if photo else "mnist-vit", "input": {"picture": "cat"} if photo else FINE["input"]},
        FINE | {"input": {"digit": "garbage"}},
    ]

    for body in (
        slow[0],
        *slow[2:4],
        FINE,
        {"model": "reviews-en", "input": {"text": "fine"}},
    ):  # not what is loaded once
        httpx.post(f"{address}api/explain", json=body, timeout=120)

    async def everybody() -> tuple[Counter[int], list[float], int]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
            crowd = [asyncio.create_task(client.post("/api/explain", json=slow[i % 5])) for i in range(100)]
            await asyncio.sleep(0.3)
            waited = []
            for body in [FINE, {"model": "reviews-en", "input": {"text": "fine"}}] * 3:
                began = time.perf_counter()
                answer = await client.post("/api/explain", json=body)
                waited.append(time.perf_counter() - began)
                assert answer.status_code == 200
            still = sum(not task.done() for task in crowd)
            # Those that are slow on purpose are not waited for: their clients leave.
            await asyncio.sleep(1)
            answered = [task for task in crowd if task.done()]
            for task in crowd:
                task.cancel()
            for task in answered:
                answer = task.result()
                if answer.status_code != 200:
                    refused(answer, answer.status_code)
            return Counter(task.result().status_code for task in answered), waited, still

    statuses, waited, still = asyncio.run(everybody())
    record_property("longest wait of a light request, s", max(waited))
    assert still > 0
    assert set(statuses) <= {200, 422, 503}
    assert statuses[422] == 20
    with httpx.Client(base_url=address, timeout=60) as client:
        works(client)


def test_too_many_that_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MOST_WAITING", 2)
    app = web.create([], True, "127.0.0.1")
    hold = threading.Event()
    monkeypatch.setattr(app.answers, "explain", lambda asked, watch: hold.wait(30) and {})
    with serving.running(app) as (address, _):

        async def crowd() -> list[int]:
            async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                tasks = [asyncio.create_task(client.post("/api/explain", json=FINE)) for _ in range(6)]
                while sum(task.done() for task in tasks) < 4:
                    await asyncio.sleep(0.01)
                hold.set()
                answers = await asyncio.gather(*tasks)
                for answer in answers:
                    if answer.status_code != 200:
                        refused(answer, 503, "Try again")
                return sorted(answer.status_code for answer in answers)

        assert asyncio.run(crowd()) == [200, 200, 503, 503, 503, 503]


def test_what_nobody_waits_for_any_more_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MOST_WAITING", 2)  # those who left take no place
    app = web.create([], True, "127.0.0.1")
    hold, computed = threading.Event(), []

    def explain(asked: Any, watch: Any) -> dict[str, Any]:
        computed.append(asked.target)
        hold.wait(30)
        return {}

    monkeypatch.setattr(app.answers, "explain", explain)
    with serving.running(app) as (address, _):

        async def leave() -> None:
            async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                first = asyncio.create_task(client.post("/api/explain", json=FINE | {"target": 1}))
                while not computed:
                    await asyncio.sleep(0.01)
                second = asyncio.create_task(client.post("/api/explain", json=FINE | {"target": 2}))
                await asyncio.sleep(0.3)
                second.cancel()
                third = asyncio.create_task(client.post("/api/explain", json=FINE | {"target": 3}))
                await asyncio.sleep(0.5)
                hold.set()
                await asyncio.gather(first, third)

        asyncio.run(leave())
    assert computed == [1, 3]


@pytest.mark.parametrize("method", ["integrated_gradients", "lime"])
def test_a_slow_method_ends_when_its_client_leaves(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "lime":
        pytest.importorskip("captum.attr")
    app = web.create([], True, "127.0.0.1")
    ended = threading.Event()
    explain = app.answers.explain

    def noted(asked: Any, watch: Any) -> Any:
        try:
            return explain(asked, watch)
        except Gone:
            ended.set()
            raise

    monkeypatch.setattr(app.answers, "explain", noted)
    body = {
        "model": "reviews-en-transformer",
        "input": {"text": "good " * 200},
        "questions": [{"method": method}],
    }
    with serving.running(app) as (address, _):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}api/explain", json=body, timeout=1.0)
        assert ended.wait(10)


def test_what_stops_everybody_is_loaded_by_who_needs_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python stands still while the analyser of Korean is loaded."""
    monkeypatch.setattr("relprop.zoo.words._kiwi", lambda: pytest.fail("the analyser of Korean was loaded"))
    monkeypatch.setattr(serving, "_import_captum", lambda: None)
    app = web.create([], True, "127.0.0.1")
    warmed: list[str] = []
    monkeypatch.setattr(app.answers, "explain", lambda asked, watch: warmed.append(asked.model))
    serving._warm(app).join()
    assert {"mnist-cnn", "reviews-en"} <= set(warmed)
    assert "reviews-ko" not in warmed
    assert b"reviews-ko" in app.about()


def test_a_server_ends_although_somebody_is_computing() -> None:
    body = {
        "model": "reviews-en-transformer",
        "input": {"text": "good " * 200},
        "questions": [{"method": "smoothgrad"}],
    }
    with serving.running(web.create([], True, "127.0.0.1")) as (address, ended):
        asking_ = threading.Thread(target=lambda: _quietly(f"{address}api/explain", body))
        asking_.start()
        time.sleep(1)
        began = time.perf_counter()
    assert ended.is_set()
    assert time.perf_counter() - began < 6
    asking_.join(10)
    assert not asking_.is_alive()


def _quietly(address: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(address, json=body, timeout=30)
