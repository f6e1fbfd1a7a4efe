/** The scores of the classes, as radio buttons with bars. */

import { h, keyed, set, tell } from "./dom.js";
import { column, percent, say } from "./language.js";

let groups = 0;

/**
 * The classes [{index, name, score, probability}] in the order given; `selected` is the index of the chosen one,
 * `choose(index)` is called when the reader chooses another. `element.update(list, {selected})` moves the bars.
 */
export function scores(list, { selected = null, choose = () => {} } = {}) {
  groups += 1;
  const group = `rp-scores-${groups}`;
  const element = h("div", { class: "rp-scores", role: "radiogroup" });
  element.update = (list, { selected = null } = {}) => {
    set(element, { "aria-label": `${say("scores")}. ${say("scores_hint")}` });
    const longest = Math.max(0, ...list.map((each) => Math.abs(each.score)));
    const figures = column(list.map((each) => each.score));
    const rows = list.map((each, i) => ({ ...each, figure: figures[i], longest, selected: each.index === selected }));
    keyed(element, rows, (row) => row.index, () => classRow(group, choose));
  };
  element.update(list, { selected });
  return element;
}

function classRow(group, choose) {
  const input = h("input", { type: "radio", name: group });
  const name = h("span", { class: "rp-class-name", dir: "auto" });
  const chance = h("span", { class: "rp-class-chance" });
  const score = h("span", { class: "rp-class-score" });
  const fill = h("span", { class: "rp-class-fill" });
  const bar = h("span", { class: "rp-class-bar", "aria-hidden": "true" }, fill);
  const element = h("label", { class: "rp-class" }, input, name, bar, chance, score);
  let shown = null;
  input.addEventListener("change", () => choose(shown.index));
  element.update = (row) => {
    shown = row;
    input.checked = row.selected;
    tell(name, row.name);
    tell(chance, row.probability === null || row.probability === undefined ? "" : percent(row.probability));
    tell(score, row.figure);
    const share = row.probability ?? (row.longest > 0 ? Math.max(0, row.score / row.longest) : 0);
    set(fill, { style: { transform: `scaleX(${share.toFixed(4)})` } });
  };
  return element;
}
