/** The table of operations and rules behind a click, computed when somebody looks. */

import { h, set, tell } from "./dom.js";
import { known, number, say, spoken } from "./language.js";

const NOTHING = 1e-6; // of what an operation received
const SETTLED = 400; // milliseconds without a new sheet after which an open table is computed again

/**
 * The table; `load()` gives a promise of {absorbed, operations}. `element.update(renewed)` says whether there is a new
 * explanation; `element.ask()` loads without opening.
 */
export function operationTable(load, loaded) {
  const summary = h("summary", {});
  const body = h("div", { class: "rp-operations" });
  const element = h("details", { class: "rp-more" }, summary, body);
  let asked = 0; // the number of the last request: answers of earlier ones come too late
  let fresh = false;
  let timer = null;
  let shown = null; // the operations in the table, and the language they are told in

  element.ask = async () => {
    fresh = true;
    const mine = (asked += 1);
    set(body, { "aria-busy": "true" });
    if (!body.querySelector("table")) body.replaceChildren(line("status", say("loading")));
    try {
      const answer = await load();
      if (mine !== asked) return;
      show(answer.operations);
      loaded(answer.absorbed);
    } catch (error) {
      if (mine !== asked) return;
      fresh = false;
      const again = h("button", { type: "button", class: "rp-button", onclick: () => element.ask() }, say("again"));
      body.replaceChildren(line("alert", say("failed", { error: error.message })), again);
    } finally {
      if (mine === asked) set(body, { "aria-busy": null });
    }
  };
  function show(operations) {
    shown = { operations, language: spoken() };
    body.replaceChildren(...table(operations));
  }

  element.update = (renewed) => {
    tell(summary, say("operations"));
    if (!renewed && shown && shown.language !== spoken()) show(shown.operations);
    if (!renewed) return;
    fresh = false;
    asked += 1;
    clearTimeout(timer);
    set(body, { "aria-busy": null });
    if (element.open) {
      timer = setTimeout(element.ask, SETTLED);
    } else {
      shown = null;
      body.replaceChildren();
    }
  };
  element.addEventListener("toggle", () => element.open && !fresh && element.ask());
  element.update(true);
  return element;
}

function line(role, text) {
  return h("p", { class: "rp-small", role }, text);
}

function table(operations) {
  const heads = [say("operation"), say("rule_used"), say("received"), say("passed"), say("lost")];
  const figures = [null, null, "rp-figure", "rp-figure", null];
  const row = ({ name, function: called, rule, received, passed, lost }) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("code", {}, name || called), name ? h("small", {}, called) : null, narrowRule(rule)),
      h("td", {}, h("code", {}, rule)),
      h("td", { class: "rp-figure" }, number(received)),
      h("td", { class: "rp-figure" }, number(passed)),
      h("td", { class: "rp-lost" }, losses(lost, received)),
    );
  const caption = say("operations_count", { count: operations.length });
  const made = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: figures[i] }, head)))),
    h("tbody", {}, operations.map(row)),
  );
  const scroll = { class: "rp-scroll", tabindex: "0", role: "region", "aria-label": caption };
  return [h("p", { class: "rp-small" }, caption), h("div", scroll, made)];
}

/** The rule once more, for pages too narrow for a column of its own. */
function narrowRule(rule) {
  return rule ? h("small", { class: "rp-narrow" }, h("code", {}, rule)) : null;
}

/** What stayed at an operation, the largest part first, but for traces; the terminal shows the same. */
function losses(lost, received) {
  return Object.entries(lost)
    .filter(([, amount]) => Math.abs(amount) > NOTHING * Math.abs(received))
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
    .map(([cause, amount]) => {
      const name = known(`why_${cause}`) ? say(cause) : cause;
      return h("span", {}, `${name} `, h("span", { class: "rp-figure" }, number(amount)));
    });
}
