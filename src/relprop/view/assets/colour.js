/** Colours of relevance: the palette that Python draws with, and which ink can be read on it. */

// Where on the palette a painted word has full colour: saturated, yet not almost black. As in relprop.view.text.
const FULL = 0.8;

// Words of a lesser share get no mark of their sign, so that the marks stay rare.
export const LEAST_MARKED = 0.05;

let palette = null;

// The opacity up to which what has no relevance shows nothing but the picture.
const VEIL = 0.8;

/** Takes the palette: base64 of three bytes for each colour from -limit to +limit, zero in the middle. */
export function usePalette(base64) {
  palette = bytes(base64);
}

/** The colour [red, green, blue], 0 to 255, of a share of the limit from -1 to 1. */
export function colour(share) {
  const at = place(share);
  return [palette[at], palette[at + 1], palette[at + 2]];
}

/** Where in the palette the colour of a share begins. */
function place(share) {
  if (palette === null) throw new Error("The viewer has no colours yet: call configure({ palette }) first.");
  const half = (palette.length / 3 - 1) / 2;
  const zero = Math.floor(half); // where the number of colours is even, zero has two
  return 3 * (nearestEven(Math.max(-1, Math.min(1, share)) * half + half - zero) + zero);
}

/** Rounded as NumPy rounds, so that page and picture have the same colour for the same value. */
function nearestEven(value) {
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 !== 0 ? whole - 1 : whole;
}

/**
 * The pixels (RGBA) of a map. With opacity 1 the map alone; below, relevance lies over what is underneath with an
 * opacity of `opacity` |R| / limit, as `to_pil(overlay=...)` has it. From VEIL on also what has no relevance begins to
 * cover, so that a slider reaches the map alone without a jump.
 */
export function pixels(values, limit, opacity) {
  const painted = new Uint8ClampedArray(4 * values.length);
  const veil = Math.max(0, (opacity - VEIL) / (1 - VEIL));
  for (let i = 0; i < values.length; i += 1) {
    const share = limit > 0 ? Math.max(-1, Math.min(1, values[i] / limit)) : 0;
    const at = place(share);
    painted[4 * i] = palette[at];
    painted[4 * i + 1] = palette[at + 1];
    painted[4 * i + 2] = palette[at + 2];
    painted[4 * i + 3] = 255 * opacity * (veil + (1 - veil) * Math.abs(share));
  }
  return painted;
}

/** The background of a painted word: full colour of its sign, as opaque as its share; nothing for zero. */
export function wash(share) {
  return `rgb(${colour(share < 0 ? -FULL : FULL).join(" ")} / ${Math.abs(share).toFixed(3)})`;
}

/** Whether white letters are easier to read than black ones on a word painted on white paper. */
export function takesWhite(share) {
  const strong = colour(share < 0 ? -FULL : FULL);
  const painted = strong.map((channel) => 255 + Math.abs(share) * (channel - 255));
  return contrast([255, 255, 255], painted) > contrast([0, 0, 0], painted);
}

/** The contrast of two colours, 1 to 21 (WCAG 2). */
export function contrast(first, second) {
  const [low, high] = [luminance(first), luminance(second)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const decoded = new WeakMap();

/** The values of a map {width, height, values}: base64 of float32, little-endian, row by row. */
export function valuesOf(heat) {
  if (!decoded.has(heat)) decoded.set(heat, new Float32Array(bytes(heat.values).buffer));
  return decoded.get(heat);
}

function bytes(base64) {
  const letters = atob(base64);
  const found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) found[i] = letters.charCodeAt(i);
  return found;
}
