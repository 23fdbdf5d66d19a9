/** Small helpers for the views: elements, the tooltip, colours, numbers. */

/** Returns a new element with attributes and children; attributes that begin with "on" are listeners. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Adds a section with a title and one sentence on how to read it; returns the place of its content. */
export function section(root, id, title, lead) {
  const body = element("div");
  root.append(element("section", { id, "aria-label": title }, element("h2", {}, title), element("p", { class: "lead" }, lead), body));
  document.getElementById("contents").append(element("a", { href: `#${id}` }, title));
  return body;
}

/** Shows a text at the pointer, or hides it for null. */
export function tooltip(event, text) {
  const box = document.getElementById("tooltip");
  box.hidden = text === null;
  if (text === null) return;
  box.textContent = text;
  const { innerWidth, innerHeight } = window;
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 4))}px`;
  box.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 4))}px`;
}

/** Gives an element a text that is shown while the pointer is on it. */
export function explain(node, text) {
  node.addEventListener("pointermove", (event) => tooltip(event, text()));
  node.addEventListener("pointerleave", (event) => tooltip(event, null));
}

/** Returns a number with a few digits, as 0.123, 12.3 or 1.2e-5. */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "not a number";
  const size = Math.abs(value);
  const text = size !== 0 && size < 10 ** -digits ? value.toExponential(1) : value.toFixed(size >= 100 ? 1 : digits);
  return text.replace("-", "−");
}

/** Returns the red, green and blue of a CSS variable. */
function channels(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
}

/** Returns a function from a share, 0 to 1, to [red, green, blue] of the present theme. */
export function shades() {
  const [low, high] = [channels("--low"), channels("--high")];
  return (share) => low.map((value, index) => Math.round(value + (high[index] - value) * Math.min(1, Math.max(0, share))));
}

/** Returns a function from -1 to 1 to a CSS colour: orange below 0, blue above. */
export function signedColours() {
  const [middle, minus, plus] = [channels("--panel"), channels("--minus"), channels("--plus")];
  return (share) => {
    const end = share < 0 ? minus : plus;
    const part = Math.min(1, Math.abs(share));
    return `rgb(${middle.map((value, index) => Math.round(value + (end[index] - value) * part))})`;
  };
}

/** Draws rows of shares, 0 to 1, into a canvas, a pixel each. */
export function paint(canvas, values, rows, columns, colour) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  values.forEach((value, index) => image.data.set([...colour(value), 255], index * 4));
  context.putImageData(image, 0, 0);
}
