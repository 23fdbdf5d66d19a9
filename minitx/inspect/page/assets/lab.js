/** The live model: a text box, heads to switch off, and what the model generates without and with them. */

import { fitted, unpackAll } from "minitx/data";
import { element, section } from "minitx/dom";

const LEAD = "Type, and everything below follows. Switch heads off (a click, or the space bar) and see the text change.";
const PAUSE = 250; // milliseconds without a key before the text is sent
const RETRY = 2000;

export function mount(root, state, live) {
  const { data } = state.values;
  const body = section(root, "live", "The live model", LEAD);
  const lab = { live, state, off: new Map(), sequence: 0, client: crypto.randomUUID(), timer: null };
  lab.text = element("textarea", { name: "text", rows: 2, "aria-label": "text", spellcheck: "false", style: "width: 100%" });
  lab.text.value = data.text ?? "";
  lab.length = element("input", { type: "number", name: "max_new_tokens", min: 1, max: 64, value: 12, style: "width: 64px" });
  lab.target = element("input", { name: "target", placeholder: "the model's own answer", "aria-label": "target" });
  lab.status = element("span", { id: "lab-status", role: "status" });
  lab.output = element("div", { id: "lab-output" });
  lab.heads = element("div", { class: "columns", id: "lab-heads" });
  const on = element("button", { name: "all-on", onclick: () => switchAllOn(lab) }, "all heads on");
  const decodes = data.model.stacks.length > 1 ? [element("label", {}, "decoder input ", lab.target)] : [];
  const controls = element("div", { class: "controls" }, element("label", {}, "new tokens ", lab.length), ...decodes, on, lab.status);
  body.append(lab.text, controls, lab.output, lab.heads);
  for (const field of [lab.text, lab.length, lab.target]) field.addEventListener("input", () => later(lab, PAUSE));
  for (const [kind, [layers, heads]] of Object.entries(live.heads)) lab.heads.append(toggles(lab, kind, layers, heads));
  showOutput(lab, data, 0);
}

function switchAllOn(lab) {
  lab.off.clear();
  for (const button of lab.heads.querySelectorAll("button")) button.setAttribute("aria-pressed", "false");
  send(lab);
}

function toggles(lab, kind, layers, heads) {
  const title = lab.state.values.data.attention.find(({ name }) => name === kind).title;
  const box = element("div", { class: "maps toggles", style: `grid-template-columns: auto repeat(${heads}, 24px)` });
  for (let layer = 0; layer < layers; layer += 1) {
    box.append(element("span", {}, String(layer)));
    for (let head = 0; head < heads; head += 1) {
      const name = `${title}, layer ${layer}, head ${head}: off`;
      const button = element("button", { "aria-pressed": "false", "aria-label": name, title: name, "data-kind": kind, "data-layer": layer, "data-head": head }, String(head));
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(pressed));
        const key = JSON.stringify([kind, layer, head]);
        if (pressed) lab.off.set(key, [kind, layer, head]);
        else lab.off.delete(key);
        lab.state.set({ kind, layer, head });
        later(lab, 30);
      });
      box.append(button);
    }
  }
  return element("div", {}, element("h3", {}, title), element("div", { class: "scroll" }, box));
}

function later(lab, pause) {
  clearTimeout(lab.timer);
  lab.timer = setTimeout(() => send(lab), pause);
}

/** Sends the present text and heads; an answer to an older request is left out. */
async function send(lab) {
  clearTimeout(lab.timer);
  lab.sequence += 1;
  const { sequence } = lab;
  const off = {};
  for (const [kind, layer, head] of lab.off.values()) (off[kind] ??= []).push([layer, head]);
  const switched = lab.off.size;
  const request = { text: lab.text.value, target: lab.target.value || null, off, max_new_tokens: Number(lab.length.value), sequence, client: lab.client };
  const began = performance.now();
  status(lab, "computing …");
  let answer;
  try {
    const headers = { "Content-Type": "application/json", "X-Token": lab.live.token };
    const response = await fetch("/data", { method: "POST", headers, body: JSON.stringify(request) });
    answer = await response.json();
  } catch {
    if (sequence !== lab.sequence) return;
    status(lab, "No answer: is minitx lab still running? Trying again …", true);
    later(lab, RETRY);
    return;
  }
  if (sequence !== lab.sequence || answer.superseded) return;
  if (answer.error) {
    status(lab, `${answer.error} What stands below belongs to the last text that could be read.`, true);
    stale(true);
    return;
  }
  const data = await unpackAll(answer);
  if (sequence !== lab.sequence) return;
  lab.state.set(following(lab.state.values, data));
  stale(false);
  showOutput(lab, data, switched);
  status(lab, `${Math.round(performance.now() - began)} ms`);
  document.documentElement.dataset.sequence = String(sequence);
}

/** Returns the selection for new data: the last token stays the last one. */
function following(values, data) {
  const side = values.data.attention.find(({ name }) => name === values.kind)?.query_side;
  const atEnd = side !== undefined && values.query === values.data.tokens[side].length - 1;
  return fitted({ ...values, data, ...(atEnd ? { query: data.tokens[side].length - 1 } : {}) });
}

/** Dims the views while they do not belong to the text in the box. */
function stale(yes) {
  document.getElementById("views").classList.toggle("stale", yes);
}

function status(lab, text, isError = false) {
  lab.status.textContent = text;
  lab.status.className = isError ? "error" : "lead";
}

function showOutput(lab, { output: { before, after }, model }, switched) {
  if (before.length === 0) {
    lab.output.replaceChildren();
    return;
  }
  const line = (title, tokens, others) =>
    element("p", {}, `${title}: `, element("span", { class: "sum" }, ...tokens.map((token, place) => element("span", { class: token === others[place] ? null : "changed" }, token.replaceAll("·", " ")))));
  const title = model.task === "masked-lm" ? "the most probable tokens of the masks" : "the most probable continuation (greedy)";
  const lines = [line(title, before, before)];
  if (switched > 0) lines.push(line(`with ${switched} ${switched === 1 ? "head" : "heads"} off`, after, before));
  lab.output.replaceChildren(...lines);
}
