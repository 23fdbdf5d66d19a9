/** The tree of a beam search. */

import { hierarchy, linkHorizontal, select, tree } from "d3";
import { element, explain, number, section } from "minitx/dom";

const LEAD = "What a beam search keeps: several continuations at a time, compared by the sum of their log-probabilities. Coloured: the best one; faint: dropped on the way. Choose a token for the text up to it.";
const [COLUMN, ROW] = [104, 22];

export function mount(root, state) {
  const body = section(root, "beams", "Beam search", LEAD);
  state.subscribe((values, changes) => {
    if (!("data" in changes)) return;
    if (values.data.tree === null || values.data.tree.nodes.length === 0) {
      body.replaceChildren("This page has no beam search: the model predicts no next token, or no beams were asked for.");
      return;
    }
    const text = element("p", { class: "sum", id: "beam-text" }, "");
    body.replaceChildren(element("div", { class: "scroll" }, draw(values.data.tree.nodes, text)), text);
  });
}

/** Returns the drawing; a click writes the text of a branch into `text`. */
function draw(nodes, text) {
  const root = { name: "", children: [], step: -1 };
  const parts = nodes.map((node) => ({ ...node, children: [], leads: false, best: false }));
  parts.forEach((node) => (node.parent === null ? root : parts[node.parent]).children.push(node));
  for (const node of parts) node.sum = node.logprob + (node.parent === null ? 0 : parts[node.parent].sum);
  for (const node of [...parts].reverse()) {
    node.leads ||= node.rank !== null;
    node.best ||= node.rank === 0;
    if (node.parent === null) continue;
    parts[node.parent].leads ||= node.leads;
    parts[node.parent].best ||= node.best;
  }
  const layout = tree().nodeSize([ROW, COLUMN])(hierarchy(root));
  const all = layout.descendants();
  const top = Math.min(...all.map(({ x }) => x)) - ROW;
  const height = Math.max(...all.map(({ x }) => x)) - top + ROW;
  const width = (Math.max(...all.map(({ y }) => y)) / COLUMN + 1) * COLUMN;
  const box = element("div");
  const svg = select(box).append("svg").attr("width", width).attr("height", height).attr("role", "img").attr("aria-label", "tree of the beam search");
  const link = linkHorizontal().x(({ y }) => y).y(({ x }) => x - top);
  const colour = ({ best, leads }) => (best ? "var(--accent)" : leads ? "var(--ink)" : "var(--faint)");
  svg.selectAll("path").data(layout.links()).join("path").attr("d", link).attr("fill", "none").attr("stroke", ({ target }) => colour(target.data)).attr("stroke-opacity", ({ target }) => (target.data.leads ? 0.8 : 0.35));
  const shown = all.filter(({ data }) => data.step >= 0);
  const names = svg.selectAll("g").data(shown).join("g").attr("class", "beam").attr("transform", ({ x, y }) => `translate(${y},${x - top})`).style("cursor", "pointer").attr("tabindex", 0);
  names.append("rect").attr("x", -4).attr("y", -16).attr("width", COLUMN - 12).attr("height", ROW - 2).attr("fill", "transparent");
  names.append("circle").attr("r", 3).style("fill", ({ data }) => colour(data));
  names.append("text").attr("x", 5).attr("y", -4).text(({ data }) => cut(data)).style("fill", ({ data }) => colour(data)).style("font-weight", ({ data }) => (data.best ? "bold" : null));
  names.each(function describe(node) {
    const path = node.ancestors().reverse().slice(1).map(({ data }) => data.name);
    const { name, logprob, sum, score } = node.data;
    explain(this, () => `${name}\nlog-probability ${number(logprob)}, up to here ${number(sum)}, score ${number(score)}${state(node.data)}`);
    this.addEventListener("keydown", (event) => event.key === "Enter" && this.dispatchEvent(new Event("click")));
    this.addEventListener("click", () => (text.textContent = `${path.join("").replaceAll("·", " ").trim()}   (score ${number(node.data.score)}${state(node.data)})`));
  });
  return box;
}

const cut = ({ name, rank }) => `${name.length > 11 ? `${name.slice(0, 10)}…` : name}${rank === null ? "" : ` #${rank + 1}`}`;

function state({ rank, finished, leads }) {
  if (rank !== null) return `, returned as number ${rank + 1}`;
  if (finished) return ", finished";
  return leads ? "" : ", dropped";
}
