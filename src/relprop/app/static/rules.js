/** Which rules: a preset by its name, or rows of selector, rule and parameters; the first that fits decides. */

import { button, choice, h, unique } from "./dom.js";
import { t, translate } from "./words.js";

const OWN = "own";

/** What a list of one's own starts from: for networks with attention, and for all others. */
const ATTENTION_ROWS = [
  ["affine", "Epsilon(1e-6)"],
  ["attention", "Half()"],
];
const CLASSIC_ROWS = [
  ["first", "Flat()"],
  ["conv", "ZPlus()"],
  ["linear", "Epsilon(1e-6)"],
  ["sum", "Epsilon(1e-6)"],
  ["normaliser", "Epsilon(1e-6)"],
];

/**
 * The choice of rules for a model. `element.set(model, value)`.
 * A value is "auto", a preset's name, or a list of [selector, "Rule(parameters)"].
 * @param {{about: object, model: object, value: string|string[][], own?: boolean, change: (value) => void}} options
 *   own: whether a list of one's own can be made
 */
export function rulesChoice({ about, model, value, own = true, change }) {
  let shown = { model, value };
  const presets = choice({ label: t("rules"), options: [], value: "", change: chosen });
  const summary = h("p", { class: "hint" });
  const editor = ruleRows({ about, change: (rows) => change(rows) });
  const element = h("div", { class: "rules" }, presets, summary, editor);

  function chosen(name) {
    change(
      name === OWN
        ? typeof shown.value === "string" && shown.value.includes("-lrp")
          ? ATTENTION_ROWS
          : CLASSIC_ROWS
        : name,
    );
  }

  element.set = (now, kept) => {
    shown = { model: now, value: kept };
    const listed = typeof kept !== "string";
    const options = now.presets.map((name) => ({ value: name, text: name === "auto" ? t("rules.auto") : name }));
    if (own) options.push({ value: OWN, text: t("rules.own") });
    presets.set(options, listed ? OWN : kept);
    const preset = about.presets.find((one) => one.name === kept);
    summary.textContent = listed ? t("rules.order") : translate(`preset.${kept}`, preset?.summary ?? "");
    editor.hidden = !listed;
    if (listed) editor.set(now, kept);
  };
  element.set(model, value);
  return element;
}

/** Rules as they stand in an address: a preset's name, or a list as JSON; without any, those the model starts with. */
export function parseRules(text, model) {
  if (!text) return model.rules_default;
  if (!text.startsWith("[")) return model.presets.includes(text) ? text : model.rules_default;
  try {
    const rows = JSON.parse(text);
    return rows.length && rows.every((row) => row.length === 2 && row.every((part) => typeof part === "string"))
      ? rows
      : model.rules_default;
  } catch {
    return model.rules_default;
  }
}

/** Rules as `parseRules` reads them. */
export const rulesText = (rules, model) =>
  typeof rules !== "string" ? JSON.stringify(rules) : rules === model.rules_default ? "" : rules;

