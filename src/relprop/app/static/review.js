/** The tab "Review": a text, painted while it is typed, by two networks and three methods side by side. */

import { number, scores } from "/viewer/viewer.js";
import { afterQuiet, alternatives, button, h, icon, unique } from "./dom.js";
import { className, frame, localScores, modelTitle, slot } from "./page.js";
import { Newest, behind, explain } from "./server.js";
import { isOwn, language, t, translate } from "./words.js";

const QUIET = 150; // milliseconds without a key before a text is explained
const METHODS = ["lrp", "gradient", "gradient_x_input"];
const KOREAN = /[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]/;

/** The text to begin with, in the language of the interface: of the samples the one that speaks for and against. */
function firstText(samples) {
  const own = samples.filter((one) => one.language === language());
  return (own[2] ?? own[0] ?? samples[0])?.text ?? "";
}

/** @returns {import("./app.js").Tab} */
export function review(context) {
  const { about } = context;
  const models = about.models.filter((model) => model.kind === "text");
  const samples = about.samples.texts;
  const own = models.find(isOwn);
  const start = { text: firstText(samples), language: "auto", target: "" };
  const view = { ...start };
  const history = []; // what was deleted, with the text before: the newest last

  const input = h("textarea", {
    id: unique("review"),
    rows: 3,
    maxlength: about.limits.characters,
    spellcheck: "false",
    placeholder: t("review.placeholder"),
    on: { input: () => typed(input.value) },
  });
  const languages = alternatives({
    label: t("review.language"),
    options: [
      { value: "auto", text: t("review.auto") },
      { value: "en", text: "English", lang: "en" },
      { value: "ko", text: "한국어", lang: "ko" },
      ...(own ? [{ value: "own", text: modelTitle(own) }] : []),
    ],
    value: view.language,
    change: (language) => ((view.language = language), forget(), refresh(true)),
  });
  const targets = h("div", { class: "targets" });
  const deleted = h("div", { class: "deleted", role: "status", hidden: true });
  const columns = h("div", { class: "columns" });
  const sampleList = h(
    "div",
    { class: "quotes", role: "group", "aria-label": t("review.samples") },
    ...samples.map(({ text, language }) =>
      h("button", { type: "button", class: "quote", lang: language, on: { click: () => choose(text) } }, text),
    ),
  );
  const element = frame(
    "review",
    null,
    h(
      "section",
      { class: "panel writing" },
      h("div", { class: "field" }, h("label", { for: input.id }, t("review.text")), input),
      h("div", { class: "controls" }, languages, targets),
      h("details", { class: "samples" }, h("summary", {}, t("review.samples")), sampleList),
    ),
    deleted,
    columns,
  );
  const shown = new Map(); // model name -> its column
  const settle = afterQuiet(QUIET, () => refresh(false));
  let busy = 0;

  function reading() {
    if (view.language !== "auto") return view.language;
    return own ? "own" : KOREAN.test(view.text) ? "ko" : "en";
  }

  function readers() {
    const wanted = reading();
    return models.filter((model) => (wanted === "own" ? isOwn(model) : model.language === wanted && !isOwn(model)));
  }

  function typed(text) {
    view.text = text;
    forget();
    context.changed(false);
    settle();
  }

  function choose(text) {
    Object.assign(view, { text, language: "auto", target: "" });
    forget();
    input.value = text;
    languages.set("auto");
    refresh(true);
  }

  /** Ask every network that reads this language. */
  function refresh(step) {
    settle.cancel();
    context.changed(step);
    const asked = readers();
    for (const [name, column] of shown)
      if (!asked.some((model) => model.name === name)) (column.newest.cancel(), shown.delete(name));
    for (const model of asked) if (!shown.has(model.name)) shown.set(model.name, column(model));
    const ordered = asked.map((model) => shown.get(model.name));
    if (ordered.some((one, at) => columns.children[at] !== one.element) || columns.children.length !== ordered.length) {
      columns.replaceChildren(...ordered.map((one) => one.element));
    }
    showTargets(asked[0]);
    element.tell(null);
    for (const one of ordered) one.ask();
  }

  /** The class to explain: what each network decides, or one class for all. */
  function showTargets(model) {
    const options = [
      { value: "", text: t("target.decision") },
      ...(model?.labels ?? []).map((name) => ({ value: name, text: className(name) })),
    ];
    const key = JSON.stringify(options);
    if (targets.dataset.options !== key) {
      targets.dataset.options = key;
      targets.control = alternatives({
        label: t("target.explain"),
        options,
        value: view.target,
        change: (name) => ((view.target = name), refresh(true)),
      });
      targets.replaceChildren(targets.control);
    }
    targets.control.set(view.target);
  }

  /** One network: its scores and its painted texts. */
  function column(model) {
    const cards = Object.fromEntries(METHODS.map((method) => [method, slot("")]));
    const bars = scores([], {
      selected: null,
      choose: (index) => ((view.target = model.labels[index]), refresh(true)),
    });
    const message = h("p", { class: "message", role: "status" });
    const element = h(
      "section",
      { class: "column", "aria-label": modelTitle(model) },
      h("header", {}, h("h2", {}, modelTitle(model)), bars, message),
      ...Object.values(cards),
    );
    const self = { model, element, answer: null };
    const failed = (error) => {
      message.textContent = error ? error.message : "";
    };
    const clear = () => {
      self.newest.cancel();
      self.answer = null;
      bars.update([], { selected: null });
      for (const one of Object.values(cards)) one.clear();
    };
    self.newest = new Newest(explain, { done, failed, busy: (on) => work(on ? 1 : -1) });
    self.ask = () => {
      const target = model.labels.indexOf(view.target);
      failed(model.available ? null : { message: translate(`missing.${model.name}`, model.missing) });
      if (!view.text.trim() || !model.available) return clear();
      const questions = METHODS.filter((method) => model.methods.includes(method)).map((method) => ({
        method,
        rules: "auto",
        layer: null,
      }));
      self.newest.ask({ model: model.name, input: { text: view.text }, target: target < 0 ? null : target, questions });
    };

    function done(answer, body) {
      failed(null);
      self.answer = answer;
      bars.update(localScores([...answer.scores].sort((one, other) => one.index - other.index)), {
        selected: answer.target?.index,
      });
      const asked = { ...body, target: answer.target?.index ?? null };
      answer.sheets.forEach((sheet, at) => {
        const { method } = body.questions[at];
        const options = {
          compact: true,
          heading: t(`method.${method}`),
          remove: (word) => remove(word),
          ...behind(asked, body.questions[at]),
        };
        cards[method].show(sheet, options);
      });
      showDeleted();
      context.announce(t("review.said", { model: modelTitle(model), name: className(answer.scores[0].name) }));
    }
    return self;
  }

  function work(by) {
    busy += by;
    element.busy(busy > 0);
  }

  /** Take a word out of the text, with the space before or after it, and keep what the networks said of it before. */
  function remove(word) {
    const letters = Array.from(view.text);
    if (letters.slice(word.start, word.end).join("") !== word.text) return; // typed over since
    const answers = [...shown.values()].filter((one) => one.answer);
    const target = view.target || answers[0]?.answer.target?.name;
    const before = Object.fromEntries(answers.map(({ model, answer }) => [model.name, scoreOf(answer, target)]));
    history.push({ text: view.text, target: view.target, word: word.text, about: target, before });
    let { start: from, end: to } = word;
    if (letters[from - 1] === " ") from -= 1;
    else if (letters[to] === " ") to += 1;
    letters.splice(from, to - from);
    view.text = letters.join("");
    input.value = view.text;
    refresh(true);
  }

  /** Bring back the text as it was before the newest deletion, or before them all. */
  function restore(all) {
    const { text, target } = all ? history[0] : history.at(-1);
    history.splice(all ? 0 : -1);
    Object.assign(view, { text, target });
    input.value = text;
    showDeleted();
    refresh(true);
    input.focus();
  }

  function forget() {
    history.length = 0;
    showDeleted();
  }

  const scoreOf = (answer, name) => answer.scores.find((one) => one.name === name)?.score ?? null;

  /** The deleted words, and each network's score with all of them and without. */
  function showDeleted() {
    deleted.hidden = history.length === 0;
    if (deleted.hidden) return deleted.replaceChildren();
    const { about: name, before } = history[0];
    const figures = [...shown.values()]
      .filter(({ model, answer }) => answer && before[model.name] !== null && before[model.name] !== undefined)
      .map(({ model, answer }) =>
        h(
          "div",
          { class: "change" },
          h("span", { class: "name" }, modelTitle(model)),
          h(
            "span",
            { class: "figures" },
            h("span", {}, number(before[model.name])),
            icon("later"),
            h("strong", {}, number(scoreOf(answer, name))),
          ),
        ),
      );
    deleted.replaceChildren(
      h(
        "div",
        { class: "without" },
        h("span", { class: "label" }, t("review.without")),
        ...history.map(({ word }) => h("s", {}, word)),
      ),
      h("p", { class: "label" }, t("review.change", { name: className(name) })),
      ...figures,
      h(
        "div",
        { class: "undo" },
        button({ text: t("undo"), icon: "undo", look: "quiet", click: () => restore(false) }),
        history.length > 1 ? button({ text: t("review.restore"), look: "quiet", click: () => restore(true) }) : null,
      ),
    );
    return undefined;
  }

  return {
    name: "review",
    element,
    input: () => ({ kind: "text", text: view.text }),
    values: () => ({
      text: view.text || " ",
      language: view.language === "auto" ? "" : view.language,
      target: view.target,
    }),
    apply(values) {
      Object.assign(view, start, {
        text: values.text === undefined ? start.text : values.text.trim() ? values.text : "",
        language: values.language ?? start.language,
        target: values.target ?? "",
      });
      forget();
      input.value = view.text;
      languages.set(view.language);
      refresh(false);
    },
  };
}
