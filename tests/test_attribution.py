"""What an explanation says of itself, and that a file gives back what was saved."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from relprop.attribution import Attribution, load
from relprop.conservation import OperationFlow
from relprop.errors import InvalidFile, InvalidInput

FLOW = (
    OperationFlow(0, "conv2d", "features.0", "affine", "Flat()", 0.75, 1 / 3, {"bias": 0.75 - 1 / 3}),
    OperationFlow(1, "linear", "head", "affine", "Epsilon(1e-06)", 1.0, 0.75, {"bias": 0.2, "stabiliser": 0.05}),
)


class Trace:
    """Counts how often the bookkeeping was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[OperationFlow, ...]:
        self.calls += 1
        return FLOW


def explained(relevance: Any, **other: Any) -> Attribution:
    """An attribution that conserves, unless another score is given."""
    parts = [relevance] if isinstance(relevance, Tensor) else list(getattr(relevance, "values", lambda: relevance)())
    score = sum(part.flatten(1).double().sum(1) for part in parts).float()
    return Attribution(relevance, **{"score": score, **other})


@pytest.fixture
def images() -> Attribution:
    torch.manual_seed(0)
    return explained(
        torch.randn(3, 3, 8, 8),
        target=torch.tensor([1, 0, 7]),
        output=torch.randn(3, 8),
        inputs=torch.randn(3, 3, 8, 8),
        rules="auto: epsilon-plus-flat",
        labels=("cat", "dog"),
        layers={"features.0": torch.randn(3, 4, 8, 8)},
        notes=("the final softmax was left out: its input was explained",),
        trace_flow=Trace(),
    )


def test_total_sums_every_value_of_every_input() -> None:
    several = Attribution((torch.ones(2, 3), torch.full((2, 1, 2, 2), 0.5)), torch.tensor([5.0, 6.0]))
    assert several.total.tolist() == [5.0, 5.0]
    assert Attribution(torch.tensor([1.0, 2.0]), torch.zeros(2)).total.tolist() == [1.0, 2.0]


def test_total_adds_up_half_precision_without_losing_small_values() -> None:
    relevance = torch.full((1, 3, 100, 100), 0.001, dtype=torch.bfloat16)
    exact = float(relevance.double().sum())
    assert Attribution(relevance, torch.tensor([exact])).is_conservative(1e-6)
    assert Attribution(relevance, torch.tensor([30.0], dtype=torch.bfloat16)).total.dtype == torch.bfloat16


def test_a_label_is_the_class_name_or_its_number_or_score(images: Attribution) -> None:
    assert [images.label(i) for i in (0, 1, 2, -1)] == ["dog", "cat", "7", "7"]
    assert Attribution(torch.ones(1, 2), torch.ones(1)).label(0) == "score"
    with pytest.raises(IndexError):
        images.label(3)


@pytest.mark.parametrize(
    ("values", "score", "conservative", "positive"),
    [
        ([[1.0, 2.0]], [3.0], True, True),
        ([[1.0, 2.0]], [3.1], False, True),
        ([[4.0, -1.0]], [3.0], True, False),
        ([[0.0, 0.0]], [0.0], True, True),
        ([[0.0, 1e-9]], [0.0], False, True),
        ([[1.0, 2.0], [1.0, 1.0]], [3.0, 3.0], False, True),
        ([[float("nan"), 2.0]], [3.0], False, False),
        ([[-1.0, -2.0]], [-3.002], True, False),
    ],
)
def test_definitions_of_conservative_positive_and_consistent(
    values: list[list[float]], score: list[float], conservative: bool, positive: bool
) -> None:
    attribution = Attribution(torch.tensor(values, dtype=torch.float64), torch.tensor(score, dtype=torch.float64))
    assert attribution.is_conservative() is conservative
    assert attribution.is_positive() is positive
    assert attribution.is_consistent() is (conservative and positive)


def test_positive_up_to_a_tolerance() -> None:
    attribution = Attribution(torch.tensor([[1.0, -1e-6]]), torch.ones(1))
    assert not attribution.is_positive()
    assert attribution.is_positive(1e-5)


