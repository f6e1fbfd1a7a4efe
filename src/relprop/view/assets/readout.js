/** The line that tells the value under the cursor. */

import { h, set, tell } from "./dom.js";

/**
 * A line below a map or text. It is read out only where the keyboard moved the
 * cursor: a pointer would make it chatter.
 */
export function readoutLine() {
  const value = h("span", { class: "rp-readout-value" });
  const words = h("span", { class: "rp-readout-words" });
  const element = h("output", { class: "rp-readout", "aria-live": "polite" }, value, " ", words);
  element.say = (figure, meant, spoken) => {
    set(element, { "aria-live": spoken ? "polite" : "off", "data-rest": null });
    tell(value, figure);
    tell(words, meant);
  };
  element.rest = (hint) => {
    set(element, { "aria-live": "off", "data-rest": "" });
    tell(value, "");
    tell(words, hint);
  };
  return element;
}
