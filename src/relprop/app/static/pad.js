/** The drawing pad: mouse, pen with pressure, finger, arrow keys. */

import { eachFrame, h, unique } from "./dom.js";
import { t } from "./words.js";

const INK = "#17181c";
const STEP = 0.025; // how far an arrow key moves the keyboard's pen, in sides of the pad

/**
 * A pad that draws into `ink`.
 *
 * `element.redraw()` shows the ink as it is now; `element.lay(canvas, field)` lays a heatmap under it, `field` being
 * where its square lies on the pad (null for none); `element.thickness` is the pen's width in sides of the pad.
 * @param {{ink: import("./ink.js").Ink, changed: () => void}} options
 */
export function pad({ ink, changed }) {
  const under = h("canvas", { class: "under", "aria-hidden": "true" });
  const help = h("p", { class: "unseen", id: unique("pad-help") }, t("digit.pad.help"));
  const surface = h("canvas", {
    class: "surface",
    tabindex: "0",
    role: "application",
    "aria-label": t("digit.pad"),
    "aria-describedby": help.id,
  });
  const hint = h("p", { class: "hint", "aria-hidden": "true" });
  const cursor = h("span", { class: "cursor", hidden: true });
  const element = h("div", { class: "pad" }, under, surface, hint, cursor, help);
  const keyboard = { x: 0.5, y: 0.5, down: false };
  let laid = null;
  element.thickness = 0.085;

  element.redraw = eachFrame(() => {
    const { context, side } = sized(surface);
    ink.draw(context, side, INK);
    surface.classList.toggle("over", laid !== null);
    hint.textContent = ink.empty ? t("digit.pad.hint") : ink.example ? t("digit.pad.example") : "";
    hint.classList.toggle("low", ink.example);
    element.classList.toggle("empty", ink.empty);
    const { context: below, side: whole } = sized(under);
    if (!laid || ink.empty) return;
    below.imageSmoothingEnabled = true;
    below.imageSmoothingQuality = "high";
    const { left, top, side: extent } = laid.field;
    below.drawImage(laid.canvas, left * whole, top * whole, extent * whole, extent * whole);
  });

  element.lay = (canvas, field) => {
    laid = canvas ? { canvas, field } : null;
    element.redraw();
  };

  const edited = () => {
    element.redraw();
    changed();
  };

  const place = (event) => {
    const box = surface.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? 0.4 + 1.2 * event.pressure : 1;
    return {
      x: (event.clientX - box.left) / box.width,
      y: (event.clientY - box.top) / box.height,
      width: element.thickness * pressure,
    };
  };

  let drawing = null; // the pointer that holds the pen
  surface.addEventListener("pointerdown", (event) => {
    if (drawing !== null || event.button !== 0) return;
    drawing = event.pointerId;
    surface.setPointerCapture(drawing);
    ink.begin(place(event));
    edited();
  });
  surface.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drawing) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) ink.extend(place(one));
    edited();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    surface.addEventListener(end, (event) => {
      if (event.pointerId === drawing) drawing = null;
    });
  }

  const showCursor = () => {
    cursor.hidden = !surface.matches(":focus-visible");
    cursor.classList.toggle("down", keyboard.down);
    cursor.style.left = `${100 * keyboard.x}%`;
    cursor.style.top = `${100 * keyboard.y}%`;
    cursor.style.width = `${100 * element.thickness}%`;
  };
  const within = (value) => Math.min(0.97, Math.max(0.03, value));
  const point = () => ({ x: keyboard.x, y: keyboard.y, width: element.thickness });
  const keys = {
    ArrowLeft: () => walk(-STEP, 0),
    ArrowRight: () => walk(STEP, 0),
    ArrowUp: () => walk(0, -STEP),
    ArrowDown: () => walk(0, STEP),
    " ": () => {
      keyboard.down = !keyboard.down;
      if (keyboard.down) ink.begin(point());
      edited();
    },
    Backspace: () => (ink.undo(), edited()),
    Delete: () => (ink.clear(), edited()),
    z: (event) => (event.ctrlKey || event.metaKey) && (ink.undo(), edited()),
  };
  function walk(x, y) {
    keyboard.x = within(keyboard.x + x);
    keyboard.y = within(keyboard.y + y);
    if (!keyboard.down) return;
    if (ink.strokes.length) ink.extend(point());
    else ink.begin(point());
    edited();
  }
  surface.addEventListener("keydown", (event) => {
    if (!keys[event.key] || (event.key === "z" && !(event.ctrlKey || event.metaKey))) return;
    event.preventDefault();
    keys[event.key](event);
    showCursor();
  });
  surface.addEventListener("focus", showCursor);
  surface.addEventListener("blur", () => {
    keyboard.down = false;
    cursor.hidden = true;
  });

  new ResizeObserver(() => element.redraw()).observe(surface);
  return element;
}

/** A canvas with as many pixels as the screen has for it, cleared. */
function sized(canvas) {
  const side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, side, side);
  return { context, side };
}

/** 28 x 28 bytes as a small picture, white on black, as the network is shown it. `element.update(bytes)`. */
export function thumbnail(bytes, label) {
  const canvas = h("canvas", { class: "thumbnail", width: 28, height: 28, role: "img", "aria-label": label });
  canvas.update = (shown) => {
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(28, 28);
    for (let index = 0; index < 784; index++) {
      pixels.data.fill(shown ? shown[index] : 0, 4 * index, 4 * index + 3);
      pixels.data[4 * index + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  };
  canvas.update(bytes);
  return canvas;
}
