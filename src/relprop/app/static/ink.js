/** A drawing as strokes, and its reduction to the 28 x 28 pixels of an MNIST digit. */

/** The side of the square that strokes are drawn in for the reduction; coordinates of strokes run from 0 to 1. */
const SIDE = 280;
const FIELD = 28;
/** MNIST digits are scaled to fit this box, then moved so that their centre of mass is the centre of the field. */
const BOX = 20;

/** Strokes on top of what may lie under them, a digit of 28 x 28. */
export class Ink {
  #enlarged = null;

  constructor() {
    this.strokes = []; // each a list of {x, y, width}
    this.ground = null; // Uint8Array(784), or null
    this.example = false; // whether the ground is there to be replaced by the first stroke
  }

  get empty() {
    return this.strokes.length === 0 && this.ground === null;
  }

  /** Begin a stroke; an example gives way to it. */
  begin(point) {
    if (this.example) this.clear();
    this.strokes.push([point]);
  }

  extend(point) {
    this.strokes.at(-1).push(point);
  }

  /** Take back the last stroke, or the digit that lies under them. */
  undo() {
    if (this.strokes.length) this.strokes.pop();
    else this.clear();
  }

  clear() {
    this.load(null);
  }

  /** Put a digit (784 bytes) in the place of everything. */
  load(bytes, example = false) {
    this.strokes = [];
    this.ground = bytes;
    this.example = example;
  }

  /** Draw into a square of `side` pixels of a canvas. */
  draw(context, side, colour) {
    if (this.ground) this.#drawGround(context, side, colour);
    context.strokeStyle = context.fillStyle = colour;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) drawStroke(context, stroke, side);
  }

  /**
   * What a network sees: `bytes` (784, 0 is background, 255 ink), and where that field lies on the pad: `field`, the
   * left, top and side of its square in coordinates of strokes. Null for an empty drawing.
   */
  reduce() {
    if (this.empty) return null;
    if (this.strokes.length === 0) return { bytes: this.ground, field: { left: 0, top: 0, side: 1 } };
    return reduce(this.#coverage(), Math.max(...this.strokes.flat().map((point) => point.width)) * SIDE);
  }

  /** The digit under the strokes, enlarged once. */
  #drawGround(context, side, colour) {
    if (this.#enlarged?.bytes !== this.ground)
      this.#enlarged = { bytes: this.ground, canvas: inked(this.ground, colour) };
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#enlarged.canvas, 0, 0, side, side);
  }

  #coverage() {
    const canvas = new OffscreenCanvas(SIDE, SIDE);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    this.draw(context, SIDE, "#000");
    const pixels = context.getImageData(0, 0, SIDE, SIDE).data;
    const alpha = new Float32Array(SIDE * SIDE);
    for (let index = 0; index < alpha.length; index++) alpha[index] = pixels[4 * index + 3];
    return alpha;
  }
}

/** A stroke as a chain of curves between the middles of its points, each piece as wide as the pen was there. */
function drawStroke(context, stroke, side) {
  const points = stroke.map(({ x, y, width }) => ({ x: x * side, y: y * side, width: width * side }));
  const [first] = points;
  context.beginPath();
  context.arc(first.x, first.y, first.width / 2, 0, 2 * Math.PI);
  context.fill();
  let from = first;
  for (let index = 1; index < points.length; index++) {
    const [corner, next] = [points[index - 1], points[index]];
    const last = index === points.length - 1;
    const to = last ? next : { x: (corner.x + next.x) / 2, y: (corner.y + next.y) / 2 };
    context.lineWidth = (corner.width + next.width) / 2;
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.quadraticCurveTo(corner.x, corner.y, to.x, to.y);
    context.stroke();
    from = to;
  }
}