/** The rows of a rule map, to be changed, moved, added and taken away. */
function ruleRows({ about, change }) {
  const selectors = h("datalist", { id: unique("selectors") });
  const list = h("ol", { class: "rows" });
  const add = button({
    text: t("rules.add"),
    icon: "add",
    look: "quiet",
    click: () => put([...rows, ["affine", "Epsilon(1e-6)"]]),
  });
  const element = h("div", { class: "rule-rows" }, list, add, selectors);
  let rows = [];

  const put = (next) => {
    rows = next;
    draw();
    change(rows);
  };
  const replace = (index, row) => put(rows.map((one, at) => (at === index ? row : one)));
  const move = (index, by) => {
    const next = [...rows];
    [next[index], next[index + by]] = [next[index + by], next[index]];
    put(next);
    list.children[index + by].querySelector("input").focus();
  };

  function draw() {
    list.replaceChildren(...rows.map(row));
  }

  function row([selector, text], index) {
    const rule = readRule(text, about.rules);
    const where = h("input", {
      type: "text",
      list: selectors.id,
      value: selector,
      spellcheck: "false",
      autocapitalize: "off",
      "aria-label": t("rules.where", { row: index + 1 }),
      on: { change: (event) => replace(index, [event.target.value.trim() || "affine", text]) },
    });
    const which = h(
      "select",
      {
        "aria-label": t("rules.which", { row: index + 1 }),
        on: { change: (event) => replace(index, [selector, writeRule(fresh(event.target.value, about.rules))]) },
      },
      ...about.rules.map((one) => h("option", { value: one.name, title: one.formula ?? "" }, one.name)),
    );
    which.value = rule.name;
    const parameters = rule.parameters.map((parameter, at) =>
      parameterInput(rule, parameter, at, (changed) => replace(index, [selector, writeRule(changed)])),
    );
    const last = index === rows.length - 1;
    return h(
      "li",
      {},
      where,
      h("span", { class: "select" }, which),
      h("span", { class: "parameters" }, ...parameters),
      h(
        "span",
        { class: "moves" },
        disabled(
          button({ icon: "up", label: t("rules.up"), look: "small", click: () => move(index, -1) }),
          index === 0,
        ),
        disabled(button({ icon: "down", label: t("rules.down"), look: "small", click: () => move(index, 1) }), last),
        disabled(
          button({
            icon: "close",
            label: t("rules.remove"),
            look: "small",
            click: () => put(rows.filter((_, at) => at !== index)),
          }),
          rows.length === 1,
        ),
      ),
    );
  }

  element.set = (model, next) => {
    selectors.replaceChildren(
      ...about.selectors.map((one) => h("option", { value: one.name }, translate(`selector.${one.name}`, one.summary))),
      ...model.layers.map((name) => h("option", { value: name })),
    );
    if (JSON.stringify(next) === JSON.stringify(rows)) return;
    rows = next;
    draw();
  };
  return element;
}

const disabled = (control, off) => Object.assign(control, { disabled: off });

/** One parameter of a rule: a number, yes or no, or one of a few words. */
function parameterInput(rule, parameter, at, change) {
  const set = (value) => change({ ...rule, values: rule.values.map((one, index) => (index === at ? value : one)) });
  const value = rule.values[at];
  const named = (control) => h("label", { class: "parameter" }, h("span", {}, parameter.name), control);
  if (typeof parameter.default === "boolean") {
    const box = h("input", { type: "checkbox", on: { change: () => set(box.checked ? "True" : "False") } });
    box.checked = value === "True";
    return named(box);
  }
  if (parameter.choices) {
    const list = h(
      "select",
      { on: { change: () => set(list.value) } },
      ...parameter.choices.map((one) => h("option", { value: one }, one)),
    );
    list.value = value;
    return named(h("span", { class: "select" }, list));
  }
  const blank = literal(parameter.default);
  const input = h("input", {
    type: "text",
    inputmode: "decimal",
    value,
    placeholder: blank,
    size: 5,
    on: { change: () => set(input.value.trim() || blank) },
  });
  return named(input);
}

/** "Gamma(0.25)" as {name, parameters, values}: values as text, in the order of the rule's parameters. */
function readRule(text, rules) {
  const [, name, inside] = /^(\w+)\((.*)\)$/s.exec(text) ?? ["", rules[0].name, ""];
  const known = rules.find((one) => one.name === name) ?? rules[0];
  const rule = fresh(known.name, rules);
  const written = inside
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean);
  written.forEach((one, index) => {
    const [, key, value] = /^(?:(\w+)\s*=\s*)?(.*)$/s.exec(one);
    const at = key ? rule.parameters.findIndex((parameter) => parameter.name === key) : index;
    if (at in rule.values) rule.values[at] = value.replaceAll('"', "");
  });
  return rule;
}

/** A rule with its parameters as they are by default. */
function fresh(name, rules) {
  const { parameters } = rules.find((one) => one.name === name);
  return { name, parameters, values: parameters.map((one) => literal(one.default)) };
}

function literal(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3) return value.toExponential();
  return String(value ?? "");
}

/** The rule as the server reads it, with the parameters that differ from what they are by default. */
function writeRule({ name, parameters, values }) {
  const quoted = (one, value) => (one.choices ? `"${value}"` : value);
  const told = parameters.map((one, at) =>
    values[at] === literal(one.default) ? "" : `${one.name}=${quoted(one, values[at])}`,
  );
  return `${name}(${told.filter(Boolean).join(", ")})`;
}
