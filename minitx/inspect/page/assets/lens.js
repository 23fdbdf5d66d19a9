/** The logit lens: the head's best guess after every layer. */

import { element, explain, number, section, shades } from "minitx/dom";

const LEAD = "What the model would predict if it stopped after each layer: its head, applied to the residual stream. The colour is the probability of the best token. Below the first line stands the input, above it each later layer.";

export function mount(root, state) {
  const body = section(root, "lens", "Layer by layer", LEAD);
  let shown = null;
  state.subscribe((values, changes) => {
    const { lens, tokens } = values.data;
    if (lens === null) {
      body.replaceChildren("This model has no head over a vocabulary, so that its layers predict no tokens.");
      return;
    }
    if (shown && !("data" in changes) && !("theme" in changes) && !("query" in changes)) return;
    shown = table(lens, tokens[lens.side], values, state);
    body.replaceChildren(element("p", {}, `Each cell guesses ${lens.predicts}.`), element("div", { class: "scroll" }, shown));
  });
}

function table(lens, tokens, values, state) {
  const colour = shades();
  const ink = ["--ink", "--paper"].map((name) => getComputedStyle(document.documentElement).getPropertyValue(name));
  const chosen = values.data.attention.find(({ name }) => name === values.kind)?.query_side === lens.side ? values.query : -1;
  const head = element("tr", {}, element("th"), ...tokens.map((token, index) => element("th", { class: index === chosen ? "chosen" : null }, token.name)));
  const rows = [...lens.cells.keys()].reverse().map((layer) => {
    const cells = lens.cells[layer].map(([names, shares, entropy], position) => {
      const style = `background: rgb(${colour(shares[0])}); color: ${shares[0] > 0.55 ? ink[1] : ink[0]}`;
      const cell = element("td", { style, "data-layer": layer, "data-position": position, onclick: () => state.set({ query: position }) }, names[0]);
      const lines = names.map((name, rank) => `${number(shares[rank])}  ${name}`);
      explain(cell, () => [`${lens.layers[layer]}, at ${tokens[position].name}`, ...lines, `entropy ${number(entropy, 2)} nats`].join("\n"));
      return cell;
    });
    return element("tr", {}, element("th", {}, lens.layers[layer]), ...cells);
  });
  return element("table", { class: "lens" }, element("thead", {}, head), element("tbody", {}, ...rows));
}
