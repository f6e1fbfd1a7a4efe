/** The view in the address: `#tab?name=value&...`, so that a link restores it. */

/** @returns {{tab: string, values: Object<string, string>}} what the address says. */
export function read() {
  const [tab, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  return { tab, values: Object.fromEntries(new URLSearchParams(query)) };
}

/**
 * Write a tab's values into the address; empty ones are left out.
 * @param {string} tab
 * @param {Object<string, string>} values
 * @param {boolean} step  whether the reader can go back to what was there before
 */
export function write(tab, values, step) {
  const told = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(told).toString();
  const address = `#${tab}${query ? `?${query}` : ""}`;
  if (address === location.hash) return;
  if (step) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

/** A class's index as it stands in an address; null for none. */
export const asIndex = (text) => (/^\d{1,6}$/.test(text ?? "") ? Number(text) : null);

/** Bytes as text for an address: deflated, then base64 with the letters that an address may hold. */
export async function pack(bytes) {
  const packed = await through(bytes, new CompressionStream("deflate-raw"));
  return base64(packed).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The bytes of `pack`, or null for a text that is none of its. */
export async function unpack(text) {
  try {
    const packed = unbase64(text.replaceAll("-", "+").replaceAll("_", "/"));
    return await through(packed, new DecompressionStream("deflate-raw"));
  } catch {
    return null;
  }
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** Bytes as base64. */
export const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

/** The bytes of base64. */
export const unbase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
