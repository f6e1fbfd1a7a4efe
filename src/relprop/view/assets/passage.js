/** A painted text: every word a place to stop at, the text itself as it was given. */

import { LEAST_MARKED, takesWhite, wash } from "./colour.js";
import { h, set, tell } from "./dom.js";
import { claimOf, meaning, number, say } from "./language.js";
import { readoutLine } from "./readout.js";

/**
 * Only the painted text of a sheet of kind "text". Options: `limit`, `remove(word)` (adds a way to delete each word),
 * `readout` (an element of the caller's). `element.update(sheet, options)` redraws in place.
 */
export function words(sheet, options = {}) {
  let shown = { sheet, options };
  let at = 0; // the word that Tab comes to, which has the focus if any word has
  let told = 0; // the word that the readout speaks of, which the pointer may have come to
  const text = h("div", { class: "rp-text", role: "group", dir: "auto" });
  const cross = crossOver(text, () => remove(told));
  const readout = options.readout ?? readoutLine();
  const around = h("div", { class: "rp-passage" }, text, cross);
  const element = h("div", { class: "rp-words" }, around, options.readout ? null : readout);
  const all = () => text.getElementsByClassName("rp-word");

  function reach(place, focus) {
    const elements = all();
    if (elements.length === 0) return rest();
    elements[at]?.setAttribute("tabindex", "-1");
    at = Math.max(0, Math.min(elements.length - 1, place));
    elements[at].setAttribute("tabindex", "0");
    if (focus) elements[at].focus();
    else tellWord(at, true);
  }

  function tellWord(place, spoken) {
    const { sheet, options } = shown;
    const word = sheet.words[place];
    told = place;
    const about = word.known === false ? `, ${say("unknown_word")}` : "";
    readout.say(`${word.text}: ${number(word.relevance)}`, meaning(sheet, word.relevance) + about, spoken);
    if (options.remove) cross.show(word, all()[place]);
  }

  function rest() {
    cross.hidden = true;
    readout.rest(say("hint_words") + (shown.options.remove ? ` ${say("hint_delete")}` : ""));
  }

  function remove(place) {
    shown.options.remove(shown.sheet.words[place]);
  }

  const placeOf = (target) => (target.classList?.contains("rp-word") ? [...all()].indexOf(target) : -1);
  text.addEventListener("pointerover", (event) => placeOf(event.target) >= 0 && tellWord(placeOf(event.target), false));
  text.addEventListener("focusin", (event) => placeOf(event.target) >= 0 && reach(placeOf(event.target)));
  around.addEventListener("pointerleave", () => {
    if (text.contains(document.activeElement)) tellWord(at, false);
    else rest();
  });
  element.addEventListener("focusout", (event) => element.contains(event.relatedTarget) || rest());
  text.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const forward = backwards(text) ? -1 : 1;
    const ways = {
      ArrowRight: () => reach(at + forward, true),
      ArrowLeft: () => reach(at - forward, true),
      ArrowDown: () => reach(at + 1, true),
      ArrowUp: () => reach(at - 1, true),
      Home: () => reach(0, true),
      End: () => reach(all().length - 1, true),
      ...(shown.options.remove ? { Delete: () => remove(at), Backspace: () => remove(at) } : {}),
    };
    if (!Object.hasOwn(ways, event.key)) return;
    event.preventDefault();
    ways[event.key]();
  });

  element.update = (sheet, options = {}) => {
    shown = { sheet, options: { ...shown.options, ...options } };
    const focused = text.contains(document.activeElement);
    const limit = shown.options.limit ?? sheet.limit;
    set(text, { lang: sheet.language || null, "aria-label": say("text_of", { claim: claimOf(sheet) }) });
    text.replaceChildren(...pieces(sheet).map((piece) => (piece.word ? painted(piece, limit, sheet) : piece.text)));
    at = Math.max(0, Math.min(at, sheet.words.length - 1));
    all()[at]?.setAttribute("tabindex", "0");
    if (focused && all().length) reach(at, true);
    else rest();
  };
  element.update(sheet);
  return element;
}

/** A button at the end of a word, shown by `show(word, element)`, that deletes it. */
function crossOver(text, remove) {
  const look = { type: "button", class: "rp-cross", tabindex: "-1", hidden: true, onclick: remove };
  const cross = h("button", look, "\u00d7");
  cross.addEventListener("pointerdown", (event) => event.preventDefault()); // the focus stays where it is
  cross.show = (word, element) => {
    const box = [...element.getClientRects()].at(-1); // the last line of a word that is broken over several
    const frame = cross.parentElement.getBoundingClientRect();
    const end = backwards(text) ? box.left : box.right;
    const place = { left: `${end - frame.left}px`, top: `${box.top - frame.top}px` };
    const label = say("delete", { word: word.text });
    set(cross, { "aria-label": label, title: label, style: place });
    cross.hidden = false;
  };
  return cross;
}

/** Whether a text goes from right to left. */
function backwards(text) {
  return getComputedStyle(text).direction === "rtl";
}

/** The whole text in order: words, and what stands between them. Offsets count code points, as Python does. */
function pieces(sheet) {
  const letters = Array.from(sheet.text);
  const found = [];
  let place = 0;
  for (const word of sheet.words) {
    if (word.start > place) found.push({ text: letters.slice(place, word.start).join("") });
    found.push({ text: letters.slice(word.start, word.end).join(""), word });
    place = word.end;
  }
  if (place < letters.length) found.push({ text: letters.slice(place).join("") });
  return found;
}

function painted({ text, word }, limit, sheet) {
  const classes = word.known === false ? "rp-word rp-unknown" : "rp-word";
  const label = `${word.text}: ${number(word.relevance)}, ${meaning(sheet, word.relevance)}`;
  const element = h("span", { class: classes, tabindex: "-1", role: "button", "aria-label": label }, text);
  return tinted(element, word.relevance, limit, sheet);
}

/** Gives an element the colour of a relevance, letters that can be read on it, and a line below that tells its sign. */
export function tinted(element, relevance, limit, { signed }) {
  const share = limit > 0 ? Math.max(-1, Math.min(1, relevance / limit)) : 0;
  set(element, { style: { "background-color": wash(share) } });
  element.classList.toggle("rp-on", takesWhite(share));
  element.classList.toggle("rp-up", signed !== false && share >= LEAST_MARKED);
  element.classList.toggle("rp-down", share <= -LEAST_MARKED);
  return element;
}

/** What the model was given, token by token, behind a click; `element.update(sheet, limit)`. */
export function tokenList(sheet, limit) {
  const summary = h("summary", {});
  const list = h("ol", { class: "rp-tokens", dir: "auto" });
  const element = h("details", { class: "rp-more" }, summary, list);
  element.update = (sheet, limit) => {
    tell(summary, say("tokens", { count: sheet.tokens.length }));
    set(list, { lang: sheet.language || null });
    list.replaceChildren(...sheet.tokens.map((token) => chip(token, limit, sheet)));
  };
  element.update(sheet, limit);
  return element;
}

function chip(token, limit, sheet) {
  const apart = token.start === null;
  const name = tinted(h("bdi", { class: "rp-token" }, token.text), token.relevance, limit, sheet);
  return h(
    "li",
    { class: apart ? "rp-apart" : null, title: apart ? say("apart") : null },
    name,
    h("span", { class: "rp-figure" }, number(token.relevance)),
  );
}
