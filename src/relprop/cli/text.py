"""`relprop text`: paint the words of a text that made a model decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relprop.cli import completion, options
from relprop.cli.console import Exit, answer, complain, exit_code, figure, reporting, table, terminal
from relprop.cli.texts import Source
from relprop.cli.texts import sources as sources_of
from relprop.errors import InvalidInput, RelpropError
from relprop.progress import telling

if TYPE_CHECKING:
    from relprop.cli.text_network import TextNetworks
    from relprop.cli.ways import Ways
    from relprop.text import TextAttribution, TextExplainer

STRONGEST = 5
FLOW_ENDINGS = (".svg", ".png", ".html")
ENDINGS = (".html", ".svg", ".png", ".json", ".npz")


@reporting
def text(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="The text, in quotes; - reads it from standard input.", show_default=False),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A text file, explained as one text; several times for several."
        ),
    ] = None,
    lines: options.Lines = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=completion.text_models,
            help="A text model of the zoo (`relprop models` lists them), or a folder with a model and a tokenizer of "
            "Hugging Face (save_pretrained). Without it: reviews-ko for Korean, else reviews-en.",
        ),
    ] = None,
    target: options.Targets = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            autocompletion=completion.classes,
            help="Explain why the target and not this class; of a language model, this token. Without --target: why "
            "what the model itself says.",
        ),
    ] = None,
    truncation: Annotated[
        bool, typer.Option("--truncation", help="Cut texts that are longer than a Hugging Face model reads.")
    ] = False,
    method: options.Methods = None,
    rules: options.Presets = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where to write the heatmaps: .html, .svg or .png; .json for the figures, .npz for those of a single "
            "explanation.",
        ),
    ] = None,
    flow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write how relevance flows through the blocks of a Transformer, from word to word: .svg, "
            ".png or .html; of one explanation by lrp.",
        ),
    ] = None,
    labels: options.Labels = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Explain what a model reads in a text: its words in colour, and the strongest of them in a table.

    Red speaks for the class, blue against it. Heatmaps are printed here, and written with --out.

    [bold]Examples[/]

    relprop text "이 영화 진짜 재미없다"

    relprop text "Not bad at all, but far too long." --target positive

    relprop text "A warm, funny film." --method lrp,gradient --out map.html

    relprop text --file review.txt --rules epsilon --out map.png

    relprop text --lines reviews.txt --json > result.json

    relprop text "Funny and never dull." --model reviews-en-transformer --flow flow.svg

    relprop text "The capital of France is" --model my-gpt2 --target " Paris" --against " London"

    cat review.txt | relprop text -
    """
    from relprop.cli.text_network import TextNetworks
    from relprop.cli.ways import Ways

    if out is not None and out.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(
            f"{str(out)!r} names no kind of file: write one of {', '.join(ENDINGS)}", param_hint="--out"
        )
    if flow is not None and flow.suffix.lower() not in FLOW_ENDINGS:
        raise typer.BadParameter(
            f"{str(flow)!r} names no kind of picture: write one of {', '.join(FLOW_ENDINGS)}", param_hint="--flow"
        )
    sources = list(sources_of(words or [], file or [], lines))
    ways = Ways(rules, method)
    networks = TextNetworks(model, labels, truncation=truncation, attention=flow is not None)
    work = _Work(networks, ways, list(dict.fromkeys(target or [])) or [None], against)
    if flow is not None and (len(sources) * len(work.targets) * len(ways) > 1 or ways.methods != ["lrp"]):
        raise typer.BadParameter("it shows one explanation: of one text, for one target, by lrp", param_hint="--flow")
    found, told, errors = _each(sources, work, verbose)
    paths = {"written": _written(found, out), "flow": _flow(found, flow)}
    written = {what: path for what, path in paths.items() if path is not None}
    if as_json:
        answer({"texts": told, **written})
    else:
        _print(found, list(written.values()))
    if errors:
        raise typer.Exit(Exit.SOME_FAILED if len(errors) < len(sources) else exit_code(errors[0]))


