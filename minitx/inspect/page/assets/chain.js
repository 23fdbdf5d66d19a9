/**
 * The steps of the chain of processors, as minitx computes them: from logits to logits, in float64.
 *
 * A step takes (logits, value, context), and returns new logits in which a removed token is -Infinity. The
 * context is {history, promptLength}: the ids so far, and how many of them are the prompt.
 */

const TOP_H_TOKENS = 100;

/** Returns the softmax of logits. */
export function softmax(logits) {
  const best = largest(logits);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - best));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** Returns the entropy of probabilities in nats. */
export function entropyOf(probabilities) {
  return probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
}

function largest(logits) {
  return logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
}

/** Returns ids by ascending key, and by id where keys are equal. */
function sorted(keys) {
  const ids = Uint32Array.from(keys.keys());
  return ids.sort((a, b) => keys[a] - keys[b] || a - b);
}

const keep = (logits, kept) => logits.map((logit, id) => (kept(id) ? logit : -Infinity));

/** Subtracts from the logits of tokens, given how often each occurs in the output. */
function subtractCounts(logits, { history, promptLength }, amount) {
  const result = Float64Array.from(logits);
  const counts = new Map();
  for (const id of history.slice(promptLength)) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) result[id] -= amount(count);
  return result;
}

/** Removes tokens below a probability, except the best ones. */
function above(logits, cutoff) {
  const probabilities = softmax(logits);
  const best = largest(logits);
  return keep(logits, (id) => probabilities[id] >= cutoff || logits[id] === best);
}

export const STEPS = {
  repetition_penalty(logits, penalty, { history }) {
    const result = Float64Array.from(logits);
    for (const id of new Set(history)) result[id] = result[id] < 0 ? result[id] * penalty : result[id] / penalty;
    return result;
  },
  frequency_penalty: (logits, penalty, context) => subtractCounts(logits, context, (count) => penalty * count),
  presence_penalty: (logits, penalty, context) => subtractCounts(logits, context, () => penalty),
  temperature: (logits, temperature) => logits.map((logit) => logit / temperature),
  top_h(logits, share) {
    const best = sorted(logits.map((logit) => -logit)).slice(0, TOP_H_TOKENS);
    const probabilities = softmax(Float64Array.from(best, (id) => logits[id]));
    const limit = share * entropyOf(probabilities);
    const kept = new Set([best[0]]);
    let sum = 0;
    for (const [rank, p] of probabilities.entries()) {
      sum += p > 0 ? -p * Math.log(p) : NaN;
      if (sum <= limit) kept.add(best[rank]);
    }
    return keep(logits, (id) => kept.has(id));
  },
  top_k(logits, k) {
    if (k >= logits.length) return logits;
    const kth = Float64Array.from(logits).sort()[logits.length - k];
    return keep(logits, (id) => logits[id] >= kth);
  },
  top_p(logits, mass) {
    const probabilities = softmax(logits);
    const removed = new Set();
    let sum = 0;
    const order = sorted(logits);
    for (const id of order.subarray(0, order.length - 1)) {
      sum += probabilities[id];
      if (sum > 1 - mass) break;
      removed.add(id);
    }
    return keep(logits, (id) => !removed.has(id));
  },
  min_p(logits, share) {
    const probabilities = softmax(logits);
    const least = share * largest(probabilities);
    return keep(logits, (id) => probabilities[id] >= least);
  },
  typical_p(logits, mass) {
    const probabilities = softmax(logits);
    const entropy = entropyOf(probabilities);
    const distance = probabilities.map((p) => (p > 0 ? Math.abs(-Math.log(p) - entropy) : Infinity));
    let [sum, last] = [0, 0];
    for (const id of sorted(distance)) {
      last = distance[id];
      sum += probabilities[id];
      if (sum >= mass) break;
    }
    return keep(logits, (id) => distance[id] <= last);
  },
  epsilon_cutoff: (logits, epsilon) => above(logits, epsilon),
  eta_cutoff: (logits, epsilon) => above(logits, Math.min(epsilon, Math.sqrt(epsilon) * Math.exp(-entropyOf(softmax(logits))))),
};

/**
 * Returns what each step does to a distribution.
 *
 * @param {ArrayLike<number>} logits of the model
 * @param {[string, number][]} steps names and values, in order; those that are off are left out
 * @param {{history: number[], promptLength: number}} context
 * @returns {{name: string, value: number|null, logits: Float64Array, probabilities: Float64Array, kept: number, mass: number, entropy: number}[]}
 */
export function runChain(logits, steps, context) {
  let present = Float64Array.from(logits);
  const results = [describe("model", null, present, null)];
  for (const [name, value] of steps) {
    present = Float64Array.from(STEPS[name](present, value, context));
    results.push(describe(name, value, present, results.at(-1).probabilities));
  }
  return results;
}

function describe(name, value, logits, before) {
  const probabilities = softmax(logits);
  const alive = [...logits.keys()].filter((id) => logits[id] > -Infinity);
  const mass = before === null ? 1 : alive.reduce((sum, id) => sum + before[id], 0);
  return { name, value, logits, probabilities, kept: alive.length, mass, entropy: entropyOf(probabilities) };
}

/** Returns a function that draws numbers in [0, 1) from a seed (mulberry32). */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns how often each id is drawn in a number of draws, as a Map. */
export function draw(probabilities, times, seed) {
  const random = randomNumbers(seed);
  const ids = sorted(probabilities.map((p) => -p)).filter((id) => probabilities[id] > 0);
  const counts = new Map();
  for (let turn = 0; turn < times; turn += 1) {
    let rest = random();
    const id = ids.find((candidate) => (rest -= probabilities[candidate]) < 0) ?? ids.at(-1);
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return counts;
}
