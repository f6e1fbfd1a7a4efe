/** A report made interactive: sorting, filtering, values under the pointer, one input closely, the other language. */

import { card, configure, heatmap, number, say, words } from "../assets/viewer.js";
import { choice, h, labelled, select, step } from "./elements.js";

const report = JSON.parse(document.querySelector("script.report").textContent);
const root = document.documentElement;
const articles = [...document.querySelectorAll("article.item")];
const groups = [...document.querySelectorAll("section.group")];
const groupOf = new Map(articles.map((each) => [each, each.closest("section")]));
const dialog = document.getElementById("closer");
const start = { sort: "order", down: false, find: "", class: "", right: "", group: "", hidden: new Set(), scale: "own" };
const state = { ...start };

/* Words */

/** A sentence of the report in the language of the page. */
function phrase(key, values = {}) {
  const text = report.words[root.lang][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** What a user gave in one language or in several. */
const inLanguage = (given) =>
  typeof given === "string" ? given : (given[root.lang] ?? Object.values(given)[0]);

function translate(language) {
  root.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) {
    element.textContent = phrase(element.dataset.say, JSON.parse(element.dataset.values ?? "{}"));
  }
  for (const element of document.querySelectorAll("[data-words]")) {
    element.textContent = inLanguage(JSON.parse(element.dataset.words));
  }
  for (const element of document.querySelectorAll("[data-say-alt]")) {
    element.alt = phrase(element.dataset.sayAlt, JSON.parse(element.dataset.values ?? "{}"));
  }
  document.title = document.querySelector("h1").textContent;
  configure({ palette: report.palette, language });
  preferences();
  tools();
  arrange();
  redraw();
  if (dialog.open) show(Number(dialog.dataset.index));
}

/* Preferences */

function preferences() {
  const place = document.getElementById("preferences");
  const theme = root.dataset.theme ?? "auto";
  const themes = ["auto", "light", "dark"].map((name) => [name, phrase(`theme_${name}`)]);
  place.replaceChildren(
    choice(phrase("language"), [["en", "English"], ["ko", "한국어"]], (value) => value === root.lang, translate),
    choice(phrase("theme"), themes, (value) => value === theme, (value) => {
      if (value === "auto") delete root.dataset.theme;
      else root.dataset.theme = value;
      preferences();
    }),
  );
  place.hidden = false;
}

/* Sorting and filtering */

const methods = [...new Set(report.figures.flat().map((each) => each.method))];
const classes = [...new Set(articles.map((each) => each.dataset.class))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
const known = articles.some((each) => each.dataset.right);

const figuresOf = (article) => report.figures[Number(article.dataset.index)];

/** The figures that an input is sorted by: those of its first method that is shown. */
const figures = (article) => figuresOf(article).find((each) => !state.hidden.has(each.method)) ?? figuresOf(article)[0];

const KEYS = {
  order: (article) => Number(article.dataset.index),
  score: (article) => figures(article).score,
  sum: (article) => figures(article).sum,
  difference: (article) => (figures(article).unit === "score" ? figures(article).difference : Infinity),
  class: (article) => article.dataset.class,
  name: (article) => article.querySelector("h3").textContent,
};

/** The articles in the order that is asked for; those that are alike in that of the page. */
function sorted(given) {
  const { compare } = new Intl.Collator(root.lang, { numeric: true });
  const keys = new Map(given.map((each) => [each, KEYS[state.sort](each)]));
  const order = (a, b) => (typeof a === "string" ? compare(a, b) : a === b ? 0 : a - b);
  return given.sort((a, b) => (state.down ? -1 : 1) * order(keys.get(a), keys.get(b)) || KEYS.order(a) - KEYS.order(b));
}

/** What an input is found by: its name in both languages, its text. */
const found = new Map(articles.map((each) => [each, searched(each)]));

function searched(article) {
  const name = article.querySelector("h3 span");
  const names = Object.values(JSON.parse(name.dataset.words ?? "{}"));
  return [name.textContent, ...names, article.querySelector(".drawn.text")?.textContent ?? ""].join(" ").toLocaleLowerCase();
}

function fits(article) {
  return (
    (!state.class || article.dataset.class === state.class) &&
    (!state.right || article.dataset.right === state.right) &&
    (!state.group || groupOf.get(article).dataset.group === state.group) &&
    found.get(article).includes(state.find.toLocaleLowerCase())
  );
}

/** Shows what fits, in order, and how many that are. */
function arrange() {
  for (const article of articles) {
    article.hidden = !fits(article);
    for (const tile of article.getElementsByClassName("map")) tile.hidden = state.hidden.has(tile.dataset.method);
  }
  for (const group of groups) {
    const mine = articles.filter((each) => groupOf.get(each) === group);
    group.querySelector(".items").append(...sorted(mine));
    group.hidden = mine.every((each) => each.hidden);
    const tiles = (each) => [...each.getElementsByClassName("tile")].filter((tile) => !tile.hidden).length;
    group.querySelector(".items").style.setProperty("--tiles", Math.max(...mine.map(tiles)));
  }
  const shown = articles.filter((each) => !each.hidden).length;
  document.querySelector(".shown").textContent = phrase("shown", { shown, count: articles.length });
  document.querySelector(".nothing").hidden = shown > 0 || articles.length === 0;
}

function change(values) {
  Object.assign(state, values);
  arrange();
}

function tools() {
  const form = document.getElementById("tools");
  const all = ["", phrase("all")];
  const direction = h("button", { type: "button", class: "field", onclick: turn });
  const tell = () => {
    direction.textContent = state.down ? "↓" : "↑";
    direction.title = phrase(state.down ? "descending" : "ascending");
    direction.setAttribute("aria-label", direction.title);
  };
  function turn() {
    change({ down: !state.down });
    tell();
  }
  tell();
  const sorts = Object.keys(KEYS).map((key) => [key, phrase(`sort_${key}`)]);
  const sort = select(phrase("sort"), sorts, state.sort, (value) => change({ sort: value }), direction);
  const find = h("input", { class: "field", type: "search", placeholder: phrase("find_hint"), value: state.find, oninput: (event) => change({ find: event.target.value }) });
  form.setAttribute("aria-label", phrase("tools"));
  form.onsubmit = (event) => event.preventDefault();
  form.replaceChildren(
    sort,
    ...(groups.length > 1 ? [select(phrase("group"), [all, ...groups.map((each) => [each.dataset.group, each.querySelector("h2")?.textContent ?? ""])], state.group, (value) => change({ group: value }))] : []),
    ...(classes.length > 1 ? [select(phrase("class"), [all, ...classes.map((name) => [name, name])], state.class, (value) => change({ class: value }))] : []),
    ...(known ? [answers(all)] : []),
    labelled(phrase("find"), find),
    ...(methods.length > 1 ? [shownMethods()] : []),
    scales(),
    h("p", { class: "shown", role: "status" }),
  );
  form.hidden = articles.length < 2 && methods.length < 2;
  document.querySelector(".nothing").replaceChildren(
    phrase("nothing_fits"),
    h("button", { type: "button", class: "field", onclick: showAll }, phrase("show_all")),
  );
}

function answers(all) {
  const options = [all, ["right", phrase("right")], ["wrong", phrase("wrong")]];
  return select(phrase("answers"), options, state.right, (value) => change({ right: value }));
}

function shownMethods() {
  const element = choice(phrase("methods"), methods.map((name) => [name, name]), (name) => !state.hidden.has(name), (name) => {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(name) && hidden.size < methods.length - 1) hidden.add(name);
    change({ hidden });
    element.update();
  });
  return h("fieldset", { class: "methods" }, h("legend", {}, phrase("methods")), element);
}

function scales() {
  const options = ["own", "item", "all"].map((name) => [name, phrase(`scale_${name}`)]);
  return select(phrase("scale"), options, state.scale, (value) => {
    state.scale = value;
    redraw();
  });
}

function showAll() {
  Object.assign(state, start, { hidden: new Set(), scale: state.scale });
  tools();
  arrange();
}

/* Maps with values under the pointer, in place of the still pictures */

const sheetsOf = new WeakMap();

/** The explanations of an input, as the viewer takes them; read when they are first needed. */
function sheets(article) {
  if (!sheetsOf.has(article)) {
    const stored = JSON.parse(article.querySelector("script.sheets").textContent);
    for (const sheet of stored) if (sheet.heat?.bits === 16) sheet.heat = widened(sheet.heat);
    sheetsOf.set(article, stored);
  }
  return sheetsOf.get(article);
}

/** A map stored in 16 bits, in units of its largest |value|, in the 32 bits that the viewer reads. */
function widened({ width, height, values, unit }) {
  const bytes = Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0));
  const halves = new DataView(bytes.buffer);
  const wide = new Float32Array(width * height);
  for (let i = 0; i < wide.length; i += 1) wide[i] = unit * half(halves.getUint16(2 * i, true));
  const out = new Uint8Array(wide.buffer);
  let text = "";
  for (let i = 0; i < out.length; i += 8192) text += String.fromCharCode(...out.subarray(i, i + 8192));
  return { width, height, values: btoa(text) };
}

