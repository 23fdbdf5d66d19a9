/** Attention: all heads of the model, those of a layer, and one head as a matrix and as lines. */

import { pointer, select } from "d3";
import { at, fitted, selected } from "minitx/data";
import { element, explain, number, paint, section, shades, tooltip } from "minitx/dom";

const LEAD = "Where each token takes information from. A row is a query, the token that attends; a column is a key, the token that it attends to; a row's weights add up to 1. The strongest colour is the head's largest weight; the pointer shows the numbers.";
const NO_WEIGHTS = "The weights of all heads do not fit this page; a shorter text has them.";

export function mount(root, state) {
  const body = section(root, "attention", "Attention", LEAD);
  const bar = element("div", { class: "controls" });
  const [all, layer, matrix, lines] = [1, 2, 3, 4].map(() => element("div", { class: "scroll" }));
  const titles = { all: element("h3"), layer: element("h3"), head: element("h3") };
  body.append(bar, titles.head, element("div", { class: "columns" }, matrix, lines), titles.layer, layer, titles.all, all);
  state.subscribe((values, changes) => {
    const attention = selected(values);
    controls(bar, values, state);
    if (!attention?.weights) {
      matrix.replaceChildren(NO_WEIGHTS);
      for (const part of [all, layer, lines]) part.replaceChildren();
      return;
    }
    const redraw = "data" in changes || "kind" in changes || "theme" in changes;
    if (redraw) all.replaceChildren(grid(attention, range(attention.layers), 26, state));
    if (redraw || "layer" in changes) layer.replaceChildren(grid(attention, [values.layer], 92, state));
    mark(all, values);
    mark(layer, values);
    titles.head.textContent = `Layer ${values.layer}, head ${values.head}`;
    titles.layer.textContent = `All heads of layer ${values.layer}`;
    titles.all.textContent = "All heads of all layers";
    drawMatrix(matrix, attention, values, state);
    drawLines(lines, attention, values, state);
  });
}

const range = (size) => [...Array(size).keys()];

function controls(bar, values, state) {
  const attention = selected(values);
  const choice = (name, label, options, chosen) =>
    element(
      "label",
      {},
      `${label} `,
      element(
        "select",
        { name, onchange: (event) => state.set(fitted({ ...values, [name]: name === "kind" ? event.target.value : Number(event.target.value) })) },
        ...options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)),
      ),
    );
  const numbers = (size) => range(size).map((index) => [index, String(index)]);
  bar.replaceChildren(
    choice("kind", "attention", values.data.attention.map(({ name, title }) => [name, title]), values.kind),
    choice("layer", "layer", numbers(attention?.layers ?? 0), values.layer),
    choice("head", "head", numbers(attention?.heads ?? 0), values.head),
  );
}

/** Returns maps of all heads of some layers, each a button that selects its head. */
function grid(attention, layers, size, state) {
  const colour = shades();
  const [rows, columns] = attention.weights.shape.slice(-2);
  const box = element("div", { class: "maps", style: `grid-template-columns: auto repeat(${attention.heads}, ${size}px)` });
  for (const layer of layers) {
    box.append(element("span", {}, String(layer)));
    for (const head of range(attention.heads)) {
      const canvas = element("canvas", { style: `width: ${size - 2}px; height: ${Math.max(8, ((size - 2) * rows) / columns)}px` });
      paint(canvas, relative(at(attention.weights, layer, head)), rows, columns, colour);
      const name = `layer ${layer}, head ${head}`;
      box.append(element("button", { title: name, "aria-label": name, "data-layer": layer, "data-head": head, onclick: () => state.set({ layer, head }) }, canvas));
    }
  }
  return box;
}

function mark(box, { layer, head }) {
  for (const button of box.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.layer) === layer && Number(button.dataset.head) === head));
  }
}

