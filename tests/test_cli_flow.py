"""`relprop text --flow`: the picture of how relevance flows through a Transformer."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from relprop import explain_text, zoo
from relprop.cli import app
from relprop.cli.console import Exit

TEXT = "A charming film, funny and never dull."
MODEL = "reviews-en-transformer"


def test_it_is_the_picture_of_the_python_interface(tmp_path: Path) -> None:
    out = tmp_path / "flow.svg"
    result = CliRunner().invoke(app, ["text", TEXT, "--model", MODEL, "--flow", str(out), "--json"])
    assert result.exit_code == Exit.OK and json.loads(result.stdout)["flow"] == str(out)
    entry = zoo.text_entry(MODEL)
    found = explain_text(entry.build(), entry.tokenizer, TEXT, labels=entry.labels, attention=True)
    found.flow().save(tmp_path / "expected.svg")
    assert out.read_bytes() == (tmp_path / "expected.svg").read_bytes()
