/** The map: a canvas over the picture, with a cursor that the pointer and the arrow keys move, and a readout. */

import { colour, pixels, valuesOf } from "./colour.js";
import { cursorOver, extreme } from "./cursor.js";
import { h, set, tell } from "./dom.js";
import { claimOf, meaning, number, say } from "./language.js";
import { readoutLine } from "./readout.js";

const LARGEST = 392; // CSS pixels that a small map is enlarged to
const STRIP = 28; // the height of a channel in a series
const LEAST = 40; // of a single strip
const TALLEST = 336; // of all strips together

/**
 * Only the map of a sheet of kind "picture" or "series". Options: `limit`, `opacity`, `smooth`, `picture`; `slider`, a
 * control for the opacity below the map (true, or a function that is told of it); `readout`, a line of the caller's.
 * `element.update(sheet, options)` redraws in place. Rows and columns are counted from 0, as in the array.
 */
export function heatmap(sheet, options = {}) {
  let shown = { sheet, options };
  const base = h("img", { class: "rp-base", alt: "", draggable: "false" });
  const canvas = h("canvas", { class: "rp-canvas" });
  const plane = h("div", { class: "rp-plane" }, base, canvas);
  const axis = h("div", { class: "rp-axis", "aria-hidden": "true" });
  const readout = options.readout ?? readoutLine();
  const slider = opacitySlider((opacity) => {
    element.update(shown.sheet, { opacity });
    if (typeof shown.options.slider === "function") shown.options.slider(opacity);
  });
  const element = h("div", { class: "rp-heatmap" }, plane, axis, slider, options.readout ? null : readout);
  const cursor = cursorOver(plane, {
    heat: () => shown.sheet.heat,
    found: (place, value, spoken) => {
      readout.say(`${placeOf(shown.sheet, place)}: ${number(value)}`, meaning(shown.sheet, value), spoken);
    },
    rest: () => readout.rest(say("hint_map")),
  });

  element.update = (sheet, options = {}) => {
    shown = { sheet, options: { ...shown.options, ...options } };
    draw(shown, { plane, base, canvas, axis, slider });
    cursor.update();
  };
  element.update(sheet);
  return element;
}

function draw({ sheet, options }, { plane, base, canvas, axis, slider }) {
  const { heat } = sheet;
  const picture = sheet.picture ?? options.picture ?? null;
  const opacity = picture === null ? 1 : (options.opacity ?? 1);
  paint(canvas, heat, options.limit ?? sheet.limit, opacity);
  canvas.classList.toggle("rp-smooth", Boolean(options.smooth));
  base.hidden = picture === null;
  if (picture !== null && base.getAttribute("src") !== picture.src) base.src = picture.src;
  const series = sheet.kind === "series";
  const tall = Math.max(LEAST, Math.min(TALLEST, STRIP * heat.height));
  const shape = series
    ? { "--rp-wide": "100%", "aspect-ratio": "auto", height: `${tall}px` }
    : { "--rp-wide": `${enlarged(heat, picture)}px`, "aspect-ratio": `${heat.width} / ${heat.height}`, height: "auto" };
  set(plane, {
    style: shape,
    "aria-roledescription": say("heatmap"),
    "aria-label": described(sheet),
    "data-kind": sheet.kind,
  });
  axis.hidden = !series;
  if (series) axis.replaceChildren(...ticks(heat));
  slider.update(opacity, Boolean(options.slider) && picture !== null);
}