/** The number that 16 bits stand for (IEEE 754). */
function half(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** The picture that the model saw, which stands in the page already. */
function picture(article) {
  const image = article.querySelector(".input img");
  return image && { width: Number(image.getAttribute("width")), height: Number(image.getAttribute("height")), src: image.src };
}

/** The |relevance| of full colour that a map shares with others, if it does: with those of the same unit. */
function limit(sheet, article) {
  if (state.scale === "own") return null;
  const group = groupOf.get(article);
  const beside = state.scale === "item" ? [article] : articles.filter((each) => groupOf.get(each) === group);
  const unit = figuresOf(article).find((each) => each.method === sheet.title).unit;
  const key = `${state.scale === "item" ? article.id : group.id} ${unit}`;
  if (!limits.has(key)) {
    const shared = beside.flatMap(figuresOf).filter((each) => each.unit === unit);
    limits.set(key, Math.max(...shared.map((each) => each.limit)));
  }
  return limits.get(key);
}

const limits = new Map();
const drawn = new Set();

/** A sheet that says what was explained in the language of the page. */
function localised(sheet, article) {
  const claim = inLanguage(report.facts[Number(article.dataset.index)].explained);
  return { ...sheet, claim, target: sheet.target && { ...sheet.target, name: claim } };
}

function draw(article) {
  drawn.add(article);
  const tiles = [...article.querySelectorAll(".map .drawn")];
  sheets(article).forEach((sheet, i) => {
    const make = sheet.kind === "text" ? words : heatmap;
    tiles[i].replaceChildren(make(localised(sheet, article), { limit: limit(sheet, article), compact: true, readout: silent() }));
  });
  for (const plane of article.querySelectorAll(".rp-plane")) plane.tabIndex = -1; // the detail view is for the keyboard
}

/** Where a tile's values are told: beside the pointer only, as there are too many tiles for a line below each. */
function silent() {
  return Object.assign(h("output"), { say: () => {}, rest: () => {} });
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  },
  { rootMargin: "300px" },
);

