/** A cursor over the values of a map, moved by the pointer and the arrow keys. */

import { valuesOf } from "./colour.js";
import { h, set, tell } from "./dom.js";
import { number } from "./language.js";

/**
 * Gives `plane`, the element that a map fills, a cursor. `heat()` is the map; `found({row, column}, value, spoken)` is
 * called where the cursor comes to, spoken if by the keyboard; `rest()` when it goes. What is returned has `update()`,
 * to be called when the map has changed.
 */
export function cursorOver(plane, { heat, found, rest }) {
  const ring = h("div", { class: "rp-ring", hidden: true });
  const tip = h("div", { class: "rp-tip", hidden: true });
  let at = null;
  plane.append(ring, tip);
  set(plane, { tabindex: "0", role: "application" });

  function show(spoken) {
    ring.hidden = tip.hidden = at === null;
    if (at === null) return rest();
    const { width, height } = heat();
    at = { row: within(at.row, height), column: within(at.column, width) };
    const value = valuesOf(heat())[at.row * width + at.column];
    const [x, y] = [(at.column + 0.5) / width, (at.row + 0.5) / height];
    const place = { left: `${100 * x}%`, top: `${100 * y}%` };
    set(ring, { style: { ...place, width: `${100 / width}%`, height: `${100 / height}%` } });
    set(tip, { style: place, "data-side": `${y < 0.25 ? "below" : "above"} ${x > 0.5 ? "left" : "right"}` });
    tell(tip, number(value));
    found(at, value, spoken);
  }

  function go(row, column, spoken = true) {
    at = { row, column };
    show(spoken);
  }

  function leave() {
    at = null;
    show(false);
  }

  function strongest(sign) {
    const { row, column } = extreme(heat(), sign);
    go(row, column);
  }

  function follow(event) {
    const box = plane.getBoundingClientRect();
    const { width, height } = heat();
    const row = Math.floor(((event.clientY - box.top) / box.height) * height);
    go(row, Math.floor(((event.clientX - box.left) / box.width) * width), false);
  }

  plane.addEventListener("pointermove", follow);
  plane.addEventListener("pointerdown", follow);
  plane.addEventListener("pointerleave", (event) => {
    // What a finger touched stays told when it is lifted.
    if (event.pointerType !== "touch" && document.activeElement !== plane) leave();
  });
  plane.addEventListener("focus", () => at === null && plane.matches(":focus-visible") && strongest(1));
  plane.addEventListener("blur", leave);
  plane.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    const { row, column } = at ?? { row: 0, column: 0 };
    const ways = {
      ArrowLeft: () => go(row, column - step),
      ArrowRight: () => go(row, column + step),
      ArrowUp: () => go(row - step, column),
      ArrowDown: () => go(row + step, column),
      Home: () => go(row, 0),
      End: () => go(row, Infinity),
      PageUp: () => go(0, column),
      PageDown: () => go(Infinity, column),
      "+": () => strongest(1),
      "-": () => strongest(-1),
      Escape: leave,
    };
    if (!Object.hasOwn(ways, event.key)) return;
    event.preventDefault();
    ways[event.key]();
  });

  return { update: () => show(false) };
}

/** Where the largest (sign 1) or the least (sign -1) value of a map is. */
export function extreme(heat, sign) {
  const values = valuesOf(heat);
  let best = 0;
  for (let i = 1; i < values.length; i += 1) if (sign * values[i] > sign * values[best]) best = i;
  return { row: Math.floor(best / heat.width), column: best % heat.width, value: values[best] };
}

function within(place, size) {
  return Math.max(0, Math.min(size - 1, place));
}
