/** The page: reads the data, mounts the views, keys and the theme. */

import { mount as mountAttention } from "minitx/attention";
import { State, fitted, selected, unpackAll } from "minitx/data";
import { mount as mountDistribution } from "minitx/distribution";
import { element } from "minitx/dom";
import { mount as mountLab } from "minitx/lab";
import { mount as mountLens } from "minitx/lens";
import { mount as mountPair } from "minitx/pair";
import { mount as mountTokens } from "minitx/tokens";
import { mount as mountTree } from "minitx/tree";

const VIEWS = [mountTokens, mountAttention, mountPair, mountLens, mountDistribution, mountTree];
const KEYS = [
  ["← →", "query token before, after"],
  ["↑ ↓", "key token before, after"],
  ["h, Shift+H", "next head, head before"],
  ["l, Shift+L", "next layer, layer before"],
  ["k", "next kind of attention"],
  ["d", "light or dark"],
  ["?", "this help"],
];

/** Unpacks the data and builds the page. */
export async function start() {
  const packed = JSON.parse(document.getElementById("data").textContent);
  const data = await unpackAll(packed);
  const state = new State(fitted({ data, layer: 0, head: 0, key: 0, ...beginning(data) }));
  window.minitx = { state, data };
  state.subscribe(({ data: present }, changes) => {
    if ("data" in changes) head(present);
  });
  theme(state);
  keyboard(state);
  const root = document.getElementById("views");
  root.replaceChildren();
  if (packed.live) mountLab(root, state, packed.live);
  for (const mount of VIEWS) mount(root, state);
  document.documentElement.dataset.ready = "yes";
}

/** Returns the selection to begin with: the last kind of attention, at the token whose prediction is shown. */
function beginning(data) {
  const attention = data.attention.at(-1);
  if (!attention) return { query: 0 };
  const last = data.tokens[attention.query_side].length - 1;
  return { kind: attention.name, query: data.next?.distributions[0].position ?? last };
}

function head({ model, notes }) {
  const size = model.parameters.toLocaleString("en");
  document.getElementById("facts").textContent = `${model.architecture}, ${model.stacks.join(" and ")}, ${size} parameters, ${model.dtype}${model.task ? `, ${model.task}` : ""}`;
  document.getElementById("notes").replaceChildren(...notes.map((note) => element("p", {}, note)), element("p", {}, "Made with minitx; drawn with d3 (ISC licence)."));
}

function theme(state) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = (name) => {
    document.documentElement.dataset.theme = name;
    state.set({ theme: name });
  };
  const toggle = () => apply(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  dark.addEventListener("change", () => apply(dark.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", toggle);
  document.addEventListener("minitx-theme", toggle);
  apply(dark.matches ? "dark" : "light");
}

function keyboard(state) {
  const dialog = document.getElementById("keys");
  const rows = KEYS.flatMap(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)]);
  dialog.append(element("h2", {}, "Keys"), element("dl", { class: "facts" }, ...rows), element("button", { onclick: () => dialog.close() }, "close"));
  document.getElementById("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") dialog.showModal();
    else if (event.key === "d") document.dispatchEvent(new Event("minitx-theme"));
    else if (!move(state, event.key)) return;
    event.preventDefault();
  });
}

/** Changes the selection for a key; returns whether the key has a meaning. */
function move(state, key) {
  const { values } = state;
  const attention = selected(values);
  if (!attention) return false;
  const step = (name, size, by) => state.set(fitted({ ...values, [name]: (values[name] + by + size) % size }));
  const [queries, keys] = ["query_side", "key_side"].map((side) => values.data.tokens[attention[side]].length);
  const kinds = values.data.attention.map(({ name }) => name);
  const moves = {
    ArrowLeft: () => step("query", queries, -1),
    ArrowRight: () => step("query", queries, 1),
    ArrowUp: () => step("key", keys, -1),
    ArrowDown: () => step("key", keys, 1),
    h: () => step("head", attention.heads, 1),
    H: () => step("head", attention.heads, -1),
    l: () => step("layer", attention.layers, 1),
    L: () => step("layer", attention.layers, -1),
    k: () => state.set(fitted({ ...values, kind: kinds[(kinds.indexOf(values.kind) + 1) % kinds.length] })),
  };
  moves[key]?.();
  return key in moves;
}
