/** The app: tabs, language, theme, and the view in the address. */

import { configure } from "/viewer/viewer.js";
import { compare } from "./compare.js";
import { digit } from "./digit.js";
import { afterQuiet, alternatives, button, h } from "./dom.js";
import { Ink } from "./ink.js";
import { photo } from "./photo.js";
import { review } from "./review.js";
import { series } from "./series.js";
import { about as askAbout } from "./server.js";
import { read, write } from "./state.js";
import { LANGUAGES, isOwn, language, setLanguage, t } from "./words.js";

/**
 * One tab: its element; `values()`, what a link to it must say; `apply(values)` brings it to what a link says.
 * @typedef {{name: string, element: HTMLElement, values: () => Object<string, string>|Promise<Object<string, string>>,
 *            apply: (values: Object<string, string>) => void|Promise<void>, take?: (file: File) => void,
 *            input?: () => object, adopt?: (input: object) => void}} Tab
 * `input`: what it shows; `adopt`: take over what another tab shows.
 */

const TABS = { digit, photo, review, series, compare };
/** The kinds of models that each tab has a use for. */
const KINDS = {
  digit: ["digit"],
  photo: ["picture"],
  review: ["text"],
  series: ["series"],
  compare: ["digit", "picture", "text"],
};
const THEMES = ["system", "light", "dark"];

const stored = {
  get: (key) => {
    try {
      return localStorage.getItem(`relprop.${key}`);
    } catch {
      return null; // storage that is closed to the page
    }
  },
  set: (key, value) => {
    try {
      localStorage.setItem(`relprop.${key}`, value);
    } catch {
      // The choice then holds for this visit.
    }
  },
};

const ink = new Ink();
const main = document.querySelector("main");
const said = document.getElementById("said");
let about = null;
let tabs = {}; // name -> Tab
let shown = ""; // the name of the tab that is open
let inputTab = ""; // the tab with an input that was open last
let restoring = false;

const announce = afterQuiet(700, (text) => (said.textContent = text));

/** What a tab is told of the rest. */
function contextOf(name) {
  let step = false;
  const settle = afterQuiet(120, async () => {
    const asStep = step;
    step = false;
    const values = await tabs[name].values();
    if (shown === name) write(name, values, asStep);
  });
  return {
    about,
    ink,
    announce,
    /** The view has changed; `asStep`: so that the reader can go back to the one before. */
    changed(asStep) {
      if (shown !== name) return;
      step ||= asStep && !restoring;
      settle();
    },
    /** The model to begin with: the reader's own, or the first that can be loaded. */
    first: (models, text = "") => first(models, text),
    drawn: () => ink.reduce()?.bytes ?? null,
    picture: () => tabs.photo?.input().picture,
  };
}

function first(models, text) {
  const korean = /[\u3130-\u318f\uac00-\ud7af]/.test(text);
  const reads = (model) => !text || !model.language || model.language === (korean ? "ko" : "en");
  const found = models.find(isOwn) ?? models.find((model) => model.available && reads(model));
  return (found ?? models[0])?.name ?? "";
}

/** Make every tab anew, in the language of the interface. */
function build() {
  document.documentElement.lang = language();
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = t(element.dataset.words);
  configure({ palette: about.palette, language: language() });
  const offered = Object.keys(TABS).filter((name) => about.models.some((model) => KINDS[name].includes(model.kind)));
  tabs = Object.fromEntries(offered.map((name) => [name, TABS[name](contextOf(name))]));
  const list = document.querySelector(".tabs");
  list.setAttribute("aria-label", t("tabs"));
  list.replaceChildren(...offered.map(tabButton));
  main.replaceChildren(
    ...offered.map((name) =>
      h(
        "section",
        { id: `panel-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}`, tabindex: "-1", hidden: true },
        tabs[name].element,
      ),
    ),
  );
  document.querySelector(".settings").replaceChildren(languageSwitch(), themeSwitch(), linkButton());
  document
    .querySelector(".foot")
    .replaceChildren(h("p", {}, t("foot.local")), h("p", { class: "version" }, `relprop ${about.version}`));
}

function tabButton(name) {
  return h(
    "button",
    {
      type: "button",
      role: "tab",
      id: `tab-${name}`,
      "aria-controls": `panel-${name}`,
      "aria-selected": "false",
      tabindex: "-1",
      on: { click: () => visit(name), keydown: walkTabs },
    },
    t(`tab.${name}`),
  );
}