def test_figures_per_operation_are_computed_once_and_only_when_asked_for(images: Attribution, tmp_path: Path) -> None:
    trace = images.trace_flow
    assert isinstance(trace, Trace)
    _ = images.total, images.score, repr(images), images._repr_html_(), images[0], images.is_consistent()
    for name in ("a.npz", "a.safetensors", "a.png", "a.svg", "a.html"):
        images.save(tmp_path / name)
    assert trace.calls == 0
    assert images.conservation.operations == FLOW
    assert images.conservation.absorbed == pytest.approx({"bias": 0.2 + 0.75 - 1 / 3, "stabiliser": 0.05})
    assert trace.calls == 1
    assert images.conservation.score == pytest.approx(float(images.score.sum()))
    assert images.trace_flow is None


def test_one_sample_of_several(images: Attribution) -> None:
    last = images[-1]
    assert len(last) == 1
    assert last.label() == "7"
    assert isinstance(last.relevance, Tensor)
    assert torch.equal(last.relevance, images.relevance[2:3])  # type: ignore[index]
    assert torch.equal(last.layers["features.0"], images.layers["features.0"][2:])
    assert last.trace_flow is None
    assert last.conservation.operations == ()
    assert len(images[1:]) == 2
    assert [one.label() for one in images] == ["dog", "cat", "7"]
    for beyond in (3, -4, slice(5, 9)):
        with pytest.raises(IndexError):
            images[beyond]


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclasses.dataclass
class Answer:
    logits: Tensor
    cache: tuple[Tensor, ...]
    steps: int = 3


def test_any_output_is_narrowed_to_the_sample_in_its_own_form() -> None:
    rows = torch.arange(2.0)
    output = {"answer": Answer(rows, (rows,)), "pair": Pair(rows, torch.ones(5)), "list": [rows], "text": "x"}
    part = Attribution(torch.ones(2, 1), torch.ones(2), output=output)[1].output
    assert part["answer"].logits.tolist() == part["answer"].cache[0].tolist() == part["list"][0].tolist() == [1.0]
    assert part["answer"].steps == 3
    assert part["pair"].left.tolist() == [1.0]
    assert len(part["pair"].right) == 5
    assert part["text"] == "x"


def test_repr_says_what_was_explained_and_stays_short(images: Attribution) -> None:
    assert "(3, 3, 8, 8)" in repr(images)
    assert "dog, cat, 7" in repr(images)
    assert "epsilon-plus-flat" in repr(images)
    assert len(repr(Attribution(torch.ones(1000, 2), torch.ones(1000)))) < 300


