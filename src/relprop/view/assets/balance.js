/** The sum of relevance against the score, and where the difference went. */

import { h, keyed, set, tell } from "./dom.js";
import { claimOf, known, number, say } from "./language.js";

const SMALL = 1e-3; // of the largest cause: what is less has no line of its own
const LITTLE = 0.05; // of the score: where less arrives, the sum of the map says little
const SEEN = 1e-4; // of the largest figure: what is less does not show in four digits
const TO_BASELINE = ["integrated_gradients", "deeplift", "kernel_shap"]; // methods whose sum has a meaning of its own
const GREYS = 5; // shades that the stylesheet has for causes

/**
 * The balance of a sheet; `element.update(sheet, absorbed, ask)`. `absorbed` is the difference by cause, {} where it is
 * not known; `ask` finds it out, if it can be.
 */
export function balance(sheet, absorbed = {}, ask = null) {
  const figures = h("dl", { class: "rp-figures" });
  const bar = h("div", { class: "rp-balance-bar", "aria-hidden": "true" });
  const rows = h("ul", { class: "rp-causes" });
  const note = h("p", { class: "rp-small" });
  const little = h("p", { class: "rp-small" });
  const button = h("button", { type: "button", class: "rp-link" });
  const element = h("section", { class: "rp-balance" }, figures, bar, rows, note, little, button);
  let asked = ask;
  button.addEventListener("click", () => asked?.());

  element.update = (sheet, absorbed = {}, ask = null) => {
    asked = ask;
    set(element, { "aria-label": say("balance") });
    element.classList.toggle("rp-split", sheet.redistributes);
    figures.replaceChildren(...figuresOf(sheet));
    const made = sheet.redistributes ? parts(sheet, absorbed) : [];
    bar.hidden = rows.hidden = !sheet.redistributes;
    note.hidden = made.length > 1;
    little.hidden = !littleArrived(sheet);
    tell(little, say("little_arrived"));
    tell(note, say(sheet.redistributes ? "all_arrived" : TO_BASELINE.includes(sheet.method) ? "to_baseline" : "no_split"));
    button.hidden = made.length < 2 || !asked || Object.keys(absorbed).length > 0;
    tell(button, say("where"));
    if (!sheet.redistributes) return;
    drawBar(bar, made, sheet.score);
    const special = { cause: "special", name: say("special"), amount: sheet.special };
    const listed = sheet.special ? made.toSpliced(1, 0, special) : made;
    keyed(rows, listed, (part) => part.cause, (part) => (part.why ? causeRow() : plainRow()));
  };
  element.update(sheet, absorbed, ask);
  return element;
}

/** Whether a method that redistributes the score brings next to nothing of it to the input. */
function littleArrived({ redistributes, layer, score, total }) {
  return redistributes && !layer && Math.abs(total) < LITTLE * Math.abs(score);
}

function figuresOf(sheet) {
  const pairs = [[say("score", { claim: claimOf(sheet) }), sheet.score]];
  if (!sheet.redistributes) pairs.push([say("sum"), sheet.total]);
  if (!sheet.redistributes && sheet.special) pairs.push([say("special"), sheet.special]);
  return pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, number(value))));
}

/** The parts that the score is the sum of: what arrived, and the rest by cause, as far as it is known. */
export function parts(sheet, absorbed) {
  const difference = sheet.score - sheet.total;
  const arrived = {
    cause: "arrived",
    name: sheet.layer ? say("sum_layer", { layer: sheet.layer }) : say("sum"),
    why: say(sheet.layer ? "why_arrived_layer" : "why_arrived"),
    amount: sheet.total,
  };
  if (Math.abs(difference) <= SEEN * Math.abs(sheet.score)) return [arrived];
  const causes = Object.entries(absorbed);
  if (causes.length === 0) return [arrived, named("not_passed", difference)];
  causes.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const large = causes.filter(([, amount]) => Math.abs(amount) >= SMALL * Math.abs(causes[0][1]));
  const sum = (entries) => entries.reduce((sum, [, amount]) => sum + amount, 0);
  const seen = SEEN * Math.max(Math.abs(sheet.score), Math.abs(sheet.total), Math.abs(causes[0][1]));
  const others = [
    ["small", sum(causes) - sum(large)],
    ["other", difference - sum(causes)], // what no cause accounts for is told, too
  ].filter(([, amount]) => Math.abs(amount) > seen);
  return [arrived, ...[...large, ...others].map(([cause, amount]) => named(cause, amount))];
}

function named(cause, amount) {
  const told = known(`why_${cause}`);
  return { cause, amount, name: told ? say(cause) : cause, why: say(told ? `why_${cause}` : "why_other") };
}

/** Positive parts lie to the right of zero, negative ones to the left; a line marks the score, which is their sum. */
function drawBar(bar, made, score) {
  const above = made.reduce((sum, part) => sum + Math.max(0, part.amount), 0);
  const below = made.reduce((sum, part) => sum + Math.min(0, part.amount), 0);
  const span = above - below || 1;
  const at = (value) => `${(100 * (value - below)) / span}%`;
  let [right, left] = [0, 0];
  const segments = made.map((part, i) => {
    const start = part.amount >= 0 ? right : left + part.amount;
    if (part.amount >= 0) right += part.amount;
    else left += part.amount;
    const width = `${(100 * Math.abs(part.amount)) / span}%`;
    return h("span", { class: "rp-part", "data-shade": shade(i), style: { left: at(start), width } });
  });
  const zero = below < 0 ? [h("span", { class: "rp-zero", style: { left: at(0) } })] : [];
  bar.replaceChildren(...segments, ...zero, h("span", { class: "rp-mark", style: { left: at(score) } }));
  made.forEach((part, i) => Object.assign(part, { shade: shade(i) }));
}

function shade(place) {
  return place === 0 ? "arrived" : String(1 + ((place - 1) % GREYS));
}

/** A figure that is part of the one above it. */
function plainRow() {
  const name = h("span", {});
  const amount = h("span", { class: "rp-figure" });
  const element = h("li", { class: "rp-within" }, name, amount);
  element.update = (part) => {
    tell(name, part.name);
    tell(amount, number(part.amount));
  };
  return element;
}

/** One part: its name and amount; what it means opens below. */
function causeRow() {
  const swatch = h("span", { class: "rp-part", "aria-hidden": "true" });
  const name = h("span", { class: "rp-cause" });
  const amount = h("span", { class: "rp-figure" });
  const why = h("p", { class: "rp-small" });
  const summary = h("summary", {}, swatch, name, amount);
  const element = h("li", {}, h("details", {}, summary, why));
  element.update = (part) => {
    set(swatch, { "data-shade": part.shade });
    set(summary, { title: part.why });
    tell(name, part.name);
    tell(amount, number(part.amount));
    tell(why, part.why);
  };
  return element;
}