@dataclass
class _Work:
    """What is done with each text."""

    networks: TextNetworks
    ways: Ways
    targets: Sequence[str | None]
    against: str | None

    def __call__(self, source: Source) -> tuple[str, list[TextAttribution]]:
        """The name of the model, and the explanations of the text: for each target, by each preset and method."""
        if source.error is not None:
            raise source.error
        net, explainer = self.networks.of(source.text)
        wanted = [_target(explainer, target, self.against) for target in self.targets]
        compared = [self.ways.explain(explainer, source.text, target, net.rules) for target in wanted]
        return net.name, [explained for each in compared for explained in each.values()]


def _target(explainer: TextExplainer, target: str | None, against: str | None) -> Any:
    """What is asked for: classes by name or index, tokens by their text."""
    from relprop.targets import contrast
    from relprop.text.heads import Head, head_of

    of_tokens = head_of(explainer.explainer.model) in (Head.NEXT, Head.DECODER, Head.MASKED)
    labels = explainer.explainer.labels
    wanted = target if of_tokens else options.target_of(target, labels)
    if against is None:
        return wanted
    return contrast(wanted, against if of_tokens else options.target_of(against, labels))


def told_of(attribution: TextAttribution) -> dict[str, Any]:
    """What is told of one explanation, for JSON."""
    from dataclasses import asdict

    relevance = float(attribution.total[0])
    return {
        "method": attribution.method,
        "rules": attribution.rules,
        "class": attribution.label,
        "index": None if attribution.target is None else int(attribution.target[0]),
        "score": float(attribution.score[0]),
        "relevance": relevance,
        "difference": float(attribution.score[0]) - relevance,
        "words": [asdict(word) for word in attribution.words],
        "special": [asdict(token) for token in attribution.special],
        "notes": list(attribution.notes),
    }


def _each(
    sources: Sequence[Source], work: _Work, verbose: bool
) -> tuple[list[tuple[Source, str, list[TextAttribution]]], list[dict[str, Any]], list[RelpropError]]:
    """What was found of each text, what JSON tells of it, and the errors among it."""
    found: list[tuple[Source, str, list[TextAttribution]]] = []
    told: list[dict[str, Any]] = []
    errors: list[RelpropError] = []
    with telling(len(sources) > 1, "explaining texts") as tell:
        for done, source in enumerate(sources, start=1):
            try:
                name, explained = work(source)
            except RelpropError as error:
                complain(error, source.name, verbose)
                errors.append(error)
                failed = {"type": type(error).__name__, "message": str(error)}
                told.append({"source": source.name, "error": failed})
            else:
                found.append((source, name, explained))
                explanations = [told_of(each) for each in explained]
                told.append({"source": source.name, "text": source.text, "model": name, "explanations": explanations})
            tell(done, len(sources))
    return found, told, errors


def _written(found: Sequence[tuple[Source, str, list[TextAttribution]]], out: Path | None) -> str | None:
    """The file that was written, if one was asked for and there is something to write."""
    from relprop.text import save

    explained = [each for _, _, several in found for each in several]
    if len(found) > 1:  # several texts in one file
        explained = [replace(each, source=source.name) for source, _, several in found for each in several]
    if out is None or not explained:
        return None
    save(explained, out)
    return str(out)


def _flow(found: Sequence[tuple[Source, str, list[TextAttribution]]], path: Path | None) -> str | None:
    """The picture of flow that was written, if one was asked for and there is an explanation."""
    if path is None or not found:
        return None
    _, name, (explained,) = found[0]
    if not explained.attribution.attention:
        raise InvalidInput(f"--flow is for models with attention, and {name} has none; reviews-en-transformer has")
    explained.flow().save(path)
    return str(path)


def _print(found: Sequence[tuple[Source, str, list[TextAttribution]]], written: Sequence[str]) -> None:
    from relprop.view.text_terminal import show, visible

    console = terminal()
    for source, name, explained in found:
        if len(found) > 1:
            console.rule(visible(f"{source.name} ({name})"), align="left", characters="-")
        for each in explained:
            show(each.passage(), console)
            rows = [
                (
                    visible(" ".join(word.text.split())),
                    figure(word.relevance),
                    "not in the vocabulary" if word.unknown else "",
                )
                for word in each.strongest[:STRONGEST]
            ]
            console.print(table(("strongest words", "relevance", ""), rows, right=("relevance",)))
    for path in written:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
