/** The tab "Photo": a picture of one's own, the top classes, the heatmap over it, rules by layer, a look inside. */

import { scores } from "/viewer/viewer.js";
import { button, choice, h, icon, slider, unique } from "./dom.js";
import { frame, gallery, localScores, networkChoice, panel, slot } from "./page.js";
import { parseRules, rulesChoice, rulesText } from "./rules.js";
import { Newest, Refused, behind, explain, pictureAddress, upload } from "./server.js";
import { asIndex } from "./state.js";
import { isOwn, t, translate } from "./words.js";

const CROPPED = 1.3; // ratio of the sides from which on much of a picture lies outside its middle square

/** @returns {import("./app.js").Tab} */
export function photo(context) {
  const { about } = context;
  const models = about.models.filter((model) => model.kind === "picture");
  const start = {
    model: context.first(models),
    picture: about.samples.pictures[0]?.picture ?? "",
    rules: "",
    target: null,
    layer: "",
    opacity: 0.8,
  };
  const view = { ...start };
  let last = null; // the last answer and what was asked

  const explained = slot(t("photo.waiting"), "explained");
  const bars = scores([], { selected: null, choose: (index) => update({ target: index }) });
  const follow = button({ text: t("target.follow"), look: "quiet", click: () => update({ target: null }) });
  const network = networkChoice(models, view.model, (name) =>
    update({ model: name, rules: modelOf(name).rules_default, target: null, layer: "" }),
  );
  const rules = rulesChoice({
    about,
    model: current(),
    value: current().rules_default,
    change: (value) => update({ rules: value }),
  });
  const layers = choice({ label: t("layer"), options: [], value: "", change: (name) => update({ layer: name }) });
  const layerHint = h("p", { class: "hint" }, t("layer.hint"));
  const target = targetInput({ change: (index) => update({ target: index }), unknown: (error) => element.tell(error) });
  const opacity = slider({
    label: t("photo.opacity"),
    min: 0,
    max: 1,
    step: 0.05,
    value: view.opacity,
    show: (value) => `${Math.round(100 * value)} %`,
    change: (value) => {
      view.opacity = value;
      if (last) paint();
      context.changed(false);
    },
  });
  const sources = gallery({
    label: t("photo.samples"),
    samples: about.samples.pictures.map(({ picture, name }) => ({
      key: picture,
      label: translate(`picture.${name}`, name),
      picture: h("img", { src: pictureAddress(picture), alt: "", loading: "lazy" }),
    })),
    choose: (key) => update({ picture: key, target: null }),
  });
  const square = h("p", { class: "hint", hidden: true }, t("photo.square"));
  const element = frame(
    "photo",
    null,
    h(
      "div",
      { class: "bench" },
      h(
        "div",
        { class: "stage" },
        explained,
        panel(
          t("photo.how"),
          "how",
          opacity,
          h("div", { class: "choices" }, network, rules, h("div", { class: "rules" }, layers, layerHint)),
        ),
      ),
      h(
        "div",
        { class: "side" },
        panel(t("photo.picture"), "source", dropZone(take), sources, square),
        panel(t("scores"), "decision", bars, target, follow),
      ),
    ),
  );
  const newest = new Newest(explain, { done, failed: element.tell, busy: element.busy });

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
    const model = current();
    network.control.value = view.model;
    rules.set(model, view.rules);
    layers.set(
      [{ value: "", text: t("layer.input") }, ...model.layers.map((name) => ({ value: name, text: name }))],
      view.layer,
    );
    target.set(model.labels, view.target);
    sources.set(view.picture);
    opacity.set(view.opacity);
    follow.hidden = view.target === null;
  }

  /** Say where much of the picture is out of the network's sight; a network of one's own may look at it otherwise. */
  async function showSquare() {
    const { picture } = view;
    const ratio = isOwn(current()) || !picture ? 1 : await ratioOf(picture);
    if (picture === view.picture) square.hidden = ratio <= CROPPED;
  }

  function ask(step) {
    context.changed(step);
    if (!current().available) {
      explained.clear();
      element.tell({ message: translate(`missing.${view.model}`, current().missing) });
      return;
    }
    if (!view.picture) return;
    const questions = [{ method: "lrp", rules: view.rules, layer: view.layer || null }];
    newest.ask({ model: view.model, input: { picture: view.picture }, target: view.target, questions });
  }

  function done(answer, body) {
    element.tell(null);
    last = { answer, body };
    bars.update(localScores(answer.scores.slice(0, 8)), { selected: answer.target?.index });
    target.set(current().labels, answer.target?.index ?? null);
    paint();
    showSquare();
    context.announce(t("photo.said", { name: answer.scores[0].name, explained: answer.target?.name ?? "" }));
  }

  function paint() {
    const { answer, body } = last;
    const [sheet] = answer.sheets;
    const asked = { ...body, target: answer.target?.index ?? null };
    explained.show(sheet, {
      picture: answer.picture,
      opacity: view.opacity,
      smooth: true,
      heading: t("evidence.of", { name: answer.target?.name ?? sheet.title }),
      ...behind(asked, body.questions[0]),
    });
  }

  /** Hand a file to the server and explain it. */
  async function take(file) {
    element.busy(true);
    try {
      if (file.size > about.limits.bytes) throw new Refused(t("error.file", { megabytes: about.limits.bytes / 1e6 }));
      const { picture } = await upload(file);
      update({ picture, target: null });
    } catch (error) {
      element.tell({ message: t("error.of", { file: file.name, why: error.message }) });
      element.busy(false);
    }
  }

  return {
    name: "photo",
    element,
    input: () => ({ kind: "picture", picture: view.picture }),
    take,
    values: () => ({
      model: view.model === start.model ? "" : view.model,
      picture: view.picture,
      target: view.target ?? "",
      rules: rulesText(view.rules, current()),
      layer: view.layer,
      opacity: view.opacity === start.opacity ? "" : view.opacity,
    }),
    apply(values) {
      const model = modelOf(values.model) ?? modelOf(start.model);
      Object.assign(view, start, {
        model: model.name,
        picture: values.picture ?? start.picture,
        target: asIndex(values.target),
        rules: parseRules(values.rules, model),
        layer: model.layers.includes(values.layer) ? values.layer : "",
        opacity: Math.min(1, Math.max(0, Number(values.opacity ?? start.opacity) || 0)),
      });
      show();
      ask(false);
    },
  };
}

