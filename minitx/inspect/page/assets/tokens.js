/** The strips of tokens, and the inspector of the selected one. */

import { at, selected } from "minitx/data";
import { element, number, section } from "minitx/dom";

const LEAD = "The text as the model reads it: pieces of its vocabulary. Choose one to follow it through the page. “·” stands for a space.";
const NAMES = { encoder: "encoder input", decoder: "decoder input" };

export function mount(root, state) {
  const body = section(root, "tokens", "Tokens", LEAD);
  state.subscribe((values) => {
    const attention = selected(values);
    const strips = Object.entries(values.data.tokens).flatMap(([side, tokens]) => {
      const place = side === attention?.query_side ? "query" : "key";
      const title = Object.keys(values.data.tokens).length > 1 ? [element("h3", {}, NAMES[side])] : [];
      return [...title, strip(tokens, side, place, values, state)];
    });
    body.replaceChildren(...strips, inspector(values, attention));
  });
}

function strip(tokens, side, place, values, state) {
  const buttons = tokens.map((token, index) =>
    element(
      "button",
      {
        class: token.special ? "special" : null,
        "aria-pressed": String(values[place] === index),
        "data-side": side,
        "data-index": index,
        title: `token ${index + 1}, id ${token.id}`,
        onclick: () => state.set({ [place]: index }),
      },
      token.name,
    ),
  );
  return element("div", { class: "strip", role: "group", "aria-label": `tokens of the ${side}` }, ...buttons);
}

function inspector(values, attention) {
  const side = attention?.query_side ?? Object.keys(values.data.tokens)[0];
  const token = values.data.tokens[side][values.query];
  const rows = [
    ["token", `${values.query + 1} of ${values.data.tokens[side].length}: ${token.name}`],
    ["id", String(token.id)],
    ["spelling", token.spelling],
    ["text", token.text === null ? null : JSON.stringify(token.text)],
    ["bytes (UTF-8)", token.bytes],
    ["special", token.special ? "yes: added by the tokenizer or reserved" : "no"],
    ...(attention?.weights ? [["attends most to", strongest(values, attention)]] : []),
    ...(values.data.lens?.side === side ? [["through the layers", path(values)]] : []),
  ];
  const parts = rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("dl", { class: "facts", id: "inspector" }, ...parts);
}

function strongest({ layer, head, query, data }, attention) {
  const keys = attention.weights.shape.at(-1);
  const row = at(attention.weights, layer, head).subarray(query * keys, (query + 1) * keys);
  const order = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 4);
  const names = data.tokens[attention.key_side];
  return `${order.map((key) => `${names[key].name} ${number(row[key])}`).join("   ")}   (layer ${layer}, head ${head})`;
}

function path({ query, data }) {
  const best = data.lens.cells.map((layer) => layer[query][0][0]);
  return `${best.join(" → ")}   (best guess of ${data.lens.predicts})`;
}