function redraw() {
  limits.clear();
  for (const article of articles) {
    if (drawn.has(article)) draw(article);
    else seen.observe(article);
  }
}

/* One input, closely */

/** The inputs that are shown now, in their order. */
const inOrder = () => [...document.querySelectorAll("article.item")].filter((each) => !each.hidden && !groupOf.get(each).hidden);

/** Opens the detail view of an input, or moves it there. */
function show(index) {
  const article = articles[index];
  const order = inOrder();
  const place = order.indexOf(article);
  const go = (by) => show(Number(order[(place + by + order.length) % order.length].dataset.index));
  const heading = h("h2", { id: "closer-name" }, article.querySelector("h3").textContent);
  const count = h("p", {}, phrase("place", { place: place + 1, count: order.length }));
  const steps = place >= 0 && order.length > 1 ? [count, step("previous", phrase("previous"), () => go(-1)), step("next", phrase("next"), () => go(1))] : [];
  const focused = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  dialog.replaceChildren(h("header", {}, heading, ...steps, step("close", phrase("close"), () => dialog.close())), closer(article));
  dialog.dataset.index = String(index);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  [...dialog.querySelectorAll(".step")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
  history.replaceState(null, "", `#item-${index}`);
}

function closer(article) {
  const seenByModel = picture(article);
  const image = article.querySelector(".input img")?.cloneNode();
  const facts = report.facts[Number(article.dataset.index)];
  const wanted = sheets(article).filter((sheet) => !state.hidden.has(sheet.title)).map((sheet) => localised(sheet, article));
  const photo = seenByModel && Math.max(seenByModel.width, seenByModel.height) > 64;
  const options = (sheet) => ({ limit: limit(sheet, article), picture: seenByModel, downloads: "local", opacity: 1 });
  const cards = wanted.map((sheet) => card(sheet, options(sheet)));
  const about = h("div", { class: "about" }, image ?? null, h("div", {}, told(facts), photo ? slider((opacity) => cards.forEach((each, i) => each.update(wanted[i], { opacity }))) : null));
  return h("div", { class: "closer" }, about, h("div", { class: "cards" }, ...cards));
}

/** A control between the picture and the map, for all cards at once. */
function slider(change) {
  const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, "aria-label": phrase("opacity"), style: "--rp-at: 100%" });
  input.addEventListener("input", () => {
    input.style.setProperty("--rp-at", `${100 * input.value}%`);
    change(Number(input.value));
  });
  return h("label", { class: "rp-slider" }, h("span", {}, say("picture_only")), input, h("span", {}, say("map_only")));
}

function told(facts) {
  const pairs = [
    ["model", facts.model],
    ["explained", inLanguage(facts.explained)],
    ["answer", facts.answer],
    ["truth", facts.truth],
    ["score", number(facts.score)],
  ];
  const list = h("dl");
  for (const [key, value] of pairs) if (value) list.append(h("dt", {}, phrase(key)), h("dd", {}, value));
  return list;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("article.item h3 a, article.item.picture .tile");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(Number(link.closest("article").dataset.index));
});

dialog.addEventListener("close", () => {
  history.replaceState(null, "", location.pathname + location.search);
  articles[Number(dialog.dataset.index)].querySelector("h3 a").focus();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
  if (!by || event.defaultPrevented || event.target.closest("input, select, [tabindex], canvas")) return;
  [...dialog.querySelectorAll(".step")].find((each) => each.title === phrase(by))?.click();
});

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.balance")) details.open = true;
});

document.querySelector("main").append(h("p", { class: "nothing", hidden: true }));
root.classList.add("interactive");
translate(root.lang);
const asked = /^#item-(\d+)$/.exec(location.hash);
if (asked && articles[Number(asked[1])]) show(Number(asked[1]));