def same(one: Any, other: Any) -> bool:
    """Equal in structure, type, and every bit, NaN included."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and one.dtype == other.dtype
            and torch.equal(torch.isnan(one), torch.isnan(other))
            and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same(saved: Attribution, loaded: Attribution) -> None:
    for name in ("relevance", "score", "target", "inputs", "rules", "labels", "layers", "notes", "known_operations"):
        assert same(getattr(saved, name), getattr(loaded, name)), name


KINDS = pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".NPZ"])
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
STRUCTURES: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, x[:, :1]),
    "one": lambda x: (x,),
    "dict": lambda x: {"image": x, "../a b/é": x[:, 1:]},
}


@KINDS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_file_gives_back_every_bit(suffix: str, dtype: torch.dtype, structure: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    build = STRUCTURES[structure]
    values = torch.randn(2, 4, 3, dtype=torch.float64).to(dtype)
    saved = Attribution(
        relevance=build(values.clone().requires_grad_()),
        score=torch.tensor([1.5, float("nan")], dtype=dtype),
        target=torch.tensor([3, 0]),
        output=torch.randn(2, 5),
        inputs=build(values.transpose(1, 2).contiguous().transpose(1, 2)),
        rules='γ, "quoted"',
        labels=("한국어", "<b>", "", "dog"),
        layers={"a.b": values, "c/d": values.expand(2, 4, 3)},
        notes=("one", "two"),
        trace_flow=Trace(),
    )
    _ = saved.conservation
    saved.save(tmp_path / f"file{suffix}")
    loaded = load(str(tmp_path / f"file{suffix}"))
    assert_same(saved, loaded)
    assert torch.equal(loaded.output, saved.output)
    assert loaded.conservation.operations == FLOW
    loaded.save(tmp_path / f"again{suffix}")
    assert_same(saved, load(tmp_path / f"again{suffix}"))


@KINDS
def test_what_is_absent_stays_absent(suffix: str, tmp_path: Path) -> None:
    saved = Attribution(torch.ones(1, 2), torch.ones(1), output=(torch.ones(1),), trace_flow=Trace())
    saved.save(tmp_path / f"file{suffix}")
    loaded = load(tmp_path / f"file{suffix}")
    assert_same(saved, loaded)
    assert loaded.output is None
    assert loaded.conservation.operations == ()


@KINDS
def test_token_ids_of_whole_numbers_are_kept(suffix: str, tmp_path: Path) -> None:
    saved = Attribution(torch.randn(1, 4), torch.ones(1), inputs=torch.tensor([[2**53 + 1, 0, -1, 5]]))
    saved.save(tmp_path / f"file{suffix}")
    assert_same(saved, load(tmp_path / f"file{suffix}"))


def test_one_sample_can_be_saved(images: Attribution, tmp_path: Path) -> None:
    images.save(tmp_path / "one.npz", index=1)
    assert_same(images[1], load(tmp_path / "one.npz"))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.pt", ".npz"])
def test_an_unknown_ending_is_an_error_that_lists_the_known(images: Attribution, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"\.png.*\.svg.*\.html.*\.npz.*\.safetensors"):
        images.save(tmp_path / name)
    with pytest.raises(InvalidFile, match="safetensors"):
        load(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html", ".npz", ".safetensors"])
def test_a_file_appears_whole_or_not_at_all(
    images: Attribution, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidFile, match="no folder"):
        images.save(tmp_path / "missing" / f"a{suffix}")
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InvalidFile, match="No space left"):
        patch.setattr(os, "fsync", full)
        images.save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    images.save(path)
    assert path.read_bytes() != b"before"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InvalidFile):
        images.save(tmp_path / f"folder{suffix}")


def test_choices_for_pictures_are_refused_for_figures(images: Attribution, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cmap"):
        images.save(tmp_path / "a.npz", cmap="bwr")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_file_is_an_error(images: Attribution, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    images.save(path)
    whole = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole) - 1, 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidFile):
            load(path)
    path.unlink()
    with pytest.raises(InvalidFile, match="no file"):
        load(path)


def test_other_peoples_files_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickle.npz", relprop=np.array([{"a": 1}], dtype=object))
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.ones(3))
    (tmp_path / "text.npz").write_text("hello")
    save_file({"a": torch.ones(3)}, tmp_path / "other.safetensors")
    save_file({"a": torch.ones(3)}, tmp_path / "header.safetensors", metadata={"relprop": "[]"})
    (tmp_path / "text.safetensors").write_text("hello")
    for path in tmp_path.iterdir():
        with pytest.raises(InvalidFile, match=path.name):
            load(path)


def test_a_file_that_lacks_a_field_or_is_of_another_version_is_an_error(images: Attribution, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    images.save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["relprop"].tobytes())

    def rewritten(header: dict[str, Any], without: str = "") -> Path:
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(path, **{name: array for name, array in {**arrays, "relprop": text}.items() if name != without})
        return path

    for field in ("rules", "labels", "notes", "structure", "operations"):
        with pytest.raises(InvalidFile, match=field):
            load(rewritten({name: value for name, value in header.items() if name != field}))
    for tensor in ("score", "relevance.0", "inputs.0", "layers.0"):
        with pytest.raises(InvalidFile, match=tensor):
            load(rewritten(header, without=tensor))
    with pytest.raises(InvalidFile, match="version 2"):
        load(rewritten({**header, "version": 2}))
    with pytest.raises(InvalidFile, match="batch"):
        arrays["score"] = arrays["score"][:2]
        load(rewritten(header))