/** The longer side of a picture over the shorter; 1 where the server has it no more, which its answer tells. */
async function ratioOf(picture) {
  const image = h("img", { src: pictureAddress(picture) });
  const known = await image.decode().then(
    () => true,
    () => false,
  );
  const sides = [image.naturalWidth, image.naturalHeight];
  return known ? Math.max(...sides) / Math.min(...sides) : 1;
}

/** A button that opens the file chooser, with the words for dropping and pasting. */
export function dropZone(take) {
  const input = h("input", { type: "file", accept: "image/*", class: "unseen", tabindex: "-1", "aria-hidden": "true" });
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
    input.value = "";
  });
  const open = h(
    "button",
    { type: "button", class: "drop", on: { click: () => input.click() } },
    icon("picture"),
    h("span", {}, h("strong", {}, t("photo.choose")), h("small", {}, t("photo.drop"))),
  );
  return h("div", {}, open, input);
}

/** A field for a class's name or number, with suggestions. `element.set(labels, index)`. */
function targetInput({ change, unknown }) {
  const id = unique("target");
  const list = h("datalist", { id: `${id}-names` });
  let names = [];
  const input = h("input", {
    id,
    type: "text",
    list: list.id,
    spellcheck: "false",
    autocomplete: "off",
    placeholder: t("target.example"),
    on: { change: () => choose(input.value.trim()) },
  });
  const element = h("div", { class: "field target" }, h("label", { for: id }, t("target")), input, list);

  function choose(text) {
    if (!text) return change(null);
    const wanted = text.toLowerCase();
    const exact = names.findIndex((name) => name.toLowerCase() === wanted);
    const index =
      exact >= 0 ? exact : (asIndex(text) ?? names.findIndex((name) => name.toLowerCase().includes(wanted)));
    if (index < 0 || (names.length && index >= names.length))
      return unknown({ message: t("target.unknown", { name: text }) });
    return change(index);
  }

  element.set = (labels, index) => {
    if (labels !== element.labels) {
      element.labels = labels;
      // Names that two classes share are told apart by the class's number.
      names = labels.map((name, at) => (labels.indexOf(name) !== labels.lastIndexOf(name) ? `${name} (${at})` : name));
      list.replaceChildren(...names.map((name) => h("option", { value: name })));
    }
    input.value = index === null ? "" : (names[index] ?? String(index));
  };
  return element;
}
