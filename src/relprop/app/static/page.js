/** What the tabs have in common: a heading, a place for messages, a place for an explanation, lists of samples. */

import { card } from "/viewer/viewer.js";
import { choice, h } from "./dom.js";
import { t, translate } from "./words.js";

/**
 * The body of a tab: its heading with `controls` beside it (null for none), and a line for what went wrong.
 * `element.tell(error)` shows an error's sentence, null takes it away; `element.busy(on)` says that an answer is on its
 * way.
 */
export function frame(name, controls, ...children) {
  const message = h("p", { class: "message", role: "status" });
  const heading = h("div", {}, h("h1", {}, t(`${name}.title`)), h("p", {}, t(`${name}.lede`)));
  const element = h(
    "div",
    { class: `body ${name}` },
    h("header", { class: "lede" }, heading, controls),
    message,
    ...children,
  );
  element.tell = (error) => (message.textContent = error ? error.message : "");
  element.busy = (on) => {
    element.toggleAttribute("data-busy", on);
    element.setAttribute("aria-busy", String(on));
  };
  return element;
}

/**
 * A place for one explanation: a placeholder at first, then a card that is redrawn in place.
 * `element.show(sheet, options)` takes what viewer.js's `card` takes; `element.clear()` brings the placeholder back.
 */
export function slot(placeholder, look = "") {
  const empty = h("p", { class: "placeholder" }, placeholder);
  const element = h("div", { class: `slot ${look}` }, empty);
  let shown = null;
  element.show = (sheet, options) => {
    if (sheet.error) {
      shown = null;
      element.replaceChildren(h("p", { class: "message" }, refusalOf(sheet)));
    } else if (shown) {
      shown.update(localised(sheet), options);
    } else {
      shown = card(localised(sheet), options);
      element.replaceChildren(shown);
    }
  };
  element.clear = () => {
    shown = null;
    element.replaceChildren(empty);
  };
  return element;
}

/** Why there is no explanation in a sheet's place. */
export const refusalOf = (sheet) => translate(`error.${sheet.code}`, sheet.error);

/** A class's name in the language of the interface, where it has one. */
export const className = (name) => translate(`label.${name}`, name);

/** A sheet with its class named in the language of the interface. */
function localised(sheet) {
  return sheet.target ? { ...sheet, target: { ...sheet.target, name: className(sheet.target.name) } } : sheet;
}

/** Scores with their classes named in the language of the interface. */
export const localScores = (scores) => scores.map((one) => ({ ...one, name: className(one.name) }));

/** What an explanation is called: the preset's name, or the method's. */
export function titleOf(sheet) {
  if (sheet.method !== "lrp") return translate(`method.${sheet.method}`, sheet.title);
  return sheet.title === "custom rules" ? t("rules.custom") : sheet.title;
}

/** The choice of a network among those of one kind; those that can't be loaded are listed, but can't be chosen. */
export function networkChoice(models, value, change) {
  const options = models.map((model) => ({ value: model.name, text: modelTitle(model), disabled: !model.available }));
  return choice({ label: t("network"), options, value, change });
}

/** A network's title in the language of the interface. */
export const modelTitle = (model) => translate(`model.${model.name}`, model.title || model.name);

/** A row of pictures to choose from: `samples` are {key, label, picture: Node}. `element.set(key)` marks one. */
export function gallery({ label, samples, choose }) {
  const buttons = samples.map(({ key, label: name, picture }) =>
    h(
      "button",
      {
        type: "button",
        class: "sample",
        "aria-label": name,
        title: name,
        "data-key": key,
        on: { click: () => choose(key) },
      },
      picture,
    ),
  );
  const element = h("div", { class: "gallery", role: "group", "aria-label": label }, ...buttons);
  element.set = (key) =>
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.key === String(key))));
  element.set(null);
  return element;
}

/** A card of the page with a heading of its own. */
export const panel = (title, look, ...children) =>
  h("section", { class: `panel ${look}` }, title ? h("h2", {}, title) : null, ...children);
