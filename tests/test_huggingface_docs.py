"""What docs/en/huggingface.md shows runs, with small models in folders of the names it uses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from huggingface_models import ENTITIES, LABELS, bert, bpe, clip, gpt2, t5, transformers, unigram, vit, wordpiece
from typer.testing import CliRunner

from relprop.cli import app

DOCS = (Path(__file__).parent.parent / "docs" / "en" / "huggingface.md").read_text(encoding="utf-8")


@pytest.fixture
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "reviews": (bert("BertForSequenceClassification", id2label=LABELS), wordpiece()),
        "answers": (bert("BertForQuestionAnswering"), wordpiece()),
        "names": (bert("BertForTokenClassification", id2label=ENTITIES), wordpiece()),
        "masked": (bert("BertForMaskedLM"), wordpiece()),
        "writer": (gpt2(), bpe()),
        "translator": (t5(), unigram()),
        "clip": (clip(), wordpiece()),
        "animals": (vit(), transformers.ViTImageProcessor(size={"height": 16, "width": 16})),
    }
    for name, (model, reader) in made.items():
        model.float().save_pretrained(tmp_path / name)
        reader.save_pretrained(tmp_path / name)
    (tmp_path / "reviews.txt").write_text("A warm film.\nDull.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folders")
def test_the_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/en/huggingface.md", "exec"), names)
    assert Path("review.html").stat().st_size > 1000
    assert Path("map.png").is_file()


@pytest.mark.usefixtures("_folders")
def test_the_commands_run() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    for line in block.splitlines():
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    assert Path("map.html").is_file()
