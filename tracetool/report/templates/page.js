// What all parts of the script use: elements, escapes, colours of the style sheet, and what lies compressed in the page.

const find = (selector, from = document) => from.querySelector(selector);
const findAll = (selector, from = document) => Array.from(from.querySelectorAll(selector));

// plotly takes tags in any text for markup.
const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
}

// plotly knows no CSS variables: each `var(--x)` becomes its value of this moment, and sizes follow the text of the document.
const SIZES = new Set(["size", "height", "l", "r", "t", "b"]);

function resolved(value, style, key = "") {
  if (typeof value === "string") {
    const found = /^var\((--[\w-]+)\)$/.exec(value);
    return found ? style.getPropertyValue(found[1]).trim() : value;
  }
  if (typeof value === "number") return SIZES.has(key) ? value * (parseFloat(style.fontSize) / 16) : value;
  if (Array.isArray(value)) return value.every((each) => typeof each === "number") ? value : value.map((each) => resolved(each, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, resolved(each, style, name)]));
  }
  return value;
}

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const found = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) found[i] = binary.charCodeAt(i);
  return found;
}

async function unpacked(id) {
  const stream = new Blob([bytes(document.getElementById(id).textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const breath = () => new Promise((done) => { setTimeout(done, 0); });

// Numbers as `words.py` writes them.
const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const hexadecimal = (page) => `0x${(BigInt(page) * 4096n).toString(16)}`;
