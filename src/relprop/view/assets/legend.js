/** What the colours mean, in words, with the colour bar and the numbers at its ends. */

import { valuesOf, wash } from "./colour.js";
import { h } from "./dom.js";
import { gradient } from "./heatmap.js";
import { claimOf, number, say, size } from "./language.js";
import { tinted } from "./passage.js";

/** The legend of a sheet, for the options it is drawn with; `element.update(sheet, options)`. */
export function legend(sheet, options = {}) {
  const element = h("div", { class: "rp-legend" });
  let given = options;
  element.update = (sheet, options = {}) => {
    given = { ...given, ...options };
    element.replaceChildren(...parts(sheet, given));
  };
  element.update(sheet);
  return element;
}

function parts(sheet, options) {
  const limit = options.limit ?? sheet.limit;
  const claim = claimOf(sheet);
  const signed = sheet.signed !== false;
  const colours = sheet.kind === "text" ? washes(signed) : gradient(signed);
  const bar = h("div", { class: "rp-bar", style: { "background-image": colours } });
  const most = limit > 0 && beyond(sheet, limit) ? "\u2265 " : "";
  const least = most && "\u2264 ";
  const ticks = [...(signed ? [`${least}${number(-limit)}`] : []), "0", `${most}${number(limit)}`];
  const meanings = signed
    ? [entry(sheet, -1, say("against", { claim })), entry(sheet, 1, say("for", { claim }))]
    : [entry(sheet, 1, say("reacts", { claim }))];
  return [
    bar,
    h("div", { class: "rp-ticks" }, ticks.map((tick) => h("span", {}, tick))),
    h("div", { class: "rp-meanings", "data-signed": signed }, meanings),
    h("p", { class: "rp-scale" }, scale(sheet, limit, signed, options)),
    sheet.words?.some((word) => word.known === false) ? frameEntry() : null,
  ].filter(Boolean);
}

/** A swatch and what it means; of texts with the line that tells the sign without colour. */
function entry(sheet, sign, meaning) {
  const swatch =
    sheet.kind === "text"
      ? tinted(h("span", { class: "rp-sample", "aria-hidden": "true" }, "Aa"), 0.6 * sign, 1, sheet)
      : h("span", { class: "rp-swatch", "aria-hidden": "true", style: { "background-color": wash(sign) } });
  return h("span", { class: "rp-meaning" }, swatch, h("span", {}, meaning));
}

function frameEntry() {
  const key = h("span", { class: "rp-key rp-unknown", "aria-hidden": "true" });
  return h("p", { class: "rp-scale rp-meaning" }, key, h("span", {}, say("unknown")));
}

function scale(sheet, limit, signed, options) {
  if (limit === 0) return say("all_zero");
  const over = sheet.kind !== "text" && (sheet.picture ?? options.picture) && (options.opacity ?? 1) < 1;
  const zero = say(sheet.kind === "text" ? "word_zero" : over ? "picture_zero" : "white_zero");
  return `${zero} ${say(signed ? "full_colour_signed" : "full_colour", { limit: size(limit) })}`;
}

/** Whether a value lies beyond full colour. */
function beyond(sheet, limit) {
  const slack = limit * (1 + 1e-6);
  const values = sheet.kind === "text" ? sheet.words.map((word) => word.relevance) : valuesOf(sheet.heat);
  return values.some((value) => Math.abs(value) > slack);
}

function washes(signed) {
  return `linear-gradient(to right, ${signed ? `${wash(-1)}, ` : ""}transparent, ${wash(1)})`;
}
