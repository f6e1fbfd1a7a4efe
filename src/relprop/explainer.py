"""The front door: explain() for one call, Explainer for many inputs, check() for a report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from relprop.attribution import Attribution
from relprop.conservation import OperationFlow
from relprop.engine.trace import Trace
from relprop.engine.weights import PreparedWeights
from relprop.errors import InvalidInput, InvalidRule, InvalidTarget, RelpropError, UnsupportedFunction
from relprop.inputs import Inputs, checked_bounds, checked_inputs, checked_labels, require_within
from relprop.models import module_names, prepare, refuse_training
from relprop.models.huggingface import apart, is_pipeline, model_of, names_of_classes, pixels_of
from relprop.presets import Bounds, Rules, rule_map
from relprop.report import Report
from relprop.rulemap import RuleMap
from relprop.rules import Rule
from relprop.session import Seed, Session, Start, detached, flow_of, released_buffers, structured
from relprop.targets import Target

if TYPE_CHECKING:
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
    labels: class names, default `model.labels` or `model.config.id2label` if the model has them.

    Returns an Attribution, or a list of them for targets=[...]. Raises children of relprop.errors.RelpropError.
    """
    explainer = Explainer(model, rules, method=method, bounds=bounds, labels=labels)
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
    """

    def __init__(
        self,
        model: Callable[..., Any],
        rules: Rules = "auto",
        *,
        method: str | Method = "lrp",
        bounds: Bounds | None = None,
        labels: Sequence[str] | None = None,
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
            return of_each[0] if targets is None else of_each
        wanted = [target] if targets is None else list(targets)
        found = [row[0] for row in self._explain(x, wanted, [self._map], seed, layers, attention)]
        return found[0] if targets is None else found

    def compare(
        self,
        x: Inputs,
        rules: Sequence[Rules] = (),
        target: Target = None,
        *,
        methods: Sequence[str | Method] = (),
        layers: Sequence[str] = (),
    ) -> dict[str, Attribution]:
        """Several explanations of the same score: {name of the preset, rule map or method: Attribution}.

        rules: rule maps of LRP, which share one forward pass. methods: as `method` of `explain`; "lrp" stands for this
        explainer's own rules. layers: for the rule maps.
        """
        if isinstance(rules, (str, Rule, RuleMap)):
            raise InvalidRule(f"compare: got {rules!r}, expected a list such as ['epsilon', 'epsilon-plus']")
        if isinstance(methods, str) or not isinstance(methods, Sequence):
            raise InvalidInput(f"compare: got methods={methods!r}, expected a list such as ['lrp', 'gradient']")
        if not rules and not methods:
            raise InvalidInput("compare: give rules=['epsilon', ...], methods=['lrp', 'gradient', ...], or both")
        found: dict[str, Attribution] = {}
        chosen = [_method_of(each) for each in methods]
        if rules:
            maps = [rule_map(r, self.bounds) for r in rules]
            row = self._explain(x, [target], maps, "score", layers)[0]
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
        evaluation = Evaluation(self.model, self._session, checked, target, self.labels)
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
        with self._session(trace, checked, layers) as session:
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
