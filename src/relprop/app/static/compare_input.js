/** What is compared: a digit or picture from a row, or a text that is written. */

import { h } from "./dom.js";
import { gallery } from "./page.js";
import { thumbnail } from "./pad.js";
import { pictureAddress } from "./server.js";
import { base64, unbase64 } from "./state.js";
import { t, translate } from "./words.js";

/**
 * For each kind of input {element, set}: `set()` brings the element to what the view says.
 * @param {{context: object, view: {digit: string, picture: string, text: string}, choose: (changes: object) => void,
 *          typed: () => void}} options
 */
export function inputsOf({ context, view, choose, typed }) {
  const { samples, limits } = context.about;
  const text = h("textarea", {
    rows: 3,
    "aria-label": t("review.text"),
    maxlength: limits.characters,
    spellcheck: "false",
    on: { input: () => ((view.text = text.value), typed()) },
  });
  return {
    digit: row(
      t("kind.digit"),
      () => view.digit,
      digits,
      (digit) => choose({ digit }),
    ),
    picture: row(
      t("kind.picture"),
      () => view.picture,
      pictures,
      (picture) => choose({ picture }),
    ),
    text: {
      element: h("div", { class: "field" }, text),
      set: () => text.value !== view.text && (text.value = view.text),
    },
  };

  /** The reader's own digit, if there is one, and a sample of each class. */
  function digits() {
    const drawn = context.drawn();
    const own = [drawn && base64(drawn), view.digit].map((key) => ({ key, label: t("compare.drawn") }));
    const firsts = samples.digits.filter((one, at, all) => all.findIndex((other) => other.label === one.label) === at);
    const known = firsts.map((one) => ({ key: one.digit, label: t("digit.sample", { label: one.label }) }));
    return together(own, known).map((one) => ({ ...one, picture: thumbnail(unbase64(one.key), "") }));
  }

  function pictures() {
    const own = [context.picture(), view.picture].map((key) => ({ key, label: t("compare.uploaded") }));
    const known = samples.pictures.map(({ picture, name }) => ({
      key: picture,
      label: translate(`picture.${name}`, name),
    }));
    const shown = (key) => h("img", { src: pictureAddress(key), alt: "", loading: "lazy" });
    return together(own, known).map((one) => ({ ...one, picture: shown(one.key) }));
  }
}

/** The reader's own before the known ones, each once. */
function together(own, known) {
  const added = own.filter(({ key }, at) => key && own.findIndex((one) => one.key === key) === at);
  return [...added.filter(({ key }) => !known.some((one) => one.key === key)), ...known];
}

/** A row of pictures to choose from, made anew for what there is now; the keyboard stays where it was. */
function row(label, chosen, offered, choose) {
  const element = h("div");
  const set = () => {
    const focused = element.contains(document.activeElement);
    const list = gallery({ label, samples: offered(), choose });
    list.set(chosen());
    element.replaceChildren(list);
    if (focused) list.querySelector("[aria-pressed=true]")?.focus();
  };
  return { element, set };
}
