/** Elements: made in one call, and the few controls that every tab uses. */

const SVG = "http://www.w3.org/2000/svg";

/** Icons of 20 x 20, drawn as lines. */
const ICONS = {
  undo: "M7 4 3.5 7.5 7 11M4 7.5h7.5a4.5 4.5 0 0 1 0 9H8",
  clear: "M4 6h12M8 6V4h4v2M5.5 6l.8 10h7.4l.8-10M8.5 9v4.5M11.5 9v4.5",
  up: "M10 16V4.5M5 9l5-5 5 5",
  down: "M10 4v11.5M5 11l5 5 5-5",
  earlier: "M16 10H4.5M9 5l-5 5 5 5",
  later: "M4 10h11.5M11 5l5 5-5 5",
  close: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  add: "M10 4v12M4 10h12",
  link: "M8.5 11.5a3.2 3.2 0 0 0 4.6 0l2.6-2.6a3.25 3.25 0 0 0-4.6-4.6l-1 1M11.5 8.5a3.2 3.2 0 0 0-4.6 0l-2.6 2.6a3.25 3.25 0 0 0 4.6 4.6l1-1",
  picture: "M3.5 4.5h13v11h-13zM3.5 13l4-4 4 4 2-2 3 3M12.5 7.8v.1",
  light:
    "M10 6.7a3.3 3.3 0 1 1 0 6.6 3.3 3.3 0 0 1 0-6.6M10 2.5v1.3M10 16.2v1.3M2.5 10h1.3M16.2 10h1.3M4.7 4.7l.9.9M14.4 14.4l.9.9M15.3 4.7l-.9.9M5.6 14.4l-.9.9",
  dark: "M15.8 12.2A6.5 6.5 0 0 1 7.8 4.2a6.5 6.5 0 1 0 8 8",
  system: "M3.5 4h13v9h-13zM7.5 16.5h5M10 13v3.5",
};

/**
 * An element with attributes and children. `on` holds listeners; true writes an empty attribute, false, null and
 * undefined none; strings among the children become text.
 * @param {string} tag
 * @param {Object} [attributes]
 * @param {...(Node|string|null)} children
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the icons, hidden from screen readers: the control that holds it has the name. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  for (const [key, value] of [
    ["viewBox", "0 0 20 20"],
    ["class", "icon"],
    ["aria-hidden", "true"],
  ]) {
    drawing.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

let made = 0;

/** An id that no other element has. */
export const unique = (stem) => `${stem}-${++made}`;

/**
 * A button with a text, an icon, or both; a button with an icon alone has `label` as its name and tooltip.
 * @param {{text?: string, label?: string, icon?: string, look?: string, click: () => void}} options
 */
export function button({ text, label, icon: picture, look = "", click }) {
  const content = [picture ? icon(picture) : null, text ? h("span", {}, text) : null];
  const attributes = { type: "button", class: `button ${text ? "" : "round"} ${look}`, on: { click } };
  return h("button", { ...attributes, "aria-label": text ? null : label, title: text ? null : label }, ...content);
}

/**
 * A labelled drop-down list. `element.set(options, value)` changes what it offers.
 * @param {{label: string, options: {value: string, text: string, disabled?: boolean}[], value: string,
 *          change: (value: string) => void}} options
 */
export function choice({ label, options, value, change }) {
  const id = unique("choice");
  const list = h("select", { id, on: { change: () => change(list.value) } });
  const element = h("div", { class: "field" }, h("label", { for: id }, label), h("span", { class: "select" }, list));
  element.set = (offered, chosen) => {
    list.replaceChildren(
      ...offered.map((one) => h("option", { value: one.value, disabled: Boolean(one.disabled) }, one.text)),
    );
    list.value = chosen;
  };
  element.set(options, value);
  element.control = list;
  return element;
}

/**
 * A row of alternatives, of which one holds: radio buttons that look like one control. `element.set(value)`.
 * @param {{label: string, options: {value: string, text: string}[], value: string, hideLabel?: boolean,
 *          change: (value: string) => void}} options
 */
export function alternatives({ label, options, value, change, hideLabel = false }) {
  const name = unique("alternatives");
  const radios = options.map((one) => {
    const input = h("input", { type: "radio", name, value: one.value, on: { change: () => change(one.value) } });
    input.checked = one.value === value;
    return h("label", { lang: one.lang }, input, h("span", {}, one.text));
  });
  const legend = h("legend", { class: hideLabel ? "unseen" : "" }, label);
  const element = h("fieldset", { class: "field alternatives" }, legend, h("div", { class: "row" }, ...radios));
  element.set = (chosen) => {
    for (const input of element.querySelectorAll("input")) input.checked = input.value === chosen;
  };
  return element;
}

/** A check box drawn as a switch. `element.set(on)`. */
export function toggle({ label, value, change }) {
  const input = h("input", { type: "checkbox", role: "switch", on: { change: () => change(input.checked) } });
  input.checked = value;
  const element = h("label", { class: "toggle" }, input, h("span", { class: "track" }), h("span", {}, label));
  element.set = (on) => (input.checked = on);
  return element;
}

/** A labelled slider; `show` gives the words for its value. `element.set(value)`. */
export function slider({ label, min, max, step, value, show, change }) {
  const id = unique("slider");
  const output = h("output", { for: id });
  const input = h("input", { id, type: "range", min, max, step, on: { input: () => move(Number(input.value)) } });
  const paint = (now) => {
    input.value = now;
    input.style.setProperty("--share", `${(100 * (now - min)) / (max - min)}%`);
    input.setAttribute("aria-valuetext", show(now));
    output.textContent = show(now);
  };
  const move = (now) => (paint(now), change(now));
  paint(value);
  const element = h("div", { class: "field slider" }, h("label", { for: id }, label), input, output);
  element.set = paint;
  return element;
}

/** Give a browser the time to paint before `action`, and call it once for many calls in between. */
export function eachFrame(action) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      action();
    });
  };
}

/** Call `action` once, `wait` milliseconds after the last call. */
export function afterQuiet(wait, action) {
  let timer = 0;
  const call = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}
