/** The page's data: packed arrays become typed ones, and the selection that all views share. */

/**
 * @typedef {object} Values
 * @property {number[]} shape
 * @property {Float32Array} values
 */

/** Returns the part of an array at leading indices, without a copy. */
export function at(array, ...indices) {
  let size = array.values.length;
  let start = 0;
  indices.forEach((index, axis) => {
    size /= array.shape[axis];
    start += index * size;
  });
  return array.values.subarray(start, start + size);
}

/** Returns the page's data with all packed arrays unpacked. */
export async function unpackAll(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return Promise.all(value.map(unpackAll));
  if (value.precision && value.shape) return unpack(value);
  const entries = Object.entries(value).map(async ([key, part]) => [key, await unpackAll(part)]);
  return Object.fromEntries(await Promise.all(entries));
}

/** Returns {shape, values} of a packed array. */
export async function unpack(packed) {
  const bytes = await inflate(packed.data);
  if (packed.precision === "f32") return { shape: packed.shape, values: new Float32Array(bytes) };
  if (packed.precision === "f16") {
    return { shape: packed.shape, values: Float32Array.from(new Uint16Array(bytes), fromHalf) };
  }
  const [low, step] = await Promise.all(
    [packed.low, packed.step].map(async (part) => new Float32Array(await inflate(part))),
  );
  const size = packed.shape.at(-1) * packed.shape.at(-2);
  const values = Float32Array.from(new Uint8Array(bytes), (level, index) => {
    const matrix = Math.floor(index / size);
    return level * step[matrix] + low[matrix];
  });
  return { shape: packed.shape, values };
}

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Returns the number of a 16-bit float (IEEE 754 binary16). */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The selection that all views share; `set` tells every subscriber. */
export class State {
  #subscribers = [];

  constructor(values) {
    this.values = values;
  }

  get(name) {
    return this.values[name];
  }

  set(changes) {
    this.values = { ...this.values, ...changes };
    for (const subscriber of this.#subscribers) subscriber(this.values, changes);
  }

  subscribe(subscriber) {
    this.#subscribers.push(subscriber);
    subscriber(this.values, this.values);
  }
}

/** Returns the attention that is selected: {name, layers, heads, weights, ...}. */
export function selected({ data, kind }) {
  return data.attention.find((attention) => attention.name === kind);
}

/** Returns the selection, changed where it does not exist in the data. */
export function fitted(values) {
  const attention = selected(values) ?? values.data.attention[0];
  if (!attention) return values;
  const queries = values.data.tokens[attention.query_side].length;
  const keys = values.data.tokens[attention.key_side].length;
  return {
    ...values,
    kind: attention.name,
    layer: Math.min(values.layer, attention.layers - 1),
    head: Math.min(values.head, attention.heads - 1),
    query: Math.min(values.query, queries - 1),
    key: Math.min(values.key, keys - 1),
  };
}
