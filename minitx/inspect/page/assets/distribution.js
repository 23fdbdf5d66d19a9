/** The next token: its distribution after each step of the chain, with a slider for each parameter. */

import { STEPS, draw, runChain } from "minitx/chain";
import { element, explain, number, section } from "minitx/dom";

const LEAD = "How the next token is chosen: each step of the chain changes the model's distribution or removes tokens, and the token is drawn from the last one. Move the sliders, change the order of the steps, and compare the columns.";
const SHOWN = 12;
const DRAWS = 1000;
// Ends and step of the slider of each parameter.
const RANGES = {
  repetition_penalty: [0.5, 2, 0.01],
  frequency_penalty: [-2, 2, 0.05],
  presence_penalty: [-2, 2, 0.05],
  temperature: [0.05, 3, 0.05],
  top_h: [0.05, 1, 0.05],
  top_k: [0, 200, 1],
  top_p: [0.01, 1, 0.01],
  min_p: [0, 1, 0.01],
  typical_p: [0.01, 1, 0.01],
  epsilon_cutoff: [0, 0.1, 0.0005],
  eta_cutoff: [0, 0.1, 0.0005],
};
const ORDER_NAMES = { transformers: "transformers", vllm: "vLLM", "llama.cpp": "llama.cpp" };

export function mount(root, state) {
  const body = section(root, "next", "The next token", LEAD);
  let chain = null;
  state.subscribe((values, changes) => {
    if (!("data" in changes)) return;
    const { next } = values.data;
    if (next === null) {
      body.replaceChildren("This model has no head over a vocabulary, so that there is no token to choose.");
      return;
    }
    chain = settings(next, chain);
    build(body, next, chain);
  });
}

/** Returns the settings of the sliders; those of the page before stay. */
function settings(next, before) {
  const promptLength = next.history.length;
  if (before) return { ...before, promptLength, place: Math.min(before.place, next.distributions.length - 1) };
  const known = Object.entries(next.parameters).filter(([name]) => name in STEPS);
  const values = Object.fromEntries(known.map(([name, { value }]) => [name, value ?? RANGES[name][0]]));
  const on = new Set(known.filter(([, { value, off }]) => value !== off).map(([name]) => name));
  const preset = next.order;
  return { place: 0, order: steps(next, preset), preset, values, on, promptLength, seed: 0, draws: null };
}

/** Returns the steps that the page computes, in a library's order. */
function steps(next, preset) {
  return next.orders[preset].filter((name) => name in STEPS);
}

function build(body, next, chain) {
  const sliders = element("div");
  const results = element("div", { class: "scroll", id: "chain-steps" });
  const code = element("div");
  const drawn = element("p", { id: "draws" });
  const update = () => {
    const distributions = runChain(next.distributions[chain.place].logits.values, chosen(next, chain), { history: next.history, promptLength: chain.promptLength });
    window.minitx.chain = distributions;
    results.replaceChildren(columns(distributions, next));
    code.replaceChildren(...calls(next, chain));
    drawn.textContent = chain.draws === null ? "" : drawing(distributions.at(-1), next, chain);
  };
  const order = () => {
    sliders.replaceChildren(...chain.order.map((name, place) => slider(next, chain, name, place, update, order)));
    update();
  };
  body.replaceChildren(controls(next, chain, update, order), sliders, results, drawn, element("h3", {}, next.task === "masked-lm" ? "These parameters in Python" : "The same in Python, and on the command line with your MODEL and TEXT"), code);
  const missing = Object.entries(next.parameters).filter(([name, { value, off }]) => value !== off && !(name in STEPS));
  body.append(...missing.map(([name]) => element("p", { class: "error" }, `The page does not compute ${name}; its sliders begin without it.`)));
  order();
}

/** Returns names and values of the steps that are on, in order. */
function chosen(next, chain) {
  return chain.order.filter((name) => chain.on.has(name)).map((name) => [name, chain.values[name]]);
}

function controls(next, chain, update, order) {
  const bar = element("div", { class: "controls" });
  if (next.distributions.length > 1) {
    const options = next.distributions.map(({ title }, index) => element("option", { value: index, selected: index === chain.place }, title));
    const pick = (event) => {
      chain.place = Number(event.target.value);
      update();
    };
    bar.append(element("label", {}, "distribution of ", element("select", { name: "place", onchange: pick }, ...options)));
  }
  const presets = Object.keys(next.orders).map((name) => element("option", { value: name, selected: name === chain.preset }, ORDER_NAMES[name] ?? name));
  const preset = (event) => {
    chain.preset = event.target.value;
    chain.order = steps(next, chain.preset);
    order();
  };
  bar.append(element("label", {}, "order of ", element("select", { name: "order", onchange: preset }, ...presets)));
  if (next.task !== "masked-lm") {
    const length = element("input", { type: "number", name: "prompt", min: 0, max: next.history.length, value: chain.promptLength, style: "width: 64px" });
    length.addEventListener("input", () => {
      chain.promptLength = Math.round(Math.max(0, Math.min(next.history.length, Number(length.value))));
      update();
    });
    length.addEventListener("change", () => (length.value = chain.promptLength));
    bar.append(element("label", { title: "frequency and presence penalties count the tokens after the prompt" }, "prompt: the first ", length, " tokens"));
  }
  const reset = () => {
    chain.on.clear();
    order();
  };
  const sample = () => {
    chain.draws = DRAWS;
    chain.seed += 1;
    update();
  };
  bar.append(element("button", { name: "reset", onclick: reset }, "all off"), element("button", { name: "draw", onclick: sample }, `draw ${DRAWS} tokens`));
  return bar;
}