/** A digit of 28 x 28 as ink: enlarged by cubic splines, with the edge of a pen where half of a pixel is covered. */
function inked(bytes, colour) {
  const large = new OffscreenCanvas(2 * SIDE, 2 * SIDE);
  const pen = large.getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 2 * SIDE, 2 * SIDE);
  const pixels = pen.getImageData(0, 0, 2 * SIDE, 2 * SIDE);
  enlarged(bytes, 2 * SIDE).forEach((value, index) => {
    const share = Math.min(1, Math.max(0, (value / 255 - 0.3) / 0.2));
    pixels.data[4 * index + 3] = 255 * share * share * (3 - 2 * share);
  });
  pen.putImageData(pixels, 0, 0);
  return large;
}

/** 28 x 28 values as a smooth surface of `side` x `side`, by B-splines along both axes. */
function enlarged(bytes, side) {
  const weights = Array.from({ length: side }, (_, index) => spline(((index + 0.5) * FIELD) / side - 0.5));
  const wide = new Float32Array(FIELD * side);
  for (let row = 0; row < FIELD; row++) {
    for (let x = 0; x < side; x++)
      for (const [at, weight] of weights[x]) wide[row * side + x] += weight * bytes[row * FIELD + at];
  }
  const whole = new Float32Array(side * side);
  for (let y = 0; y < side; y++) {
    for (const [at, weight] of weights[y])
      for (let x = 0; x < side; x++) whole[y * side + x] += weight * wide[at * side + x];
  }
  return whole;
}

/** The pixels around a position and their weights in a cubic B-spline, those outside the field left out. */
function spline(position) {
  const first = Math.floor(position);
  const t = position - first;
  const weights = [(1 - t) ** 3, 3 * t ** 3 - 6 * t ** 2 + 4, -3 * t ** 3 + 3 * t ** 2 + 3 * t + 1, t ** 3];
  return weights.map((weight, index) => [first - 1 + index, weight / 6]).filter(([at]) => at >= 0 && at < FIELD);
}

/**
 * The way MNIST's digits were made: the bounding box scaled to 20 pixels, proportions kept, grey where a pixel is
 * covered in part, the centre of mass in the centre of 28 x 28. A box is taken to be at least three strokes wide:
 * the first dot of a digit would else fill the field.
 */
function reduce(coverage, width) {
  let [left, right, top, bottom, mass, sumX, sumY] = [SIDE, -1, SIDE, -1, 0, 0, 0];
  for (let y = 0, index = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++, index++) {
      const value = coverage[index];
      if (value === 0) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
      mass += value;
      sumX += value * (x + 0.5);
      sumY += value * (y + 0.5);
    }
  }
  if (mass === 0) return null;
  const unit = Math.max(right - left + 1, bottom - top + 1, 3 * width) / BOX; // pixels of the drawing to one of 28 x 28
  const corner = { x: sumX / mass - (FIELD / 2) * unit, y: sumY / mass - (FIELD / 2) * unit };
  const across = shares(corner.x, unit);
  const down = shares(corner.y, unit);
  const bytes = new Uint8Array(FIELD * FIELD);
  const line = new Float32Array(SIDE);
  for (let row = 0; row < FIELD; row++) {
    line.fill(0);
    for (const [y, high] of down[row]) for (let x = left; x <= right; x++) line[x] += high * coverage[y * SIDE + x];
    for (let column = 0; column < FIELD; column++) {
      let sum = 0;
      for (const [x, wide] of across[column]) sum += wide * line[x];
      bytes[row * FIELD + column] = Math.min(255, Math.round(sum / (unit * unit)));
    }
  }
  return { bytes, field: { left: corner.x / SIDE, top: corner.y / SIDE, side: (FIELD * unit) / SIDE } };
}

/** For each of the 28 intervals of length `unit` from `start`: the pixels it covers and how much of each. */
function shares(start, unit) {
  return Array.from({ length: FIELD }, (_, index) => {
    const [low, high] = [start + index * unit, start + (index + 1) * unit];
    const covered = [];
    for (let at = Math.max(0, Math.floor(low)); at < Math.min(SIDE, high); at++) {
      covered.push([at, Math.min(at + 1, high) - Math.max(at, low)]);
    }
    return covered;
  });
}
