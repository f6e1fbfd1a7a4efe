"""Batches: a dataset is explained as its samples are one by one, within the memory that is given."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from relprop import batches, progress
from relprop.attribution import Attribution
from relprop.batches import Need
from relprop.errors import InvalidInput, InvalidTarget, NonFinite, RelpropError
from relprop.explainer import Explainer

SAMPLES = 11


class Two(nn.Module):
    """A model of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.linear(torch.cat([a, b], -1)).relu()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def explainer() -> Explainer:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Explainer(nn.Sequential(*layers, nn.Linear(4, 5)).double().eval(), "epsilon-plus")


@pytest.fixture
def data() -> Tensor:
    return torch.randn(SAMPLES, 3, 8, 8, dtype=torch.float64)


def joined(found: Iterator[Attribution]) -> Tensor:
    return torch.cat([each.relevance for each in found])


class Mapped(Dataset[Any]):
    """A dataset that is asked by index."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    """A dataset whose length isn't known."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class TestResults:
    @pytest.mark.parametrize("batch", [1, 4, 100])
    def test_they_are_those_of_the_samples_one_by_one(self, explainer: Explainer, data: Tensor, batch: int) -> None:
        alone = torch.cat([explainer(x[None], 2).relevance for x in data])
        found = list(explainer.batches(data, 2, batch=batch))
        assert [len(each.score) for each in found] == [len(part) for part in data.split(batch)]
        torch.testing.assert_close(joined(iter(found)), alone, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize(
        "target", [None, 3, list(range(5)) * 2 + [0], torch.arange(SAMPLES) % 5, np.arange(SAMPLES) % 5]
    )
    def test_targets(self, explainer: Explainer, data: Tensor, target: Any) -> None:
        expected = explainer(data, target.tolist() if isinstance(target, np.ndarray) else target)
        found = list(explainer.batches(data, target, batch=4))
        torch.testing.assert_close(joined(iter(found)), expected.relevance)
        assert torch.equal(torch.cat([each.target for each in found]), expected.target)

    def test_a_function_as_target(self, explainer: Explainer, data: Tensor) -> None:
        def margin(output: Tensor) -> Tensor:
            return output[:, 0] - output[:, 1]

        expected = explainer(data, margin).relevance
        torch.testing.assert_close(joined(explainer.batches(data, margin, batch=4)), expected)

    @pytest.mark.parametrize("form", ["list", "mapped", "tensors", "loader", "generator", "pairs of ints"])
    def test_forms_of_data_with_labels(self, explainer: Explainer, data: Tensor, form: str) -> None:
        labels = torch.arange(SAMPLES) % 5
        pairs = list(zip(data, labels, strict=True))
        forms: dict[str, Any] = {
            "list": pairs,
            "mapped": Mapped(pairs),
            "tensors": TensorDataset(data, labels),
            "loader": DataLoader(TensorDataset(data, labels), batch_size=3),
            "generator": (pair for pair in pairs),
            "pairs of ints": [(x, int(label)) for x, label in pairs],
        }
        found = joined(explainer.batches(forms[form], "label", batch=4))
        torch.testing.assert_close(found, explainer(data, labels.tolist()).relevance)

    @pytest.mark.parametrize("kind", [np.int64, lambda i: torch.tensor([i]), "abcde".__getitem__])
    @pytest.mark.parametrize("loader", [False, True])
    def test_forms_of_labels(self, explainer: Explainer, data: Tensor, kind: Any, loader: bool) -> None:
        named = Explainer(explainer.model, "epsilon-plus", labels=list("abcde"))
        classes = [i % 5 for i in range(SAMPLES)]
        pairs: Any = [(x, kind(i)) for x, i in zip(data, classes, strict=True)]
        found = joined(named.batches(DataLoader(pairs, 3) if loader else pairs, "label", batch=4))
        torch.testing.assert_close(found, named(data, classes).relevance)

    @pytest.mark.parametrize("label", [3, "dog", np.int64(3), np.array(3), 3.0, np.float32(3), torch.tensor(3), True])
    def test_labels_are_ignored_without_being_asked_for(
        self, explainer: Explainer, data: Tensor, label: object
    ) -> None:
        found = joined(explainer.batches([(x, label) for x in data], batch=4))
        torch.testing.assert_close(found, explainer(data).relevance)

    @pytest.mark.parametrize("loader", [False, True])
    def test_a_tuple_of_one_tensor_counts_as_the_tensor(self, explainer: Explainer, data: Tensor, loader: bool) -> None:
        alone = TensorDataset(data)
        found = joined(explainer.batches(DataLoader(alone, 3) if loader else alone, 1, batch=4))
        torch.testing.assert_close(found, explainer(data, 1).relevance)

    def test_samples_of_several_inputs_and_named_ones(self) -> None:
        explainer = Explainer(Two().eval(), "epsilon")
        a, b = torch.randn(2, 5, 2)
        expected = explainer((a, b), 0).relevance
        for samples in (list(zip(a, b, strict=True)), [{"a": x, "b": y} for x, y in zip(a, b, strict=True)]):
            found = list(explainer.batches(samples, 0, batch=2))
            keys = (0, 1) if isinstance(samples[0], tuple) else ("a", "b")
            for key, r in zip(keys, expected, strict=True):
                torch.testing.assert_close(torch.cat([each.relevance[key] for each in found]), r)

    @pytest.mark.parametrize("loader", [None, 2, 3, 5])
    @pytest.mark.parametrize("named", [False, True])
    @pytest.mark.parametrize("target", ["label", 1])
    def test_samples_of_several_inputs_with_labels(self, loader: int | None, named: bool, target: Any) -> None:
        explainer, (a, b), labels = Explainer(Two().eval(), "epsilon"), torch.randn(2, 5, 2), [2, 0, 1, 1, 0]
        pairs: Any = [({"a": x, "b": y} if named else (x, y), label) for x, y, label in zip(a, b, labels, strict=True)]
        expected = explainer((a, b), labels if target == "label" else 1).relevance
        found = list(explainer.batches(DataLoader(Mapped(pairs), loader) if loader else Mapped(pairs), target, batch=4))
        for key, r in zip(("a", "b") if named else (0, 1), expected, strict=True):
            torch.testing.assert_close(torch.cat([each.relevance[key] for each in found]), r)

    def test_a_collation_into_lists_of_samples(self, explainer: Explainer, data: Tensor) -> None:
        pairs: Any = list(zip(data, [i % 5 for i in range(SAMPLES)], strict=True))
        loader = DataLoader(pairs, 4, collate_fn=lambda batch: tuple(zip(*batch, strict=True)), drop_last=True)
        found = joined(explainer.batches(loader, "label", batch=4))
        torch.testing.assert_close(found, explainer(data[:8], [label for _, label in pairs[:8]]).relevance)

    def test_a_new_shape_begins_a_new_batch(self, explainer: Explainer) -> None:
        sizes = [8, 8, 8, 6, 6, 8]
        data = [torch.randn(3, size, size, dtype=torch.float64) for size in sizes]
        found = list(explainer.batches(data, 1, batch=2))
        assert [tuple(each.relevance.shape[::2]) for each in found] == [(2, 8), (1, 8), (2, 6), (1, 8)]
        alone = [explainer(x[None], 1).relevance[0] for x in data]
        for r, expected in zip([r for each in found for r in each.relevance], alone, strict=True):
            torch.testing.assert_close(r, expected)

    def test_layers_are_those_of_the_batch(self, explainer: Explainer, data: Tensor) -> None:
        found = torch.cat([each.layers["2"] for each in explainer.batches(data, 1, batch=4, layers=["2"])])
        torch.testing.assert_close(found, explainer(data, 1, layers=["2"]).layers["2"])

    def test_other_methods(self, explainer: Explainer, data: Tensor) -> None:
        gradient = Explainer(explainer.model, method="gradient")
        torch.testing.assert_close(joined(gradient.batches(data, 1, batch=4)), gradient(data, 1).relevance)


class TestMemory:
    def sizes(self, explainer: Explainer, data: Any, memory: Any) -> list[int]:
        return [len(each.score) for each in explainer.batches(data, 1, memory=memory)]

    def test_twice_the_memory_twice_the_batch(self, monkeypatch: pytest.MonkeyPatch, data: Tensor) -> None:
        monkeypatch.setattr(batches, "_process", lambda field: 0)
        explainer = Explainer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval())
        need = explainer._need(data[:1].float(), 1)
        memory = int((3 * need.sample + need.once) / batches.PLANNED) + 9
        more = int((6 * need.sample + need.once) / batches.PLANNED) + 9
        assert self.sizes(explainer, data.float(), memory) == [3, 3, 3, 2]
        assert self.sizes(explainer, data.float(), more) == [6, 5]

    def test_a_need_is_of_what_is_kept_and_grows_with_the_sample(self, explainer: Explainer) -> None:
        small, large = (explainer._need(torch.randn(1, 3, n, n, dtype=torch.float64), 1) for n in (20, 38))
        assert 3.5 < large.sample / small.sample < 5  # the area is 3.61 times as large
        # Two convolutions' outputs, twice as what comes before and after a ReLU, at least.
        assert small.sample > 8 * 4 * (18 * 18 + 16 * 16)
        assert small.once > 0

    def test_segments_need_less(self, data: Tensor) -> None:
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8)) for _ in range(60))).eval()
        x = torch.randn(1, 8)
        whole, parts = (Explainer(model, "epsilon", segments=s)._need(x, 1).sample for s in (None, "auto"))
        assert parts < 0.5 * whole

    def test_where_less_was_taken_more_is_planned(self, monkeypatch: pytest.MonkeyPatch, data: Tensor) -> None:
        explainer = Explainer(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval(), "epsilon")
        many = torch.randn(40, 3, 8, 8)
        need = explainer._need(many[:1], 1)
        memory = int((4 * need.sample + need.once) / batches.PLANNED) + 9
        peak = {"VmRSS": 0, "VmHWM": need.once + int(4 * need.sample / 1.5)}
        monkeypatch.setattr(batches, "_process", peak.__getitem__)
        assert self.sizes(explainer, many, memory)[:2] == [4, 6]

    def test_too_little_is_said_with_the_sample(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidInput, match=r"sample 0 alone takes about .*segments="):
            next(explainer.batches(data, 1, memory="1 KiB"))

    def test_little_is_said_in_its_own_unit(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidInput, match=r"about [\d.]+ KiB.* [\d.]+ KiB; with a reserve, 1000 bytes are"):
            next(explainer.batches(data, 1, memory="1 KB"))

    @pytest.mark.parametrize(
        ("count", "expected"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 20, "3 MiB")]
    )
    def test_how_sizes_are_said(self, count: int, expected: str) -> None:
        assert batches._size(count) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("4 GiB", 4 << 30),
            ("1.5gb", 1_500_000_000),
            ("300 MiB", 300 << 20),
            ("2 G", 2 * 10**9),
            ("9 B", 9),
            (77, 77),
        ],
    )
    def test_sizes_of_memory(self, text: Any, expected: int) -> None:
        assert batches._bytes(text) == expected

    @pytest.mark.parametrize("text", ["much", "", "-1 GiB", "0 GiB", "0.5 B", 0, -5, 1.5, True])
    def test_what_is_no_size(self, explainer: Explainer, data: Tensor, text: Any) -> None:
        with pytest.raises(InvalidInput, match=r'"4 GiB"'):
            explainer.batches(data, memory=text)

    def test_a_size_without_a_unit(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidInput, match=r"got '0\.5', a size without a unit; write \"0\.5 GiB\""):
            explainer.batches(data, memory="0.5")

    def test_half_of_what_is_free_by_default(
        self, explainer: Explainer, data: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        monkeypatch.setattr(batches, "available", lambda: 10**9)
        monkeypatch.setattr(Need, "fitting", lambda need, memory: asked.append(memory) or 6)
        assert [len(each.score) for each in explainer.batches(data)] == [6, 5]
        assert set(asked) == {5 * 10**8}

    @pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is known on Linux only")
    def test_it_stays_below_the_limit(self) -> None:
        """In a process of its own, by the kernel's account."""
        program = """
import sys, torch
from pathlib import Path
from torch import nn
from relprop.batches import _process
from relprop.explainer import Explainer
torch.set_num_threads(1)
block = lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
model = nn.Sequential(nn.Conv2d(3, 8, 1), *(block() for _ in range(4)), nn.Flatten(), nn.Linear(8 * 64 * 64, 2)).eval()
explainer = Explainer(model, "epsilon-plus")
data = torch.randn(40, 3, 64, 64)
explainer(data[:1], 1)
before = _process("VmRSS")
sizes = [len(each.score) for each in explainer.batches(data, 1, memory="100 MiB")]
print(max(sizes), _process("VmHWM") - before)
"""
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        assert int(out[0]) > 1
        assert 0.4 * (100 << 20) < int(out[1]) < 100 << 20


class TestRefusals:
    def test_memory_and_batch(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidInput, match="not both"):
            explainer.batches(data, memory="1 GiB", batch=3)

    @pytest.mark.parametrize("batch", [0, -1, 2.5, True])
    def test_what_is_no_batch(self, explainer: Explainer, data: Tensor, batch: Any) -> None:
        with pytest.raises(InvalidInput, match="a number of samples"):
            explainer.batches(data, batch=batch)

    def test_other_methods_need_a_batch(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidInput, match="give batch="):
            Explainer(explainer.model, method="gradient").batches(data)

    @pytest.mark.parametrize("data", [[], torch.empty(0, 3, 8, 8)])
    def test_no_samples(self, explainer: Explainer, data: Any) -> None:
        with pytest.raises(InvalidInput, match="no samples"):
            explainer.batches(data, batch=1)

    @pytest.mark.parametrize("data", [iter(()), Stream(()), DataLoader(Stream(()))])
    def test_no_samples_of_a_stream(self, explainer: Explainer, data: Any) -> None:
        with pytest.raises(InvalidInput, match="no samples"):
            next(explainer.batches(data, batch=1))

    @pytest.mark.parametrize("data", ["pictures", "", Path("pictures"), {"x": torch.ones(2, 3)}, {}, 5])
    def test_what_is_no_data(self, explainer: Explainer, data: Any) -> None:
        with pytest.raises(InvalidInput, match=r"data: got a \w+, expected a tensor \(samples, \.\.\.\), or a list"):
            explainer.batches(data, batch=1)

    def test_one_value_is_no_data(self, explainer: Explainer) -> None:
        with pytest.raises(InvalidInput, match=r"expected a tensor \(samples"):
            explainer.batches(torch.tensor(3.0), batch=1)

    @pytest.mark.parametrize("target", [1, "label"])
    @pytest.mark.parametrize(
        ("sample", "message"), [("a", "holds a str"), (np.ones(3), r"holds a ndarray.*write torch\.from_numpy")]
    )
    def test_what_is_no_sample(self, explainer: Explainer, sample: Any, message: str, target: Any) -> None:
        with pytest.raises(InvalidInput, match=f"sample 0 {message}"):
            next(explainer.batches([(sample, 2)], target, batch=1))

    def test_a_batch_that_is_no_batch(self, explainer: Explainer, data: Tensor) -> None:
        for part in ([data[:3], torch.arange(2)], {"x": data[:3], "y": torch.tensor(1)}, [(data[0], torch.tensor(1))]):
            loader = DataLoader(Mapped([0]), collate_fn=lambda _, part=part: part)
            with pytest.raises(InvalidInput, match=r"a batch of the DataLoader holds .*3, 8, 8\).*can't be split"):
                next(explainer.batches(loader, batch=1))

    def test_a_list_that_may_be_of_samples_or_of_inputs(self, explainer: Explainer, data: Tensor) -> None:
        pairs: Any = [(x, 1) for x in data]
        loader = DataLoader(pairs, 3, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))
        with pytest.raises(InvalidInput, match=r"where a list may be of samples, or of several inputs.*as a dict"):
            next(explainer.batches(loader, "label", batch=1))

    @pytest.mark.parametrize("memory", [{"batch": 2}, {"memory": "1 GiB"}])
    def test_a_batchs_dimension_too_many_or_missing(
        self, explainer: Explainer, data: Tensor, memory: dict[str, Any]
    ) -> None:
        said = r"^sample 0: .* Samples are given without the batch's dimension; this one has shape "
        with pytest.raises(RelpropError, match=said + r"\(1, 3, 8, 8\)$"):
            next(explainer.batches([x[None] for x in data], 1, **memory))
        with pytest.raises(RelpropError, match=said + r"\(8, 8\)$"):
            next(explainer.batches(data[0], 1, **memory))

    def test_a_batchs_dimension_that_is_found_in_the_output(self) -> None:
        linear = Explainer(nn.Sequential(nn.Linear(4, 3)).eval(), "epsilon")
        with pytest.raises(InvalidTarget, match=r"Samples are given without .* shape \(1, 4\)"):
            next(linear.batches([torch.ones(1, 4)], 1, batch=1))
        with pytest.raises(InvalidTarget, match=r"out of range[^.]*$"):
            next(linear.batches([torch.ones(4)], 9, batch=1))

    def test_a_label_that_was_taken_for_an_input(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(RelpropError, match=r"\(\(3, 8, 8\), \(1,\)\)\. .*label, write target=\"label\""):
            next(explainer.batches([(data[0], torch.tensor([3]))], batch=1))

    @pytest.mark.parametrize(
        ("label", "shown"),
        [
            (3.0, r"3\.0"),
            (torch.tensor(3.0), r"3\.0"),
            (torch.ones(2), r"of shape \(2,\)"),
            (None, "None"),
        ],
    )
    def test_what_is_no_label(self, explainer: Explainer, data: Tensor, label: Any, shown: str) -> None:
        message = f"sample 0: the label {shown} is no class: expected an index or a class name"
        with pytest.raises(InvalidTarget, match=message):
            next(explainer.batches([(data[0], label)], "label", batch=1))

    def test_a_label_that_the_model_does_not_know(self, explainer: Explainer, data: Tensor) -> None:
        named = Explainer(explainer.model, "epsilon-plus", labels=list("abcde"))
        with pytest.raises(InvalidTarget, match="sample 1: there is no class named 'x'"):
            next(named.batches([(data[0], "a"), (data[1], "x")], "label", batch=2))

    def test_labels_that_are_not_there(self, explainer: Explainer, data: Tensor) -> None:
        with pytest.raises(InvalidTarget, match=r"\(sample, label\) pairs; sample 0 is a Tensor"):
            list(explainer.batches(data, "label", batch=2))
        with pytest.raises(InvalidTarget, match=r"\(sample, label\) pairs; sample 0 is a tuple of 1"):
            list(explainer.batches(TensorDataset(data), "label", batch=2))

    @pytest.mark.parametrize("count", [SAMPLES - 1, SAMPLES + 1])
    def test_another_number_of_targets(self, explainer: Explainer, data: Tensor, count: int) -> None:
        with pytest.raises(InvalidTarget, match=f"got {count} targets"):
            list(explainer.batches(data, [0] * count, batch=2))

    def test_an_error_names_the_sample_and_keeps_its_type(self, explainer: Explainer, data: Tensor) -> None:
        data[7, 0, 0, 0] = float("nan")
        found = explainer.batches(data, 1, batch=4)
        next(found)
        with pytest.raises(NonFinite, match=r"^sample 7: "):
            next(found)

    def test_a_models_own_error_names_the_sample_too(self) -> None:
        reader = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2)).eval()
        data = torch.tensor([[0, 1], [2, 3], [1, 9]])
        with pytest.raises(RelpropError, match=r"^sample 2: "):
            list(Explainer(reader, "epsilon").batches(data, 1, batch=3))