function slider(next, chain, name, place, update, order) {
  const { off, help } = next.parameters[name];
  const [low, high, width] = RANGES[name];
  const set = (value) => {
    if (!Number.isFinite(value)) return;
    const bounded = Math.max(low, Math.min(name === "top_k" ? Infinity : high, value));
    chain.values[name] = name === "top_k" ? Math.round(bounded) : bounded;
    if (chain.values[name] === off) chain.on.delete(name);
    else chain.on.add(name);
    use.checked = chain.on.has(name);
    update();
  };
  const common = { min: low, max: high, step: width, value: chain.values[name], name };
  const range = element("input", { type: "range", ...common, "aria-label": name });
  const field = element("input", { type: "number", ...common, max: name === "top_k" ? null : high, step: "any", "aria-label": `${name}, a number` });
  // What is not in force does not stay in the field.
  field.addEventListener("change", () => {
    field.value = chain.values[name];
    range.value = chain.values[name];
  });
  range.addEventListener("input", () => {
    field.value = range.value;
    set(Number(range.value));
  });
  field.addEventListener("input", () => {
    if (field.value.trim() === "") return;
    range.value = field.value;
    set(Number(field.value));
  });
  const use = element("input", { type: "checkbox", checked: chain.on.has(name), name: `use-${name}`, "aria-label": `use ${name}` });
  use.addEventListener("change", () => {
    if (use.checked) chain.on.add(name);
    else chain.on.delete(name);
    update();
  });
  const move = (step) => () => {
    [chain.order[place], chain.order[place + step]] = [chain.order[place + step], chain.order[place]];
    order();
  };
  const up = element("button", { title: "earlier", "aria-label": `${name} earlier`, disabled: place === 0, onclick: move(-1) }, "↑");
  const down = element("button", { title: "later", "aria-label": `${name} later`, disabled: place === chain.order.length - 1, onclick: move(1) }, "↓");
  return element("div", { class: "slider", "data-name": name }, use, element("label", { title: help }, name), range, field, element("span", { class: "move" }, up, down));
}

/** Returns a column of bars for each step. */
function columns(results, next) {
  const ids = shownIds(results);
  const most = Math.max(...results.flatMap(({ probabilities }) => ids.map((id) => probabilities[id])));
  const parts = results.map(({ name, value, probabilities, logits, kept, mass, entropy }) => {
    const rows = ids.map((id) => {
      const removed = logits[id] === -Infinity;
      const bar = element("i", { style: `width: ${(100 * probabilities[id]) / most}%` });
      const row = element("div", { class: removed ? "bar-row removed" : "bar-row", "data-id": id }, element("span", {}, named(next, id)), bar, element("span", {}, removed ? "–" : number(probabilities[id])));
      explain(row, () => `${named(next, id)}, id ${id}\nby the model ${number(results[0].probabilities[id], 5)}\nafter this step ${removed ? "removed" : number(probabilities[id], 5)}`);
      return row;
    });
    const title = value === null ? name : `${name} ${number(value, 4).replace(/\.?0+$/, "")}`;
    const facts = `${kept.toLocaleString("en")} tokens · mass ${number(mass)} · ${number(entropy, 2)} nats`;
    return element("div", { "data-step": name }, element("h3", {}, title), element("p", { class: "lead", style: "font-size: 12px" }, facts), ...rows);
  });
  return element("div", { class: "steps" }, ...parts);
}

/** Returns the tokens to show: the best of the first and of the last step, by the model's probability. */
function shownIds(results) {
  const best = (probabilities) => [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  const [first, last] = [best(results[0].probabilities), best(results.at(-1).probabilities)];
  const ids = new Set();
  for (let rank = 0; ids.size < SHOWN && rank < SHOWN; rank += 1) {
    for (const id of [last[rank], first[rank]]) if (id !== undefined && ids.size < SHOWN) ids.add(id);
  }
  return [...ids].sort((a, b) => results[0].logits[b] - results[0].logits[a]);
}

const named = (next, id) => next.names[id] ?? `#${id}`;

function drawing(result, next, chain) {
  const counts = [...draw(result.probabilities, chain.draws, chain.seed)].sort((a, b) => b[1] - a[1]);
  const shown = counts.slice(0, SHOWN).map(([id, count]) => `${named(next, id)} ${count}`);
  return `${chain.draws} draws: ${shown.join("   ")}${counts.length > SHOWN ? `   and ${counts.length - SHOWN} other tokens` : ""}`;
}

/** Returns the call and the command with the same parameters. */
function calls(next, chain) {
  const used = chosen(next, chain);
  const preset = used.length === 0 || chain.order.join() === steps(next, chain.preset).join();
  const named = used.map(([name, value]) => `${name}=${value}`);
  if (used.length > 0 && preset && chain.preset !== "transformers") named.push(`order="${chain.preset}"`);
  const literal = used.map(([name, value]) => `${next.parameters[name].step}(${value})`).join(", ");
  const python = preset ? `minitx.Sample(${named.join(", ")})` : `minitx.Sample(chain=Chain(${literal}))`;
  const options = used.map(([name, value]) => ` --${name.replaceAll("_", "-")} ${value}`).join("");
  const order = used.length === 0 || chain.preset === "transformers" ? "" : ` --order ${chain.preset}`;
  const shell = preset ? `minitx generate MODEL TEXT${options}${order}` : "The command line has the orders of the list above only.";
  const lines = [element("div", { class: "code", id: "python-call" }, python)];
  // A masked language model generates no text: the chain is that of a draw for the mask.
  return next.task === "masked-lm" ? lines : [...lines, element("div", { class: "code", id: "shell-call" }, shell)];
}
