/** The tab "Series": numbers for a model of one's own that reads vectors or channels over time. */

import { scores } from "/viewer/viewer.js";
import { afterQuiet, button, h, unique } from "./dom.js";
import { frame, localScores, networkChoice, panel, slot } from "./page.js";
import { parseRules, rulesChoice, rulesText } from "./rules.js";
import { Newest, behind, explain } from "./server.js";
import { asIndex } from "./state.js";
import { t } from "./words.js";

/** @returns {import("./app.js").Tab} */
export function series(context) {
  const { about } = context;
  const models = about.models.filter((model) => model.kind === "series");
  const start = { model: context.first(models), text: "", rules: "", target: null };
  const view = { ...start };
  const explained = slot(t("series.waiting"), "explained");
  const bars = scores([], { selected: null, choose: (index) => update({ target: index }) });
  const follow = button({ text: t("target.follow"), look: "quiet", click: () => update({ target: null }) });
  const network = networkChoice(models, view.model, (name) =>
    update({ model: name, rules: modelOf(name).rules_default, target: null }),
  );
  const rules = rulesChoice({
    about,
    model: current(),
    value: current().rules_default,
    change: (value) => update({ rules: value }),
  });
  const input = h("textarea", {
    id: unique("series"),
    class: "numbers",
    rows: 8,
    spellcheck: "false",
    on: { input: () => ((view.text = input.value), settle()) },
  });
  const hint = h("p", { class: "hint" });
  const element = frame(
    "series",
    null,
    h(
      "div",
      { class: "bench" },
      h("div", { class: "stage" }, explained),
      h(
        "div",
        { class: "side" },
        panel(
          "",
          "source",
          h("div", { class: "field" }, h("label", { for: input.id }, t("series.numbers")), input),
          hint,
        ),
        panel(t("scores"), "decision", bars, follow),
        panel(t("photo.how"), "how", network, rules),
      ),
    ),
  );
  const newest = new Newest(explain, { done, failed: element.tell, busy: element.busy });
  const settle = afterQuiet(250, () => ask(false));

  function modelOf(name) {
    return models.find((model) => model.name === name);
  }

  function current() {
    return modelOf(view.model);
  }

  function update(changes) {
    Object.assign(view, changes);
    show();
    ask(true);
  }

  function show() {
    network.control.value = view.model;
    rules.set(current(), view.rules);
    follow.hidden = view.target === null;
    hint.textContent = current().input ? t("series.shape", { shape: current().input.join(" x ") }) : t("series.hint");
  }

  function ask(step) {
    context.changed(step);
    const { rows, wrong } = readNumbers(view.text);
    input.setAttribute("aria-invalid", String(Boolean(wrong)));
    if (wrong) return element.tell({ message: t("series.wrong", wrong) });
    element.tell(null);
    if (!rows.length) return explained.clear();
    const questions = [{ method: "lrp", rules: view.rules, layer: null }];
    return newest.ask({ model: view.model, input: { values: rows }, target: view.target, questions });
  }

  function done(answer, body) {
    const [sheet] = answer.sheets;
    element.tell(null);
    bars.update(localScores(answer.scores), { selected: answer.target?.index });
    const asked = { ...body, target: answer.target?.index ?? null };
    explained.show(sheet, {
      heading: t("evidence.of", { name: answer.target?.name ?? sheet.title }),
      ...behind(asked, body.questions[0]),
    });
    context.announce(t("photo.said", { name: answer.scores[0].name, explained: answer.target?.name ?? "" }));
  }

  return {
    name: "series",
    element,
    values: () => ({
      model: view.model === start.model ? "" : view.model,
      text: view.text,
      rules: rulesText(view.rules, current()),
      target: view.target ?? "",
    }),
    apply(values) {
      Object.assign(view, start, {
        model: modelOf(values.model)?.name ?? start.model,
        text: values.text ?? "",
        target: asIndex(values.target),
      });
      view.rules = parseRules(values.rules, current());
      input.value = view.text;
      show();
      ask(false);
    },
  };
}

/** Rows of numbers, apart by commas or spaces: {rows}, or {wrong: {line, text}} for the first that is none. */
function readNumbers(text) {
  const lines = text.split("\n");
  const rows = [];
  for (const [at, line] of lines.entries()) {
    const parts = line.split(/[\s,;]+/).filter(Boolean);
    const strange = parts.find((part) => !Number.isFinite(Number(part)));
    if (strange !== undefined) return { rows: [], wrong: { line: at + 1, text: strange } };
    if (parts.length) rows.push(parts.map(Number));
  }
  return { rows };
}