/** Left and right, Home and End between the tabs. */
function walkTabs(event) {
  const buttons = [...document.querySelectorAll("[role=tab]")];
  const here = buttons.indexOf(event.currentTarget);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = buttons[(to + buttons.length) % buttons.length];
  next.focus();
  next.click();
}

function open(name) {
  shown = name;
  if (name !== "compare") inputTab = name;
  for (const one of document.querySelectorAll("[role=tab]")) {
    const here = one.id === `tab-${name}`;
    one.setAttribute("aria-selected", String(here));
    one.tabIndex = here ? 0 : -1;
  }
  for (const one of main.children) one.hidden = one.id !== `panel-${name}`;
  document.title = `${t(`tab.${name}`)} · relprop`;
}

const visited = new Set(); // tabs that have shown something

/** Open a tab by its button: as it was left, or, to compare, with what the tab before showed. */
async function visit(name) {
  if (name === shown) return;
  const from = inputTab;
  open(name);
  const given = name === "compare" ? tabs[from]?.input?.() : null;
  if (!given && !visited.has(name)) await apply(name, {});
  visited.add(name);
  if (given) tabs.compare.adopt(given);
  write(name, await tabs[name].values(), true);
}

async function apply(name, values) {
  visited.add(name);
  restoring = true;
  await tabs[name].apply(values);
  restoring = false;
}

/** Bring the page to what the address says. */
async function restore() {
  const { tab, values } = read();
  const name = tab in tabs ? tab : home();
  open(name);
  await apply(name, values);
}

/** The tab to begin with: that of the reader's own model. */
function home() {
  const own = about.models.find(isOwn);
  return Object.keys(tabs).find((name) => KINDS[name].includes(own?.kind)) ?? Object.keys(tabs)[0];
}

function languageSwitch() {
  return alternatives({
    label: t("language"),
    hideLabel: true,
    options: LANGUAGES.map(({ code, short, name }) => ({ value: code, text: short, lang: code, title: name })),
    value: language(),
    async change(code) {
      const kept = Object.fromEntries(
        await Promise.all([...visited].map(async (name) => [name, await tabs[name].values()])),
      );
      setLanguage(code);
      stored.set("language", code);
      const here = shown;
      build();
      for (const name of visited) {
        open(name);
        await apply(name, kept[name]);
      }
      open(here);
      document.querySelector(`.settings input[value=${code}]`).focus();
    },
  });
}

function themeSwitch() {
  const theme = () => document.documentElement.dataset.theme ?? "system";
  const control = h("div");
  const draw = () => {
    const now = theme();
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    const label = t("theme.label", { now: t(`theme.${now}`), next: t(`theme.${next}`) });
    const change = () => {
      if (next === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      stored.set("theme", next);
      draw();
      control.firstChild.focus();
    };
    control.replaceChildren(button({ icon: now, label, click: change }));
  };
  draw();
  return control;
}

function linkButton() {
  const control = button({
    icon: "link",
    label: t("link.copy"),
    async click() {
      write(shown, await tabs[shown].values(), false);
      try {
        await navigator.clipboard.writeText(location.href);
        note(t("link.copied"));
      } catch {
        note(t("link.address"));
      }
    },
  });
  const bubble = h("span", { class: "bubble", role: "status" });
  const clear = afterQuiet(2500, () => (bubble.textContent = ""));
  const note = (text) => {
    bubble.textContent = text;
    clear();
  };
  return h("div", { class: "linker" }, control, bubble);
}

/** Hand a file that was pasted or dropped to the open tab, if it takes any. */
function take(event, { files }) {
  if (files.length === 0 || !tabs[shown].take) return;
  event.preventDefault();
  tabs[shown].take(files[0]);
}

async function start() {
  const preferred = stored.get("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");
  setLanguage(preferred);
  try {
    about = await askAbout();
  } catch (error) {
    main.replaceChildren(h("p", { class: "message" }, error.message));
    return;
  }
  build();
  await restore();
  addEventListener("popstate", restore);
  document.addEventListener("paste", (event) => take(event, event.clipboardData));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault(); // else the browser would leave the page for the file
      document.body.toggleAttribute("data-drop", kind === "dragover");
      if (kind === "drop") take(event, event.dataTransfer);
    });
  }
}

start();
