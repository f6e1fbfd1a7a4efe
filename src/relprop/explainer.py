"""The front door: explain() for one call, Explainer for many inputs, check() for a report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from relprop.attribution import Attribution
from relprop.batches import Need, batches
from relprop.conservation import OperationFlow
from relprop.engine.segments import in_segments, memory_of
from relprop.engine.trace import Trace
from relprop.engine.weights import PreparedWeights
from relprop.errors import InvalidInput, InvalidRule, InvalidTarget, RelpropError, UnsupportedFunction
from relprop.inputs import Inputs, checked_bounds, checked_inputs, checked_labels, require_within
from relprop.models.huggingface import apart, is_pipeline, model_of, names_of_classes, pixels_of
from relprop.models.prepare import module_names, prepare, refuse_training, rehoused
from relprop.models.stages import Segments, stages
from relprop.presets import Bounds, Rules, rule_map
from relprop.progress import Progress
from relprop.report import Report
from relprop.results import Comparison, Explanations
from relprop.rulemap import RuleMap
from relprop.rules import Rule
from relprop.session import Seed, Session, Start, detached, flow_of, released_buffers, structured
from relprop.targets import Target

if TYPE_CHECKING:
    from relprop.export.compiled import Compile, Compiled
    from relprop.methods import Method


def explain(
    model: Callable[..., Any],
    x: Inputs,
    target: Target = None,
    *,
    targets: Sequence[Target] | None = None,
    rules: Rules = "auto",
    method: str | Method = "lrp",
    bounds: Bounds | None = None,
    seed: Seed = "score",
    layers: Sequence[str] = (),
    attention: bool = False,
    segments: Segments | None = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """Redistribute a model's score onto its input by Layer-wise Relevance Propagation, or explain it otherwise.

    model: any PyTorch model in evaluation mode, or a function of tensors; it is not changed. Also a pipeline of Hugging
        Face's transformers for image-classification; for those that read texts see explain_text.
    x: the input, shape (batch, ...); a tuple for positional, a dict for named inputs, as a tokenizer of transformers
        makes with return_tensors="pt". For a pipeline a picture, or a list of them.
    target: None (each sample's highest score), a class index or name, one per sample, a function from the model's
        output to one score per sample, shape (batch,), or one made by relprop.targets. targets=[...]: several, from one
        forward pass.
    rules: a preset's name, a rule, a RuleMap; "auto" decides from the model's operations.
    method: "lrp"; or, to compare with, "gradient", "gradient_x_input", "integrated_gradients", "smoothgrad",
        "guided_backprop", "deconvnet", "occlusion", and by Captum "lime", "grad_cam", "deeplift", "kernel_shap"; with
        options of its own as relprop.methods.IntegratedGradients(steps=100). rules, seed and layers are LRP's.
    bounds: (low, high), the range of valid inputs: numbers, or tensors of shape (channels, 1, 1).
    seed: "score", or the relevance to start from, a tensor shaped like the model's output.
    layers: names of modules whose output's relevance is wanted too, or patterns such as "encoder.layer.*.output".
    attention: True for what passes from token to token too, by attention's heads (`attention`, `heads`, `flow()` of the
        Attribution), and for the relevance at the outputs of a Transformer's blocks (among its `layers`).
    segments: for inputs that need too much memory: "auto", or names or patterns of modules, such as "layer1.*", whose
        values are computed again in the backward pass instead of kept. The explanation is the same, for the time of one
        more forward pass.
    labels: class names, default `model.labels` or `model.config.id2label` if the model has them.

    Returns an Attribution, or a list of them for targets=[...]. Raises children of relprop.errors.RelpropError.
    """
    explainer = Explainer(model, rules, method=method, bounds=bounds, segments=segments, labels=labels)
    return explainer(x, target, targets=targets, seed=seed, layers=layers, attention=attention)


def check(
    model: Callable[..., Any],
    x: Inputs,
    target: Target = None,
    *,
    rules: Rules = "auto",
    bounds: Bounds | None = None,
) -> Report:
    """Which operations a model consists of, which rule each gets, and where relevance is lost.

    Unsupported functions are listed, all of them, instead of raised. Arguments as for `explain`.
    """
    return Explainer(model, rules, bounds=bounds).check(x, target)


class Explainer:
    """Explains many inputs of one model; modified weights are prepared once.

    Arguments as for `explain`. Safe to use from several threads.

    compile: True records the explanation of inputs of a shape when it is first asked for, and from then on runs it
        through torch.compile, which needs a C++ compiler; "graph" runs the recording as it is, without the compiler.
        Both explain classes by LRP alone, and keep no `output`. docs/en/export.md says what that saves.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        rules: Rules = "auto",
        *,
        method: str | Method = "lrp",
        bounds: Bounds | None = None,
        segments: Segments | None = None,
        labels: Sequence[str] | None = None,
        compile: Compile = False,
    ) -> None:
        self._pipeline = model if is_pipeline(model) else None
        self.model = prepare(model if self._pipeline is None else model_of(model, text=False))
        self.bounds = checked_bounds(bounds)
        self.rules = rules
        self.labels = _labels_of(self.model) if labels is None else checked_labels(labels)
        self._prepared = PreparedWeights()
        self._map = rule_map(rules, self.bounds)
        self.method = _method_of(method)
        if self.method is not None and rules != "auto":
            raise InvalidRule(
                f"rules are LRP's: leave rules= away with method={self.method.name!r}, or take method='lrp'"
            )
        if self.method is not None and segments is not None:
            raise InvalidInput(
                f"segments are LRP's: leave segments= away with method={self.method.name!r}, or take method='lrp'"
            )
        self._stages = [] if segments is None else stages(self.model, segments)
        self._compiled: Compiled | None = None
        if compile:
            from relprop.export.compiled import Compiled

            self._compiled = Compiled(self, compile)

    def __call__(
        self,
        x: Inputs,
        target: Target = None,
        *,
        targets: Sequence[Target] | None = None,
        seed: Seed = "score",
        layers: Sequence[str] = (),
        attention: bool = False,
    ) -> Any:
        """An Attribution for `x`, or a list of them, one for each of `targets`. Arguments as for `explain`."""
        if targets is not None and target is not None:
            raise InvalidTarget("give target=... for one target or targets=[...] for several, not both")
        if targets is not None and not targets:
            raise InvalidTarget("targets=[] is empty; give at least one target, or leave it away")
        if targets is not None and (isinstance(targets, str) or not isinstance(targets, Sequence)):
            raise InvalidTarget(f"targets: got {targets!r}, expected a list such as [3, 5]; for one, write target=")
        if not isinstance(seed, str) and (target is not None or targets is not None):
            raise InvalidTarget("give a target, whose score is explained, or a seed to start from, not both")
        if self.method is not None:
            self._require_lrp(self.method, seed, layers, attention)
            of_each = [self._by_method(self.method, x, each) for each in ([target] if targets is None else targets)]
            return of_each[0] if targets is None else Explanations(of_each)
        wanted = [target] if targets is None else list(targets)
        if self._compiled is not None:
            self._compiled.require_plain(seed, layers, attention)
            of_each = [self._compiled(x, each) for each in wanted]
            return of_each[0] if targets is None else Explanations(of_each)
        found = [row[0] for row in self._explain(x, wanted, [self._map], seed, layers, attention)]
        return found[0] if targets is None else Explanations(found)

    def compare(
        self,
        x: Inputs,
        rules: Sequence[Rules] = (),
        target: Target = None,
        *,
        methods: Sequence[str | Method] = (),
        layers: Sequence[str] = (),
        attention: bool = False,
    ) -> Comparison[Attribution]:
        """Several explanations of the same score, a dict {name of the preset, rule map or method: Attribution}.

        rules: rule maps of LRP, which share one forward pass. methods: as `method` of `explain`; "lrp" stands for this
        explainer's own rules. layers, attention: for the rule maps.
        """
        if isinstance(rules, (str, Rule, RuleMap)):
            raise InvalidRule(f"compare: got {rules!r}, expected a list such as ['epsilon', 'epsilon-plus']")
        if isinstance(methods, str) or not isinstance(methods, Sequence):
            raise InvalidInput(f"compare: got methods={methods!r}, expected a list such as ['lrp', 'gradient']")
        if not rules and not methods:
            raise InvalidInput("compare: give rules=['epsilon', ...], methods=['lrp', 'gradient', ...], or both")
        found: Comparison[Attribution] = Comparison()
        chosen = [_method_of(each) for each in methods]
        if rules:
            maps = [rule_map(r, self.bounds) for r in rules]
            row = self._explain(x, [target], maps, "score", layers, attention)[0]
            names = [r if isinstance(r, str) else str(m) for r, m in zip(rules, maps, strict=True)]
            found.update(zip(names, row, strict=True))
        for given, method in zip(methods, chosen, strict=True):
            name = given if isinstance(given, str) else str(given)
            if method is None:
                found[name] = self._explain(x, [target], [self._map], "score", ())[0][0]
            else:
                found[name] = self._by_method(method, x, target)
        return found

    def check(self, x: Inputs, target: Target = None) -> Report:
        """As relprop.check, for this explainer's model and rules."""
        with self._recorded(x, [self._map], report=True) as session:
            if session.trace.unsupported:
                return self._unsupported(session)
            try:
                start = session.start(target, "score", self.labels)
            except UnsupportedFunction:
                return self._unsupported(session)
            relevance, name = session.redistribute(start, self._map)
            return Report(
                session.flows(start),
                (),
                tuple(session.trace.notes),
                rules=name,
                score=float(start.score.double().sum()),
                relevance=sum(float(r.double().sum()) for r in relevance),
            )

    def batches(
        self,
        data: Any,
        target: Target | None = None,
        *,
        memory: str | int | None = None,
        batch: int | None = None,
        progress: bool | Progress = False,
        layers: Sequence[str] = (),
        attention: bool = False,
    ) -> Iterator[Attribution]:
        """Explain a dataset: an Attribution for each batch of samples, in their order.

        data: a tensor (samples, ...); or a list, a Dataset or a DataLoader, whose own batches are taken apart: of
            samples (tensors without the batch's dimension, tuples or dicts of them; a tuple of one is that one), or of
            (sample, label) pairs. A batch holds samples of one shape; a new shape begins a new batch.
        target: as for a call, for all samples; a list or tensor, for each; "label": each sample's own,
            an index or a name.
        memory: what may be used beside model and data, such as "4 GiB", or a number of bytes; None: half of what is
            free. The first sample of each shape is explained to see what that takes; 80 % are planned for.
        batch: samples at a time, instead.
        progress: True for a bar on a terminal or in a notebook, or a function of (samples done, samples in all or
            None).

        Raises children of RelpropError; the message names the sample, counted from 0.
        """
        return batches(
            self, data, target, memory=memory, batch=batch, progress=progress, layers=layers, attention=attention
        )

    def _need(self, x: Inputs, target: Target | None) -> Need:
        """What the explanation of this sample takes."""
        with self._recorded(x, [self._map]) as session:
            kept, largest = memory_of(session.trace, self.model)
            session.redistribute(session.start(target, "score", self.labels), self._map, last=True)
        return Need.of(kept, largest, self._prepared.nbytes)

    def export(
        self, path: str | PathLike[str], example: Inputs, target: Target = None, *, dynamic_batch: bool = True
    ) -> None:
        """Writes this explainer as one program, input in, score and relevance out, which runs without relprop.

        path: a file ending in .pt2, of torch.export: `torch.export.load(path).module()(x)` returns (score, relevance);
            inputs given as a dict here are given by name there.
        example: inputs as for a call; the program takes inputs of the same shapes and types, whatever their values.
        target: a class index or name, for all samples; None for the highest score, with its classes (batch,) as a third
            result; a tensor (batch,) of classes, which become the last input, "target"; or a function or a choice of
            relprop.targets, as for a call.
        dynamic_batch: whether the program takes any number of samples, or as many as the example has.

        Raises children of RelpropError for a method other than LRP, and where values of the input decide what a model
        computes. The program was compared with the explainer on the example before it is written.
        """
        from relprop.export.program import export

        stepwise = self if self._compiled is None else self._compiled.eager
        export(stepwise, path, example, target, dynamic_batch=dynamic_batch)

    def _unsupported(self, session: Session) -> Report:
        operations = tuple(flow_of(op, {}) for op in session.trace.operations)
        return Report(operations, tuple(map(str, session.trace.unsupported)), tuple(session.trace.notes))

    def _explain(
        self,
        x: Inputs,
        targets: Sequence[Target],
        maps: Sequence[RuleMap | None],
        seed: Seed,
        layers: Sequence[str],
        attention: bool = False,
    ) -> list[list[Attribution]]:
        """Attributions by target and rule map, from one forward pass."""
        found = []
        with self._recorded(x, maps, layers=layers, attention=attention) as session:
            session.trace.raise_unsupported()
            starts = [session.start(target, seed, self.labels) for target in targets]
            for i, (start, target) in enumerate(zip(starts, targets, strict=True)):
                row = []
                for j, chosen in enumerate(maps):
                    last = i == len(starts) - 1 and j == len(maps) - 1
                    row.append(self._attribution(session, start, x, target, chosen, seed, last))
                found.append(row)
        return found

    def _attribution(
        self,
        session: Session,
        start: Start,
        x: Inputs,
        target: Target,
        chosen: RuleMap | None,
        seed: Seed,
        last: bool,
    ) -> Attribution:
        relevance, name = session.redistribute(start, chosen, last=last)
        score = start.score  # all that may outlive the session of its start

        def flows_again() -> tuple[OperationFlow, ...]:
            """The explanation once more, with figures for every operation: paid for only when looked at."""
            with self._recorded(x, [chosen], report=True) as again:
                restart = again.start(target, seed, self.labels)
                if not torch.equal(restart.score, score):
                    raise RelpropError(
                        "the model's score is not what it was when this was explained: the model or the input has "
                        "changed since. Explain again to see where relevance goes now"
                    )
                again.redistribute(restart, chosen)
                return again.flows(restart)

        return Attribution(
            relevance=session.structured(relevance),
            score=score,
            target=start.index,
            output=detached(session.output),
            inputs=session.structured([given.tensor.detach() for given in session.used]),
            rules=name,
            labels=self.labels,
            layers=session.relevance_of_layers(),
            attention=session.attention(),
            notes=tuple(session.trace.notes),
            trace_flow=flows_again,
        )

    def _by_method(self, method: Method, x: Inputs, target: Target) -> Attribution:
        """An Attribution by another method than LRP."""
        from relprop.methods.evaluation import Evaluation

        checked = self._checked(x)
        alone = Explainer(rehoused(self.model)) if method.hooks else self
        evaluation = Evaluation(alone.model, alone._session, checked, target, self.labels)
        relevance = method.explain(evaluation)
        facts = evaluation.facts
        keys = [used.key for used in facts.used]
        return Attribution(
            relevance=structured(checked, keys, relevance),
            score=facts.score,
            target=facts.index,
            output=facts.output,
            inputs=structured(checked, keys, facts.inputs),
            rules=str(method),
            labels=self.labels,
            notes=tuple(evaluation.notes),
        )

    @staticmethod
    def _require_lrp(method: Method, seed: Seed, layers: Sequence[str], attention: bool) -> None:
        if not isinstance(seed, str) or seed != "score":
            raise InvalidTarget(
                f"only LRP starts from a seed. With method={method.name!r} give a target, such as "
                "target=lambda output: (seed * output).sum(1)"
            )
        if layers or attention:
            given = "layers=" if layers else "attention="
            raise InvalidInput(f"only LRP explains layers; leave {given} away with method={method.name!r}")

    def _checked(self, x: Inputs) -> Inputs:
        """The inputs, if they and the model can be explained."""
        refuse_training(self.model)
        checked = checked_inputs(x if self._pipeline is None else pixels_of(self._pipeline, x))
        require_within(checked, self.bounds)
        return checked

    @contextlib.contextmanager
    def _recorded(
        self,
        x: Inputs,
        maps: Sequence[RuleMap | None],
        *,
        report: bool = False,
        layers: Sequence[str] = (),
        attention: bool = False,
    ) -> Iterator[Session]:
        """A forward pass recorded for LRP under these rule maps."""
        checked = self._checked(x)
        everywhere = any(chosen is not None and chosen.needs_paths_everywhere for chosen in maps)
        gates = any(chosen is not None and chosen.gives_to_gates for chosen in maps)
        trace = Trace(
            module_names(self.model),
            self._prepared,
            paths_everywhere=everywhere,
            gates=gates,
            report=report,
            attention=attention,
        )
        with in_segments(trace, self._stages) as segments, self._session(trace, checked, layers) as session:
            segments.require_used()
            yield session

    @contextlib.contextmanager
    def _session(self, trace: Trace, x: Inputs, layers: Sequence[str] = ()) -> Iterator[Session]:
        """A forward pass under a trace, whose graph is let go of at the end."""
        try:
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                released_buffers(self.model),
                apart(self.model, x) as given,
            ):
                yield Session(self.model, trace, given, layers)
        finally:
            trace.close()


def _method_of(method: str | Method) -> Method | None:
    """The method that is asked for; None for LRP."""
    if method == "lrp":
        return None
    from relprop.methods import method_of

    return method_of(method)


def _labels_of(model: Any) -> tuple[str, ...] | None:
    """Class names that a model brings along."""
    labels = getattr(model, "labels", None)
    if isinstance(labels, (list, tuple)) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    return names_of_classes(model)
