/** What is asked of the server: one address each, errors as sentences, the newest question wins. */

import { t, translate } from "./words.js";

/** The server's refusal, or its silence, as a sentence for the reader. */
export class Refused extends Error {
  constructor(sentence, code = "") {
    super(sentence);
    this.code = code;
  }
}

async function send(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refused(t("error.silent"), "silent");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const sentence = told.error ?? t("error.status", { status: response.status });
  throw new Refused(translate(`error.${told.code}`, sentence, told.details), told.code);
}

const asJson = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

/** What the server can do: models, presets, rules, methods, samples, limits. */
export const about = async () => (await send("/api/about")).json();

/** The explanations of one input. */
export const explain = async (body) => (await send("/api/explain", asJson(body))).json();

/** Operation by operation: the rule, the relevance that arrived and went on, and what was lost to what. */
export const operations = async (body) => (await send("/api/operations", asJson(body))).json();

/** An explanation as a file: "png", "svg", "html" or "npz". */
export const download = async (format, body) => (await send(`/api/download/${format}`, asJson(body))).blob();

/** Hand over a picture's bytes, as they are; returns {picture, width, height}. */
export async function upload(file) {
  const headers = { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" };
  return (await send("/api/pictures", { method: "POST", headers, body: file })).json();
}

/** Where the server shows a picture. */
export const pictureAddress = (id) => `/api/pictures/${encodeURIComponent(id)}`;

/** What a card needs for its table of operations and its downloads, as viewer.js takes them. */
export function behind(request, question) {
  const body = { model: request.model, input: request.input, target: request.target, question };
  const downloads = Object.fromEntries(
    ["png", "svg", "html", "npz"].map((format) => [format, () => download(format, body)]),
  );
  return { operations: () => operations(body), downloads };
}

/**
 * One question on its way, and at most one waiting: the newest.
 *
 * @param {(body: any) => Promise<any>} work
 * @param {{done: (answer: any, body: any, aside: any) => void, failed: (error: Refused) => void,
 *          busy: (on: boolean) => void, live?: boolean}} listeners  `live`: answers that a newer question has
 *   overtaken are shown too, so that the picture follows the pen.
 */
export class Newest {
  #work;
  #listeners;
  #running = false;
  #waiting = null;
  #age = 0;

  constructor(work, listeners) {
    this.#work = work;
    this.#listeners = listeners;
  }

  /** `aside` is handed to the listeners with the answer. */
  ask(body, aside = null) {
    this.#waiting = { body, aside };
    if (!this.#running) this.#run();
  }

  /** Forget what is waiting and what is on its way. */
  cancel() {
    this.#waiting = null;
    this.#age += 1;
  }

  async #run() {
    this.#running = true;
    this.#listeners.busy(true);
    try {
      while (this.#waiting) await this.#next();
    } finally {
      this.#running = false;
      this.#listeners.busy(false);
    }
  }

  async #next() {
    const { body, aside } = this.#waiting;
    const age = this.#age;
    const current = () => age === this.#age && !this.#waiting;
    this.#waiting = null;
    let answer;
    try {
      answer = await this.#work(body);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (current()) this.#listeners.failed(error);
      return;
    }
    if (current() || (this.#listeners.live && age === this.#age)) this.#listeners.done(answer, body, aside);
  }
}