/** Draws a map into a canvas that has one pixel for each value. */
export function paint(canvas, heat, limit, opacity = 1) {
  if (canvas.width !== heat.width) canvas.width = heat.width;
  if (canvas.height !== heat.height) canvas.height = heat.height;
  const image = new ImageData(pixels(valuesOf(heat), limit, opacity), heat.width, heat.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** How wide a map is shown where there is room: whole pixels for each value of a small one. */
function enlarged(heat, picture) {
  const factor = LARGEST / Math.max(heat.width, heat.height);
  return picture === null && factor >= 2 ? Math.floor(factor) * heat.width : Math.round(factor * heat.width);
}

function placeOf(sheet, { column, row }) {
  if (sheet.kind !== "series") return say("place", { row, column });
  return say(sheet.heat.height === 1 ? "place_vector" : "place_series", { row, column });
}

/** The label that a screen reader says: what it is, and where the strongest evidence lies. */
function described(sheet) {
  const claim = claimOf(sheet);
  const { width, height } = sheet.heat;
  const said = [say(sheet.kind === "series" ? "series_of" : "heatmap_of", { claim, width, height })];
  const high = extreme(sheet.heat, 1);
  const low = extreme(sheet.heat, -1);
  const tellOf = (key, found) => said.push(say(key, { value: number(found.value), where: region(sheet, found) }));
  if (sheet.signed === false) tellOf("strongest", high);
  else {
    if (high.value > 0) tellOf("strongest_for", high);
    if (low.value < 0) tellOf("strongest_against", low);
  }
  if (high.value === 0 && low.value === 0) said.push(say("all_zero"));
  return [...said, say("keys")].join(" ");
}

/** A place in words, as "upper left, row 3, column 5". */
function region(sheet, found) {
  if (sheet.kind === "series") return placeOf(sheet, found);
  const third = (place, size, names) => say(names[Math.min(2, Math.floor((3 * place) / size))]);
  const vertical = third(found.row, sheet.heat.height, ["upper", "middle", "lower"]);
  const horizontal = third(found.column, sheet.heat.width, ["left", "centre", "right"]);
  return `${say("region", { vertical, horizontal })}, ${placeOf(sheet, found)}`;
}

/** A few round numbers along the time axis. */
function ticks(heat) {
  const rough = heat.width / 6;
  const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const places = Array.from({ length: Math.ceil(heat.width / step) }, (_, i) => i * step);
  const marks = places.map((place) =>
    h("span", { class: "rp-tick", style: { left: `${(100 * (place + 0.5)) / heat.width}%` } }, String(place)),
  );
  return [...marks, h("span", { class: "rp-axis-name" }, say(heat.height === 1 ? "values" : "time"))];
}

function opacitySlider(change) {
  const input = h("input", { type: "range", min: "0", max: "100", step: "5" });
  input.addEventListener("input", () => change(Number(input.value) / 100));
  const low = h("span", { "aria-hidden": "true" });
  const high = h("span", { "aria-hidden": "true" });
  const element = h("label", { class: "rp-slider" }, low, input, high);
  element.update = (opacity, wanted) => {
    element.hidden = !wanted;
    input.value = String(Math.round(100 * opacity));
    set(input, { "aria-label": say("opacity"), style: { "--rp-at": `${100 * opacity}%` } });
    tell(low, say("picture_only"));
    tell(high, say("map_only"));
  };
  return element;
}

/** A small map of a channel, {channel, sheet, limit}; the value under its cursor is told in `readout`. */
export function miniature(item, readout) {
  let shown = item;
  const canvas = h("canvas", { class: "rp-canvas" });
  const name = h("span", {});
  const sum = h("span", { class: "rp-figure" });
  const plane = h("div", { class: "rp-plane" }, canvas);
  const element = h("figure", { class: "rp-channel" }, plane, h("figcaption", {}, name, sum));
  const cursor = cursorOver(plane, {
    heat: () => shown.channel.heat,
    found: (place, value, spoken) => {
      const where = `${say("channel", { index: shown.channel.index })}, ${say("place", place)}`;
      readout.say(`${where}: ${number(value)}`, meaning(shown.sheet, value), spoken);
    },
    rest: () => readout.rest(say("hint_map")),
  });
  element.update = (item) => {
    shown = item;
    const { heat, index } = item.channel;
    paint(canvas, heat, item.limit);
    set(plane, {
      style: { "aspect-ratio": `${heat.width} / ${heat.height}` },
      "aria-roledescription": say("heatmap"),
      "aria-label": `${say("channel", { index })}: ${number(item.channel.sum)}. ${say("keys")}`,
    });
    tell(name, say("channel", { index }));
    tell(sum, number(item.channel.sum));
    cursor.update();
  };
  return element;
}

/** The colours of the palette from -1 (or 0) to 1, as a gradient for CSS. */
export function gradient(signed) {
  const stops = Array.from({ length: 21 }, (_, i) => (signed ? i / 10 - 1 : i / 20));
  return `linear-gradient(to right, ${stops.map((share) => `rgb(${colour(share).join(" ")})`).join(", ")})`;
}