function drawMatrix(box, attention, values, state) {
  const [rows, columns] = attention.weights.shape.slice(-2);
  const weights = at(attention.weights, values.layer, values.head);
  const [queries, keys] = [attention.query_side, attention.key_side].map((side) => values.data.tokens[side]);
  const cell = Math.max(7, Math.min(24, Math.floor(560 / Math.max(rows, columns))));
  const [left, top] = [110, 90];
  const canvas = document.createElement("canvas");
  paint(canvas, relative(weights), rows, columns, shades());
  const svg = select(box).html("").append("svg").attr("width", left + columns * cell + 80).attr("height", top + rows * cell + 8);
  svg.attr("role", "img").attr("aria-label", `attention weights, layer ${values.layer}, head ${values.head}`);
  const image = svg.append("image").attr("class", "matrix").attr("href", canvas.toDataURL()).style("image-rendering", "pixelated");
  image.attr("x", left).attr("y", top).attr("width", columns * cell).attr("height", rows * cell).attr("preserveAspectRatio", "none");
  const label = (tokens, chosen) => (text) =>
    text.attr("class", (_, index) => (index === chosen ? "chosen" : null)).style("font-size", `${Math.min(12, cell + 1)}px`).text((token) => cut(token.name));
  svg.selectAll(".q").data(queries).join("text").attr("text-anchor", "end").attr("x", left - 6).attr("y", (_, i) => top + (i + 0.5) * cell + 4).call(label(queries, values.query));
  svg.selectAll(".k").data(keys).join("text").attr("transform", (_, i) => `translate(${left + (i + 0.5) * cell + 4},${top - 6}) rotate(-60)`).call(label(keys, values.key));
  svg.append("rect").attr("class", "frame").attr("x", left + values.key * cell).attr("y", top + values.query * cell).attr("width", cell).attr("height", cell);
  const place = (event) => {
    const [x, y] = pointer(event, svg.node());
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, Math.floor(value)));
    return { query: clamp((y - top) / cell, rows), key: clamp((x - left) / cell, columns) };
  };
  image.on("pointermove", (event) => {
    const { query, key } = place(event);
    tooltip(event, `${queries[query].name} → ${keys[key].name}   weight ${number(weights[query * columns + key], 4)}`);
  });
  image.on("pointerleave", (event) => tooltip(event, null));
  image.on("click", (event) => state.set(place(event)));
}

function drawLines(box, attention, values, state) {
  const [rows, columns] = attention.weights.shape.slice(-2);
  const weights = at(attention.weights, values.layer, values.head);
  const [queries, keys] = [attention.query_side, attention.key_side].map((side) => values.data.tokens[side]);
  const height = Math.max(9, Math.min(18, 640 / Math.max(rows, columns)));
  const svg = select(box).html("").append("svg").attr("width", 330).attr("height", Math.max(rows, columns) * height + 8);
  const y = (index) => (index + 0.5) * height + 2;
  const lines = svg.append("g").attr("stroke", "var(--high)").attr("stroke-width", 2);
  const show = (query) => {
    const row = weights.subarray(query * columns, (query + 1) * columns);
    const strong = [...row.entries()].filter(([, weight]) => weight > 0.01);
    lines.selectAll("line").data(strong).join("line").attr("x1", 112).attr("y1", y(query)).attr("x2", 218).attr("y2", ([key]) => y(key)).attr("stroke-opacity", ([, weight]) => weight);
    texts.attr("class", (_, index) => (index === query ? "chosen" : null));
  };
  const texts = svg.selectAll(".q").data(queries).join("text").attr("text-anchor", "end").attr("x", 106).attr("y", (_, i) => y(i) + 4).style("font-size", `${Math.min(12, height)}px`).text((token) => cut(token.name));
  texts.style("cursor", "pointer").on("pointerenter", (_, token) => show(queries.indexOf(token)));
  texts.on("click", (_, token) => state.set({ query: queries.indexOf(token) })).on("pointerleave", () => show(values.query));
  const right = svg.selectAll(".k").data(keys).join("text").attr("x", 224).attr("y", (_, i) => y(i) + 4).style("font-size", `${Math.min(12, height)}px`).text((token) => cut(token.name));
  right.attr("class", (_, index) => (index === values.key ? "chosen" : null)).each(function name(token, index) {
    explain(this, () => `key ${index + 1}: ${token.name}`);
  });
  show(values.query);
}

/** Returns weights as shares of the head's largest one, which has the full colour. */
function relative(weights) {
  const most = weights.reduce((largest, weight) => Math.max(largest, weight), 0);
  return weights.map((weight) => weight / (most || 1));
}

const cut = (name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