class TestProgress:
    def test_a_function_is_told(self, explainer: Explainer, data: Tensor) -> None:
        told: list[tuple[int, int | None]] = []
        list(explainer.batches(data, 1, batch=4, progress=lambda done, total: told.append((done, total))))
        assert told == [(4, 11), (8, 11), (11, 11)]

    def test_of_a_stream_the_end_is_not_known(self, explainer: Explainer, data: Tensor) -> None:
        told: list[tuple[int, int | None]] = []
        list(explainer.batches(iter(data), 1, batch=8, progress=lambda done, total: told.append((done, total))))
        assert told == [(8, None), (11, None)]

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_bar_is_for_terminals(
        self, explainer: Explainer, data: Tensor, terminal: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        list(explainer.batches(data, 1, batch=4, progress=True))
        assert ("11 of 11" in stream.getvalue()) is terminal

    @pytest.mark.parametrize("kind", [iter, lambda data: DataLoader(Stream(data)), DataLoader])
    def test_without_a_known_end_samples_are_counted(
        self, explainer: Explainer, data: Tensor, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "EVERY", 0.0)
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", stream)
        list(explainer.batches(kind(data), 1, batch=8, progress=True))
        assert re.findall(r"explaining samples +([\d,]+)\r", stream.getvalue()) == ["8", "11"]
        assert stream.getvalue().endswith("\r\x1b[K")
