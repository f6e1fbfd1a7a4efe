/** A whole explanation: heading, map or words, legend, score and sum, notes, operations, downloads. */

import { balance } from "./balance.js";
import { h, keyed, set, tell } from "./dom.js";
import { downloadMenu } from "./downloads.js";
import { heatmap, miniature } from "./heatmap.js";
import { say, size, spoken } from "./language.js";
import { legend } from "./legend.js";
import { operationTable } from "./operations.js";
import { tokenList, words } from "./passage.js";
import { readoutLine } from "./readout.js";
import { valuesOf } from "./colour.js";

/**
 * An explanation as an element. Options, all of which may be left out:
 * `heading`; `limit`, the |R| of full colour, for several cards on one scale; `opacity`, 0 to 1, of the map over the
 * picture, 1 for the map alone; `slider`, a control for it; `smooth` for photographs; `compact` for grids; `picture`,
 * what the model saw, where the sheet has none; `operations`, an async function giving {absorbed, operations};
 * `downloads`, {png: async () => Blob, ...} or "local"; `remove(word)`.
 *
 * `element.update(sheet, options)` redraws in place; options that are not named stay.
 */
export function card(sheet, options = {}) {
  let shown = { sheet, options };
  let absorbed = null; // what the table of operations told of this sheet, if it was asked
  const heading = h("h3", { class: "rp-heading", dir: "auto" });
  const about = h("p", { class: "rp-about" });
  const readout = readoutLine();
  const draw = sheet.kind === "text" ? words : heatmap;
  const slider = options.slider ? (opacity) => element.update(shown.sheet, { opacity }) : false;
  const map = draw(sheet, { ...options, readout, slider });
  const key = legend(sheet, options);
  const sums = balance(sheet);
  const tokens = sheet.kind === "text" ? tokenList(sheet, sheet.limit) : null;
  const channels = channelGrid(readout);
  const notes = h("ul", { class: "rp-notes" });
  const table = operationTable(
    () => shown.options.operations(),
    (found) => {
      absorbed = found;
      reckon();
    },
  );
  const menu = downloadMenu(sheet, options.downloads, sheet.limit);
  const element = h(
    "article",
    { class: "rp-card" },
    h("header", { class: "rp-header" }, h("div", {}, heading, about), menu),
    h(
      "div",
      { class: "rp-main" },
      h("div", { class: "rp-shown" }, map, readout),
      h("div", { class: "rp-side" }, key, sums),
    ),
    channels,
    notes,
    h("div", { class: "rp-foot" }, tokens, table),
  );

  function reckon() {
    const { sheet, options } = shown;
    // The causes are those of the way down to the input; of a layer, only the sum is known.
    const ask = options.operations && !sheet.layer ? table.ask : null;
    sums.update(sheet, sheet.layer ? {} : (absorbed ?? sheet.absorbed ?? {}), ask);
  }

  element.update = (sheet, options = {}) => {
    const renewed = figuresOf(sheet) !== figuresOf(shown.sheet);
    if (renewed) absorbed = null;
    shown = { sheet, options: { ...shown.options, ...options } };
    const limit = shown.options.limit ?? sheet.limit;
    element.lang = spoken();
    element.classList.toggle("rp-compact", Boolean(shown.options.compact));
    set(element, { "data-kind": sheet.kind });
    tell(heading, shown.options.heading ?? sheet.title);
    tell(about, aboutOf(sheet, shown.options));
    map.update(sheet, { ...shown.options, readout, slider });
    key.update(sheet, shown.options);
    reckon();
    channels.update(sheet);
    tokens?.update(sheet, limit);
    notes.hidden = sheet.notes.length === 0;
    set(notes, { "aria-label": say("notes") });
    notes.replaceChildren(...sheet.notes.map((note) => h("li", {}, note)));
    table.hidden = !shown.options.operations || !sheet.redistributes;
    table.update(renewed);
    menu.update(sheet, shown.options.downloads, limit);
  };
  element.update(sheet);
  return element;
}

/** What tells one explanation from another: a sheet may be a copy, with a name in another language. */
function figuresOf(sheet) {
  return sheet.heat ?? sheet.words;
}

/** The line below the heading: model, rules where the heading doesn't name them, and where in the network. */
function aboutOf(sheet, options) {
  const heading = options.heading ?? sheet.title;
  const how = rulesOf(sheet);
  const where = sheet.layer ? say("at_layer", { layer: sheet.layer }) : "";
  return [sheet.model, how === heading ? "" : how, where].filter(Boolean).join(" \u00b7 ");
}

/** What the rules are called; a map that a user put together has no name, and its rows stand in the operations. */
function rulesOf({ rules, title }) {
  if (rules.startsWith("[")) return say("custom_rules");
  return rules.endsWith(title) ? title : rules;
}

/** The channels of a layer as small maps on one scale. */
function channelGrid(readout) {
  const title = h("h4", {});
  const grid = h("div", { class: "rp-channel-grid" });
  const scale = h("p", { class: "rp-small" });
  const element = h("section", { class: "rp-channels" }, title, grid, scale);
  element.update = (sheet) => {
    const channels = sheet.channels ?? [];
    element.hidden = channels.length === 0;
    if (element.hidden) return;
    const largest = ({ heat }) => valuesOf(heat).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const limit = Math.max(...channels.map(largest));
    tell(title, say("channels", { layer: sheet.layer }));
    tell(scale, say("channels_scale", { limit: size(limit) }));
    const items = channels.map((channel) => ({ channel, sheet, limit }));
    keyed(grid, items, (item) => item.channel.index, (item) => miniature(item, readout));
  };
  return element;
}
