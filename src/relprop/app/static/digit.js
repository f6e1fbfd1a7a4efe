/** The tab "Digit": a drawing, the scores of ten classes and the heatmap, while the pen moves. */

import { scores } from "/viewer/viewer.js";
import { alternatives, button, h, toggle } from "./dom.js";
import { frame, gallery, localScores, networkChoice, panel, slot } from "./page.js";
import { pad, thumbnail } from "./pad.js";
import { parseRules, rulesChoice, rulesText } from "./rules.js";
import { Newest, behind, explain } from "./server.js";
import { asIndex, base64, pack, unbase64, unpack } from "./state.js";
import { t } from "./words.js";

const EXAMPLE = 3; // the digit that is there before anything is drawn
const ROW = 10; // samples shown at a time
const LATE = 250; // milliseconds after which what is shown is dimmed until the answer is there
const WIDTHS = { thin: 0.06, medium: 0.085, thick: 0.12 };

/** @returns {import("./app.js").Tab} */
export function digit(context) {
  const { about, ink } = context;
  const models = about.models.filter((model) => model.kind === "digit");
  const samples = about.samples.digits.map(({ digit: bytes, label }) => ({ bytes: unbase64(bytes), label }));
  const start = {
    model: context.first(models),
    rules: "",
    target: null,
    under: matchMedia("(max-width: 760px)").matches,
  };
  const view = { ...start };
  let set = 0; // which ten of the samples are shown
  let sample = null;
  let last = null; // the last answer, with the place of its field on the pad
  let warning = null; // what was wrong with a link, until the reader does something

  const surface = pad({ ink, changed: () => ((sample = null), gallerySlot.mark(), ask(false)) });
  const seen = thumbnail(null, t("digit.seen"));
  const explained = slot(t("digit.waiting"), "explained");
  const bars = scores([], { selected: null, choose });
  const follow = button({ text: t("target.follow"), look: "quiet", click: () => choose(null) });
  const network = networkChoice(models, view.model, (name) =>
    update({ model: name, rules: modelOf(name).rules_default }),
  );
  const rules = rulesChoice({
    about,
    model: current(),
    value: current().rules_default,
    change: (value) => update({ rules: value }),
  });
  const under = toggle({ label: t("digit.under"), value: view.under, change: (on) => update({ under: on }) });
  const gallerySlot = sampleRow();

  const tools = h(
    "div",
    { class: "tools" },
    button({ icon: "undo", label: t("undo"), click: () => edit(() => ink.undo()) }),
    button({ icon: "clear", label: t("clear"), click: () => edit(() => ink.clear()) }),
    alternatives({
      label: t("digit.thickness"),
      hideLabel: true,
      options: Object.keys(WIDTHS).map((value) => ({ value, text: t(`digit.${value}`) })),
      value: "medium",
      change: (value) => (surface.thickness = WIDTHS[value]),
    }),
  );
  const drawing = panel(
    t("digit.draw"),
    "drawing",
    h("p", { class: "about" }, t("digit.how")),
    surface,
    tools,
    under,
    gallerySlot,
  );
  const eye = h("figure", { class: "eye" }, seen, h("figcaption", {}, t("digit.seen")));
  const decision = panel(t("scores"), "decision", bars, follow, eye);
  const bench = h("div", { class: "bench" }, drawing, explained, decision);
  const element = frame("digit", h("div", { class: "controls" }, network, rules), bench);

  const newest = new Newest(timed, { done, failed: element.tell, busy, live: true });

  /** Explain, and dim what is shown while the answer is late: a row of late answers dims it once, not by turns. */
  async function timed(body) {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      bench.classList.add("late");
    }, LATE);
    try {
      return await explain(body);
    } finally {
      clearTimeout(timer);
      if (!late) bench.classList.remove("late");
    }
  }

  function busy(on) {
    element.busy(on);
    if (!on) bench.classList.remove("late");
  }

  function modelOf(name) {
    return models.find((model) => model.name === name);
  }

  function current() {
    return modelOf(view.model);
  }

  function choose(index) {
    update({ target: index });
  }

  function edit(action) {
    action();
    sample = null;
    gallerySlot.mark();
    surface.redraw();
    ask(false);
  }

  function update(changes) {
    warning = null;
    Object.assign(view, changes);
    show();
    ask(true);
  }

  /** Bring the controls to what the view says. */
  function show() {
    network.control.value = view.model;
    rules.set(current(), view.rules);
    under.set(view.under);
    follow.hidden = view.target === null;
  }

  function ask(step) {
    const reduced = ink.reduce();
    seen.update(reduced?.bytes ?? null);
    context.changed(step);
    if (!reduced) {
      newest.cancel();
      last = null;
      explained.clear();
      bars.update([], { selected: null });
      surface.lay(null);
      element.tell(null);
      return;
    }
    const questions = [{ method: "lrp", rules: view.rules, layer: null }];
    const input = { digit: base64(reduced.bytes) };
    newest.ask({ model: view.model, input, target: view.target, questions }, reduced.field);
  }

  function done(answer, body, field) {
    const [sheet] = answer.sheets;
    element.tell(warning);
    last = { answer, field };
    const heading = t("evidence.of", { name: answer.target?.name ?? sheet.title });
    const asked = { ...body, target: answer.target?.index ?? null };
    explained.show(sheet, { picture: null, opacity: 1, heading, ...behind(asked, body.questions[0]) });
    const ordered = [...answer.scores].sort((one, other) => one.index - other.index);
    bars.update(localScores(ordered), { selected: answer.target?.index });
    layUnder();
    context.announce(t("digit.said", { name: answer.scores[0].name, explained: answer.target?.name ?? "" }));
  }

  function layUnder() {
    const heat = explained.querySelector("canvas");
    surface.lay(view.under && last && heat ? heat : null, last?.field);
  }

  /** Ten samples at a time, one of each class. */
  function sampleRow() {
    const holder = h("div", { class: "samples" });
    const written = (label) => samples.filter((one) => one.label === label);
    const draw = () => {
      const shown = Array.from({ length: ROW }, (_, label) => written(label)[set % written(label).length]);
      const list = gallery({
        label: t("digit.samples"),
        samples: shown.map((one) => ({
          key: samples.indexOf(one),
          label: t("digit.sample", { label: one.label }),
          picture: thumbnail(one.bytes, ""),
        })),
        choose: (key) => {
          ink.load(samples[key].bytes);
          sample = Number(key);
          surface.redraw();
          holder.mark();
          view.target = null;
          show();
          ask(true);
        },
      });
      const more = button({ text: t("digit.others"), look: "quiet", click: () => ((set += 1), draw()) });
      holder.replaceChildren(h("div", { class: "row" }, h("h3", {}, t("digit.samples")), more), list);
      holder.mark = () => list.set(sample);
      holder.mark();
    };
    draw();
    return holder;
  }

  return {
    name: "digit",
    element,
    input: () => ({ kind: "digit", ...(ink.empty ? {} : { digit: base64(ink.reduce().bytes) }) }),
    async values() {
      const bytes = ink.reduce()?.bytes;
      return {
        model: view.model === start.model ? "" : view.model,
        rules: rulesText(view.rules, current()),
        target: view.target ?? "",
        under: view.under === start.under ? "" : Number(view.under),
        ink: bytes ? await pack(bytes) : "none",
      };
    },
    async apply(values) {
      Object.assign(view, start, {
        model: modelOf(values.model)?.name ?? start.model,
        target: asIndex(values.target),
        under: values.under === undefined ? start.under : values.under === "1",
      });
      view.rules = parseRules(values.rules, current());
      warning = null;
      if (values.ink === "none") ink.clear();
      else if (values.ink) await restore(values.ink);
      if (values.ink !== "none" && ink.empty) ink.load(samples.find((one) => one.label === EXAMPLE).bytes, true);
      show();
      surface.redraw();
      ask(false);
    },
  };

  async function restore(text) {
    const bytes = await unpack(text);
    if (bytes?.length !== 784) {
      warning = { message: t("error.ink") };
      return;
    }
    const here = ink.reduce()?.bytes;
    if (here && bytes.every((byte, index) => byte === here[index])) return; // the strokes are still at hand
    ink.load(bytes);
  }
}
