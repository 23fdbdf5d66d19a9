/** Query, key and value of a pair of tokens: from their products to the weight. */

import { select } from "d3";
import { at, selected } from "minitx/data";
import { element, explain, number, section, signedColours } from "minitx/dom";

const LEAD = "How the weight of one pair comes about: query and key are multiplied number by number; their sum, scaled, is the score; the softmax of the scores of all keys gives the weights; the weight scales the value that is passed on. Choose the pair in the matrix above.";
const LEFT_OUT = "This page has no queries, keys and values: they were left out, so that it stays small.";

/** Returns the numbers of a pair: vectors, products, their sum, scores and weights of all keys. */
export function pairNumbers(attention, { layer, head, query, key }) {
  const groups = attention.heads / attention.key.shape[1];
  const width = attention.query.shape.at(-1);
  const keys = attention.key.shape[2];
  const vectors = at(attention.key, layer, Math.floor(head / groups));
  const vector = (part, index, size) => part.subarray(index * size, (index + 1) * size);
  const q = vector(at(attention.query, layer, head), query, width);
  const k = vector(vectors, key, width);
  const valueWidth = attention.value.shape.at(-1);
  const v = vector(at(attention.value, layer, Math.floor(head / groups)), key, valueWidth);
  const weights = vector(at(attention.weights, layer, head), query, keys);
  const products = Float64Array.from(q, (value, index) => value * k[index]);
  const dot = products.reduce((sum, product) => sum + product, 0);
  const scaled = dot * attention.scale[layer];
  const own = Float64Array.from({ length: keys }, (_, index) => {
    const other = vector(vectors, index, width);
    return q.reduce((sum, value, place) => sum + value * other[place], 0) * attention.scale[layer];
  });
  const scores = attention.scores ? vector(at(attention.scores, layer, head), query, keys) : own;
  const best = scores.reduce((most, score, index) => (weights[index] > 0 ? Math.max(most, score) : most), -Infinity);
  const powers = Float64Array.from(scores, (score, index) => (weights[index] > 0 ? Math.exp(score - best) : 0));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return { q, k, v, products, dot, scaled, scores, bias: scores[key] - scaled, weights, softmax: powers.map((power) => power / total), masked: weights[key] === 0 };
}

export function mount(root, state) {
  const body = section(root, "pair", "One pair of tokens", LEAD);
  state.subscribe((values) => {
    const attention = selected(values);
    if (!attention?.query || !attention.weights) {
      body.replaceChildren(LEFT_OUT);
      return;
    }
    const pair = pairNumbers(attention, values);
    const [query, key] = ["query", "key"].map((part) => values.data.tokens[attention[`${part}_side`]][values[part]].name);
    const title = `${query} attends to ${key}: layer ${values.layer}, head ${values.head}`;
    const scale = number(attention.scale[values.layer], 4);
    const rounding = 0.01 * Math.max(1, Math.abs(pair.scaled)); // of half precision, and of reduced arrays
    const bias = Math.abs(pair.bias) < rounding ? "" : ` ${pair.bias < 0 ? "−" : "+"} ${number(Math.abs(pair.bias))} (position bias or other terms)`;
    const rest = pair.masked
      ? "This key is masked: its weight is 0."
      : `query · key = ${number(pair.dot)};   × ${scale}${bias} = score ${number(pair.scores[values.key])};   softmax over all keys${attention.sinks ? " and a sink" : ""} = weight ${number(pair.weights[values.key], 4)}`;
    body.replaceChildren(
      element("h3", {}, title),
      strips([["query", pair.q], ["key", pair.k], ["product", pair.products], ["value", pair.v]]),
      element("p", { class: "sum", id: "pair-sum" }, rest),
      element("h3", {}, `Scores and weights of all keys for ${query}`),
      bars(values.data.tokens[attention.key_side], pair, values.key, state),
    );
  });
}

/** Returns vectors as strips of coloured cells. */
function strips(vectors) {
  const box = element("div", { class: "scroll" });
  const width = Math.max(...vectors.map(([, vector]) => vector.length));
  const cell = Math.max(4, Math.min(14, Math.floor(880 / width)));
  const svg = select(box).append("svg").attr("width", 70 + width * cell).attr("height", vectors.length * 22);
  const colour = signedColours();
  vectors.forEach(([name, vector], row) => {
    const most = vector.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-12);
    svg.append("text").attr("x", 0).attr("y", row * 22 + 13).text(name);
    const cells = svg.append("g").selectAll("rect").data([...vector]).join("rect");
    cells.attr("x", (_, index) => 64 + index * cell).attr("y", row * 22).attr("width", cell - 0.5).attr("height", 17).attr("fill", (value) => colour(value / most));
    cells.each(function describe(value, index) {
      explain(this, () => `${name}, number ${index + 1}: ${number(value, 4)}`);
    });
  });
  return box;
}

function bars(tokens, pair, chosen, state) {
  const rows = tokens.map((token, index) => {
    const weight = pair.weights[index];
    const share = element("i", { style: `width: ${(100 * weight).toFixed(1)}%` });
    const line = element("div", { class: "bar-row", style: "cursor: pointer", "data-key": index, onclick: () => state.set({ key: index }) });
    line.append(element("span", { class: index === chosen ? "chosen" : null }, token.name), share, element("span", {}, number(weight)));
    explain(line, () => (weight === 0 ? "masked, or a weight of 0" : `score ${number(pair.scores[index])}   weight ${number(weight, 4)}`));
    return line;
  });
  return element("div", { class: "weights" }, ...rows);
}
