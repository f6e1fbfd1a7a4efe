/** The tab "Compare": one input, any methods and rules in a grid, from one forward pass. */

import { number, scores } from "/viewer/viewer.js";
import { inputsOf } from "./compare_input.js";
import { afterQuiet, alternatives, button, choice, h, icon } from "./dom.js";
import { className, frame, localScores, networkChoice, panel, refusalOf, slot, titleOf } from "./page.js";
import { parseRules, rulesChoice } from "./rules.js";
import { Newest, behind, explain } from "./server.js";
import { asIndex, base64, pack, unbase64, unpack } from "./state.js";
import { t, translate } from "./words.js";

const FIRST_METHODS = {
  digit: ["gradient", "gradient_x_input", "integrated_gradients", "occlusion"],
  picture: ["gradient", "gradient_x_input"],
  text: ["gradient", "gradient_x_input"],
};

/** The presets that are compared at first, of those that a model can be explained with. */
function firstPresets(model) {
  const vision = ["epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "gamma"];
  const attention = ["attn-lrp", "cp-lrp", "epsilon"];
  const recurrent = ["epsilon"];
  if (model.rules_default === "attn-lrp-vit") return ["attn-lrp-vit", ...attention];
  if (model.kind !== "text") return vision.filter((name) => model.presets.includes(name));
  return model.presets.includes("epsilon-plus-flat") ? attention : recurrent;
}

/** The columns of the table, with what each reads of a sheet. */
const COLUMNS = {
  name: (sheet) => titleOf(sheet),
  total: (sheet) => sheet.total,
  lost: (sheet) => (sheet.redistributes ? sheet.score - sheet.total : null),
  limit: (sheet) => sheet.limit,
};

/** @returns {import("./app.js").Tab} */
export function compare(context) {
  const { about } = context;
  const kinds = ["digit", "picture", "text"].filter((kind) => about.models.some((model) => model.kind === kind));
  const start = {
    kind: kinds[0],
    model: "",
    digit: about.samples.digits.find((one) => one.label === 3)?.digit ?? "",
    picture: about.samples.pictures[0]?.picture ?? "",
    text: about.samples.texts[0]?.text ?? "",
    target: null,
    tiles: null, // null: what is compared at first
    scale: "own",
    sort: "",
  };
  const view = { ...start };
  let last = null; // {answer, body, tiles}
  const adding = { method: "lrp", rules: "auto" };

  const kind = alternatives({
    label: t("compare.input"),
    options: kinds.map((value) => ({ value, text: t(`kind.${value}`) })),
    value: view.kind,
    change: (value) => update({ kind: value, model: "", target: null, tiles: null }),
  });
  const input = h("div", { class: "input" });
  const network = networkChoice([], "", (name) => update({ model: name, target: null, tiles: null }));
  const bars = scores([], { selected: null, choose: (index) => update({ target: index }) });
  const follow = button({ text: t("target.follow"), look: "quiet", click: () => update({ target: null }) });
  const scale = alternatives({
    label: t("compare.scale"),
    options: [
      { value: "own", text: t("compare.own") },
      { value: "shared", text: t("compare.shared") },
    ],
    value: view.scale,
    change: (value) => {
      view.scale = value;
      context.changed(true);
      if (last) paint();
    },
  });
  const method = choice({
    label: t("method"),
    options: [],
    value: "",
    change: (name) => ((adding.method = name), showAdding()),
  });
  const rules = rulesChoice({
    about,
    model: current(),
    value: "auto",
    change: (value) => ((adding.rules = value), showAdding()),
  });
  const add = button({ text: t("compare.add"), icon: "add", look: "strong", click: addTile });
  const grid = h("div", { class: "grid" });
  const table = h("table", { class: "figures" });
  const element = frame(
    "compare",
    h("div", { class: "controls" }, scale),
    h(
      "div",
      { class: "setup" },
      panel("", "input-panel", h("div", { class: "controls" }, kind, network), input),
      panel(t("scores"), "decision", bars, follow),
      panel(t("compare.adding"), "adding", method, rules, add),
    ),
    grid,
    h("div", { class: "panel table-panel" }, table),
  );
  const newest = new Newest(explain, { done, failed: element.tell, busy: element.busy });
  const inputs = inputsOf({
    context,
    view,
    choose: (changes) => update({ ...changes, target: null }),
    typed: afterQuiet(200, () => ask(false)),
  });
  const slots = []; // one for each place in the grid

  function models() {
    return about.models.filter((model) => model.kind === view.kind);
  }

  function current() {
    return (
      models().find((model) => model.name === view.model) ??
      models().find((model) => model.name === context.first(models(), view.text))
    );
  }

  function tiles() {
    if (view.tiles) return view.tiles;
    const model = current();
    const methods = FIRST_METHODS[model.kind].filter((name) => model.methods.includes(name));
    return [...firstPresets(model).map((name) => ["lrp", name]), ...methods.map((name) => [name, "auto"])];
  }

  function update(changes) {
    Object.assign(view, changes);
    show();
    ask(true);
  }

  function show() {
    const model = current();
    kind.set(view.kind);
    scale.set(view.scale);
    network.set(
      models().map((one) => ({
        value: one.name,
        text: translate(`model.${one.name}`, one.title),
        disabled: !one.available,
      })),
      model.name,
    );
    follow.hidden = view.target === null;
    method.set(
      model.methods.map((name) => ({ value: name, text: t(`method.${name}`) })),
      model.methods.includes(adding.method) ? adding.method : "lrp",
    );
    adding.method = method.control.value;
    if (typeof adding.rules === "string" && !model.presets.includes(adding.rules)) adding.rules = model.rules_default;
    showAdding();
    showInput();
  }

  function showAdding() {
    rules.hidden = adding.method !== "lrp";
    rules.set(current(), adding.rules);
    add.disabled = tiles().length >= about.limits.questions;
    add.title = add.disabled ? t("compare.full", { most: about.limits.questions }) : "";
  }

  /** The editor of the input, for its kind; kept while the kind stays. */
  function showInput() {
    const source = inputs[view.kind];
    if (input.firstChild !== source.element) input.replaceChildren(source.element);
    source.set();
  }

  function addTile() {
    const tile = adding.method === "lrp" ? ["lrp", adding.rules] : [adding.method, "auto"];
    update({ tiles: [...tiles(), tile] });
  }

  function ask(step) {
    context.changed(step);
    const model = current();
    element.tell(model.available ? null : { message: translate(`missing.${model.name}`, model.missing) });
    const asked = tiles();
    if (!model.available || !asked.length || (view.kind === "text" && !view.text.trim())) {
      newest.cancel();
      last = null;
      grid.replaceChildren();
      table.replaceChildren();
      bars.update([], { selected: null });
      return;
    }
    const questions = asked.map(([name, chosen]) => ({
      method: name,
      rules: name === "lrp" ? chosen : "auto",
      layer: null,
    }));
    const given = { digit: { digit: view.digit }, picture: { picture: view.picture }, text: { text: view.text } }[
      view.kind
    ];
    newest.ask({ model: model.name, input: given, target: view.target, questions }, asked);
  }

  function done(answer, body, asked) {
    element.tell(null);
    last = { answer, body, tiles: asked };
    bars.update(localScores(answer.scores.slice(0, 10)), { selected: answer.target?.index });
    paint();
    context.announce(t("compare.said", { count: answer.sheets.length, name: className(answer.target?.name ?? "") }));
  }

  /** The tiles in their order: as they were added, or by a column of the table. */
  function order() {
    const places = last.answer.sheets.map((_, at) => at);
    const key = view.sort.replace("-", "");
    if (!key) return places;
    const value = (at) => {
      const sheet = last.answer.sheets[at];
      return sheet.error ? null : COLUMNS[key](sheet);
    };
    const sign = view.sort.startsWith("-") ? -1 : 1;
    const compared = (one, other) => (typeof one === "string" ? one.localeCompare(other) : one - other);
    return places.sort((one, other) => {
      const [first, second] = [value(one), value(other)];
      if (first === null || second === null) return (first === null) - (second === null);
      return sign * compared(first, second);
    });
  }

  function paint() {
    const { answer, body } = last;
    const limits = answer.sheets.filter((sheet) => !sheet.error).map((sheet) => sheet.limit);
    const limit = view.scale === "shared" ? Math.max(...limits) : null;
    const asked = { ...body, target: answer.target?.index ?? null };
    const ordered = order();
    while (slots.length < ordered.length) slots.push(tile());
    grid.replaceChildren(...slots.slice(0, ordered.length).map((one) => one.element));
    grid.classList.toggle("of-texts", view.kind === "text");
    ordered.forEach((at, place) => {
      const sheet = answer.sheets[at];
      const options = {
        compact: true,
        limit,
        picture: null,
        opacity: 1,
        smooth: view.kind === "picture",
        heading: nameOf(at),
        ...behind(asked, body.questions[at]),
      };
      slots[place].show(at, sheet, options, nameOf(at));
    });
    paintTable(ordered);
  }

  const nameOf = (at) => {
    const [name, chosen] = last.tiles[at];
    if (name !== "lrp") return t(`method.${name}`);
    const sheet = last.answer.sheets[at];
    return sheet.error ? (typeof chosen === "string" ? chosen : t("rules.custom")) : titleOf(sheet);
  };

  /** One place of the grid: a card with the buttons that move it and take it away. */
  function tile() {
    const holder = slot("");
    let at = 0;
    const shift = (by) => {
      const places = [...last.tiles];
      [places[at], places[at + by]] = [places[at + by], places[at]];
      update({ tiles: places, sort: "" });
    };
    const earlier = button({ icon: "earlier", label: t("compare.earlier"), look: "small", click: () => shift(-1) });
    const later = button({ icon: "later", label: t("compare.later"), look: "small", click: () => shift(1) });
    const gone = button({
      icon: "close",
      label: t("compare.remove"),
      look: "small",
      click: () => update({ tiles: last.tiles.filter((_, place) => place !== at) }),
    });
    const element = h("div", { class: "tile" }, holder, h("div", { class: "moves" }, earlier, later, gone));
    return {
      element,
      show(index, sheet, options, name) {
        at = index;
        holder.show(sheet, options);
        earlier.disabled = at === 0;
        later.disabled = at === last.tiles.length - 1;
        earlier.hidden = later.hidden = view.sort !== "";
        for (const [control, key] of [
          [earlier, "earlier"],
          [later, "later"],
          [gone, "remove"],
        ])
          control.setAttribute("aria-label", `${t(`compare.${key}`)}: ${name}`);
      },
    };
  }

  function paintTable(ordered) {
    const key = view.sort.replace("-", "");
    const down = view.sort.startsWith("-");
    const sortBy = (column) => {
      const same = column === key;
      view.sort = same && down ? "" : same ? `-${column}` : column;
      context.changed(true);
      paint();
      table.querySelector(`[data-column="${column}"]`)?.focus();
    };
    const heads = Object.keys(COLUMNS).map((column) =>
      h(
        "th",
        { scope: "col", "aria-sort": column === key ? (down ? "descending" : "ascending") : "none" },
        h(
          "button",
          { type: "button", "data-column": column, on: { click: () => sortBy(column) } },
          t(`compare.column.${column}`),
          column === key ? icon(down ? "down" : "up") : null,
        ),
      ),
    );
    const rows = ordered.map((at) => {
      const sheet = last.answer.sheets[at];
      if (sheet.error)
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, nameOf(at)),
          h("td", { colspan: 3, class: "said" }, refusalOf(sheet)),
        );
      const cells = ["total", "lost", "limit"].map((column) => {
        const value = COLUMNS[column](sheet);
        const written = value === null ? "–" : number(value);
        return h("td", {}, column === "limit" ? written.replace("+", "") : written);
      });
      return h("tr", {}, h("th", { scope: "row" }, nameOf(at)), ...cells);
    });
    const score = last.answer.sheets.find((sheet) => !sheet.error)?.score;
    const told =
      score === undefined
        ? ""
        : t("compare.score", { name: className(last.answer.target?.name ?? ""), score: number(score) });
    table.replaceChildren(h("caption", {}, told), h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
  }

  return {
    name: "compare",
    element,
    /** Take over what another tab shows: {kind, digit | picture | text}. */
    adopt(given) {
      if (!kinds.includes(given.kind)) return;
      const other = given.kind !== view.kind;
      const there = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
      Object.assign(view, there, { target: null }, other ? { model: "", tiles: null } : {});
      show();
      ask(false);
    },
    async values() {
      return {
        input: view.kind === start.kind ? "" : view.kind,
        model: view.model,
        ink: view.kind === "digit" ? await pack(unbase64(view.digit)) : "",
        picture: view.kind === "picture" ? view.picture : "",
        text: view.kind === "text" ? view.text : "",
        target: view.target ?? "",
        tiles: view.tiles ? JSON.stringify(view.tiles) : "",
        scale: view.scale === start.scale ? "" : view.scale,
        sort: view.sort,
      };
    },
    async apply(values) {
      const bytes = values.ink ? await unpack(values.ink) : null;
      Object.assign(view, start, {
        kind: kinds.includes(values.input) ? values.input : start.kind,
        digit: bytes?.length === 784 ? base64(bytes) : start.digit,
        picture: values.picture ?? start.picture,
        text: values.text ?? start.text,
        target: asIndex(values.target),
        tiles: null,
        scale: values.scale === "shared" ? "shared" : "own",
        sort: values.sort && values.sort.replace("-", "") in COLUMNS ? values.sort : "",
      });
      view.model = models().some((model) => model.name === values.model) ? values.model : "";
      view.tiles = parseTiles(values.tiles, current());
      show();
      ask(false);
    },
  };
}

/** Tiles as they stand in an address: [[method, rules], ...]; null, for those at first, where there are none. */
function parseTiles(text, model) {
  if (!text) return null;
  try {
    const rulesOf = (rules) => parseRules(typeof rules === "string" ? rules : JSON.stringify(rules), model);
    return JSON.parse(text).map(([method, rules]) => [String(method), rulesOf(rules)]);
  } catch {
    return null;
  }
}
