/** Taking an explanation along: files of the server's, or made in the page. */

import { valuesOf } from "./colour.js";
import { h, set, tell } from "./dom.js";
import { paint } from "./heatmap.js";
import { claimOf, say } from "./language.js";

const SHORTER = 448; // pixels that the shorter side of a picture made in the page has at least

/** A menu of files, {kind: async () => Blob} or "local"; `element.update(sheet, downloads, limit)` changes it. */
export function downloadMenu(sheet, downloads, limit) {
  const name = h("span", { class: "rp-menu-name" });
  const summary = h("summary", {}, h("span", { class: "rp-arrow", "aria-hidden": "true" }), name);
  const list = h("div", { class: "rp-menu-list" });
  const alert = h("p", { class: "rp-small", role: "alert" });
  const element = h("details", { class: "rp-menu" }, summary, list, alert);
  let given = {};

  async function fetchAndSave(kind, button) {
    tell(alert, "");
    set(button, { "aria-busy": "true" });
    try {
      save(await given.files[kind](), `${fileName(given.sheet)}.${kind}`);
      element.open = false;
      summary.focus();
    } catch (error) {
      tell(alert, say("failed", { error: error.message }));
    } finally {
      set(button, { "aria-busy": null });
    }
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    summary.focus();
    event.stopPropagation();
  });
  element.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !element.contains(event.relatedTarget)) element.open = false;
  });
  element.update = (sheet, downloads, limit) => {
    const files = downloads === "local" ? local(sheet, limit) : (downloads ?? {});
    given = { sheet, files };
    element.hidden = Object.keys(files).length === 0;
    tell(name, say("download"));
    set(summary, { title: say("download") });
    tell(alert, "");
    if (list.dataset.kinds !== Object.keys(files).join()) {
      list.dataset.kinds = Object.keys(files).join();
      list.replaceChildren(...Object.keys(files).map((kind) => {
        const button = h("button", { type: "button", class: "rp-button" });
        button.dataset.kind = kind;
        button.addEventListener("click", () => fetchAndSave(kind, button));
        return button;
      }));
    }
    for (const button of list.children) tell(button, say(button.dataset.kind));
  };
  element.update(sheet, downloads, limit);
  return element;
}

/** Hands a Blob to the reader as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function fileName(sheet) {
  const parts = ["relprop", sheet.model, claimOf(sheet), sheet.layer, sheet.title].filter(Boolean);
  return parts.join("-").toLowerCase().replace(/[^\p{L}\p{N}._]+/gu, "-").slice(0, 100);
}

/** What can be made without a server. */
function local(sheet, limit) {
  const table = { csv: async () => csv(sheet.kind === "text" ? wordRows(sheet) : rows(sheet)) };
  return sheet.kind === "text" ? table : { png: () => png(sheet, limit), svg: async () => svg(sheet, limit), ...table };
}

function enlargedCanvas(sheet, limit) {
  const { heat } = sheet;
  const small = h("canvas", {});
  paint(small, heat, limit);
  const factor = Math.max(1, Math.ceil(SHORTER / Math.min(heat.width, heat.height)));
  const [across, down] = sheet.kind === "series" ? [Math.max(1, Math.ceil(1024 / heat.width)), 32] : [factor, factor];
  const large = h("canvas", { width: across * heat.width, height: down * heat.height });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, large.width, large.height);
  return large;
}

function png(sheet, limit) {
  return new Promise((resolve) => enlargedCanvas(sheet, limit).toBlob(resolve, "image/png"));
}

/** A vector picture of the map: one rectangle for each value would be slow to open, so it holds the pixels. */
function svg(sheet, limit) {
  const small = h("canvas", {});
  paint(small, sheet.heat, limit);
  const { width, height } = enlargedCanvas(sheet, limit);
  const sides = `width="${width}" height="${height}"`;
  const text = [
    `<svg xmlns="http://www.w3.org/2000/svg" ${sides} viewBox="0 0 ${width} ${height}">`,
    `<image ${sides} preserveAspectRatio="none" style="image-rendering:pixelated" href="${small.toDataURL()}"/>`,
    "</svg>\n",
  ];
  return new Blob(text, { type: "image/svg+xml" });
}

function wordRows(sheet) {
  return [[say("word"), say("relevance")], ...sheet.words.map((word) => [word.text, word.relevance])];
}

function rows(sheet) {
  const { width, height } = sheet.heat;
  const values = valuesOf(sheet.heat);
  const made = [[say("row"), say("column"), say("relevance")]];
  for (let row = 0; row < height; row += 1)
    for (let column = 0; column < width; column += 1) made.push([row, column, values[row * width + column]]);
  return made;
}

/** A table as spreadsheets read it. A leading apostrophe keeps a word such as "=1+1" from being computed. */
function csv(table) {
  const cell = (value) => {
    const text = typeof value === "number" ? String(value) : /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return new Blob(["\ufeff", table.map((row) => row.map(cell).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" });
}
