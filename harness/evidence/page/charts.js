"use strict";
// Charts drawn as SVG: elements, scales, a figure with axes and marks, what it says under the pointer, and its files.

const HOLE = "—";

function build(space, tag, attributes, children) {
  const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}
const html = (tag, attributes = {}, ...children) => build(null, tag, attributes, children);
const svg = (tag, attributes = {}, ...children) => build("http://www.w3.org/2000/svg", tag, attributes, children);

// --- numbers and scales ----------------------------------------------------------------------------------------------

const short = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4))));
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const spread = (mean, half) => mean.toFixed(2) + (half === null || half === undefined ? "" : ` ± ${half.toFixed(2)}`);

function linearTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const factors = high / low > 1000 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) ticks.push(Number((factor * 10 ** power).toPrecision(3)));
  return ticks.filter((tick) => tick >= low && tick <= high);
}

// The range of some numbers with a little room on both sides; a single number has some too.
function range(values, { log = false, within = [-Infinity, Infinity] } = {}) {
  const known = values.filter((value) => Number.isFinite(value));
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  if (log) {
    const room = high > 2 * low ? 1.3 : 2.2;
    return [low / room, high * room];
  }
  const room = high > low ? 0.06 * (high - low) : Math.max(1, 0.05 * Math.abs(high));
  return [Math.max(within[0], low - room), Math.min(within[1], high + room)];
}

function scale([low, high], [from, to], log) {
  const of = log ? Math.log : (value) => value;
  return (value) => from + ((of(value) - of(low)) / (of(high) - of(low) || 1)) * (to - from);
}

// --- looks -----------------------------------------------------------------------------------------------------------

// A method's colour, marker, line and fill, as matplotlib names them in the paper's figures.
const UNKNOWN = ["#888888", "o", "-", "full"];
const colourOf = ([colour]) => (colour === "#000000" ? "currentColor" : colour);
const dashOf = ([, , line]) => (line === "-" ? null : line === "--" ? "5 3" : line[1].map((one) => 1.6 * one).join(" "));

const ROUND = { s: [4, 45], D: [4, 0], d: [4, 0], "^": [3, 0], v: [3, 180], "<": [3, 270], ">": [3, 90], p: [5, 0], h: [6, 0], 8: [8, 22.5] };

function corners(sides, turn, radius, inner = null) {
  const count = inner === null ? sides : 2 * sides;
  return Array.from({ length: count }, (_, at) => {
    const angle = ((turn - 90 + (360 * at) / count) * Math.PI) / 180;
    const reach = inner !== null && at % 2 ? inner : radius;
    return [reach * Math.cos(angle), reach * Math.sin(angle)];
  });
}

function shapeOf(marker, radius) {
  if (marker === "*") return corners(5, 0, 1.4 * radius, 0.55 * radius);
  if (marker === "P" || marker === "X") {
    const [near, far] = [0.4 * radius, 1.15 * radius];
    const plus = [[-near, -far], [near, -far], [near, -near], [far, -near], [far, near], [near, near], [near, far], [-near, far], [-near, near], [-far, near], [-far, -near], [-near, -near]];
    return marker === "P" ? plus : plus.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);
  }
  const [sides, turn] = ROUND[marker];
  return corners(sides, turn, 1.2 * radius).map(([x, y]) => (marker === "d" ? [0.6 * x, y] : [x, y]));
}

function marker(x, y, look, radius = 4) {
  const colour = colourOf(look);
  const paint = { stroke: colour, "stroke-width": 1.3, fill: look[3] === "none" ? "none" : colour, "fill-opacity": look[3] === "full" ? 1 : 0.45 };
  if (look[1] === "o" || !(look[1] in ROUND || "*PX".includes(look[1]))) return svg("circle", { cx: fixed(x), cy: fixed(y), r: radius, ...paint });
  const points = shapeOf(look[1], radius).map(([dx, dy]) => `${fixed(x + dx)},${fixed(y + dy)}`);
  return svg("polygon", { points: points.join(" "), ...paint });
}

const fixed = (value) => Number(value.toFixed(1));
const plainName = (name) => name.replaceAll(/(^|, )(variant|recipe)\.(?=\w+=)/g, "$1");

// A method's line and marker, 30 wide and 12 high.
function sample(look) {
  return [svg("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: colourOf(look), "stroke-width": 1.8, "stroke-dasharray": dashOf(look) }), marker(15, 6, look, 3.5)];
}

// --- a figure --------------------------------------------------------------------------------------------------------

// x and y: {label, range, log, ticks: [[value, text], ...], bare: without grid lines}. `rows` of the returned object is what its CSV holds.
class Chart {
  constructor({ name, title, width, height, x, y, left = 46, right = 14 }) {
    Object.assign(this, { name, title, width, height, left, right, rows: [], spots: [], looks: new Map() });
    this.top = 12;
    this.bottom = x.label ? 42 : 26;
    this.x = scale(x.range, [left, width - right], x.log);
    this.y = scale(y.range, [height - this.bottom, this.top], y.log);
    this.marks = svg("g");
    this.ring = svg("circle", { r: 7, fill: "none", stroke: "currentColor", "stroke-width": 1.5, visibility: "hidden" });
    this.svg = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: 0, "aria-label": `${title}. Arrow keys go from point to point.`, "font-size": 12 },
      this.axes(x, y), this.marks, this.ring,
    );
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.choose(null)); // a finger is lifted to read
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
  }

  axes(x, y) {
    const { left, right, width, height, top, bottom } = this;
    const floor = height - bottom;
    const across = x.ticks || (x.log ? logTicks(...x.range) : linearTicks(...x.range, (width - left - right) / 70)).map((tick) => [tick, short(tick)]);
    const up = y.ticks || linearTicks(...y.range, (floor - top) / 36).map((tick) => [tick, short(tick)]);
    const grid = { stroke: "currentColor", "stroke-opacity": 0.13 };
    const parts = [];
    for (const [tick, text] of across) {
      const at = fixed(this.x(tick));
      if (!x.bare) parts.push(svg("line", { x1: at, x2: at, y1: top, y2: floor, ...grid }));
      parts.push(svg("text", { x: at, y: floor + 15, "text-anchor": "middle", fill: "currentColor" }, text));
    }
    for (const [tick, text] of up) {
      const at = fixed(this.y(tick));
      if (!y.ticks) parts.push(svg("line", { x1: left, x2: width - right, y1: at, y2: at, ...grid }));
      parts.push(svg("text", { x: left - 6, y: at + 4, "text-anchor": "end", fill: "currentColor" }, text));
    }
    if (x.label) parts.push(svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle", fill: "currentColor" }, x.label));
    if (y.label) parts.push(svg("text", { transform: `translate(12 ${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle", fill: "currentColor" }, y.label));
    return svg("g", {}, parts);
  }

  // The marks of one method are one group, so that the others can step back. With a look it is in the legend of the SVG.
  series(name, look = null) {
    if (look) this.looks.set(name, look);
    const group = svg("g", { class: "series", "data-series": name });
    this.marks.append(group);
    return group;
  }

  path(points) {
    return points.map(([x, y], at) => `${at ? "L" : "M"}${fixed(this.x(x))} ${fixed(this.y(y))}`).join("");
  }

  line(group, points, look, more = {}) {
    group.append(svg("path", { d: this.path(points), fill: "none", stroke: colourOf(look), "stroke-width": 1.8, "stroke-dasharray": dashOf(look), ...more }));
  }

  band(group, lows, highs, look) {
    group.append(svg("path", { d: `${this.path([...lows, ...highs.slice().reverse()])}Z`, fill: colourOf(look), "fill-opacity": 0.16 }));
  }

  marker(group, x, y, look) {
    group.append(marker(this.x(x), this.y(y), look));
  }

  // An interval around a point, along x or along y.
  interval(group, [x, y], half, look, along) {
    if (half === null || half === undefined) return;
    const ends = along === "x" ? [[x - half, y], [x + half, y]] : [[x, y - half], [x, y + half]];
    group.append(svg("path", { d: this.path(ends), stroke: colourOf(look), "stroke-width": 1.5, fill: "none" }));
  }

  rule(points, more = {}) {
    this.marks.append(svg("path", { d: this.path(points), fill: "none", stroke: "currentColor", "stroke-opacity": 0.6, ...more }));
  }

  // What stands under the pointer there; the keys go through them in this order.
  spot(x, y, text, series = "") {
    this.spots.push({ x: this.x(x), y: this.y(y), text, series });
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) * this.width) / box.width, ((event.clientY - box.top) * this.height) / box.height];
    let near = null;
    let least = 28 ** 2;
    for (const spot of this.spots) {
      const far = (spot.x - x) ** 2 + (spot.y - y) ** 2;
      if (far < least) [near, least] = [spot, far];
    }
    this.choose(near);
  }

  step(event) {
    const ways = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") this.choose(null);
    if (!(event.key in ways) || !this.spots.length) return;
    event.preventDefault();
    const at = this.spots.indexOf(this.chosen);
    this.choose(this.spots[(at < 0 ? (ways[event.key] > 0 ? 0 : -1) : at + ways[event.key] + this.spots.length) % this.spots.length] || this.spots.at(-1));
  }

  choose(spot) {
    if (spot === this.chosen) return;
    this.chosen = spot;
    Chart.last = this;
    this.ring.setAttribute("visibility", spot ? "visible" : "hidden");
    this.svg.classList.toggle("focused", Boolean(spot && spot.series));
    for (const group of this.marks.querySelectorAll(".series")) group.classList.toggle("near", Boolean(spot) && group.dataset.series === spot.series);
    if (!spot) return hideTip();
    this.ring.setAttribute("cx", fixed(spot.x));
    this.ring.setAttribute("cy", fixed(spot.y));
    const box = this.svg.getBoundingClientRect();
    showTip(spot.text, box.left + (spot.x * box.width) / this.width, box.top + (spot.y * box.height) / this.height);
  }

  // With a caption, and its files.
  element() {
    const files = html(
      "span", { class: "files" },
      html("button", { type: "button", onclick: () => save(`${this.name}.svg`, "image/svg+xml", this.asSvg()), "aria-label": `${this.title} as SVG` }, "SVG"),
      html("button", { type: "button", onclick: () => save(`${this.name}.csv`, "text/csv", asCsv(this.rows)), "aria-label": `${this.title} as CSV` }, "CSV"),
    );
    const made = html("figure", { "data-chart": this.name }, html("figcaption", {}, html("span", {}, this.title), files), this.svg);
    made.style.width = `${this.width}px`;
    return made;
  }

  // With title and legend, on its own background and in its own colours, wherever it is opened.
  asSvg() {
    const copy = this.svg.cloneNode(true);
    const style = getComputedStyle(this.svg);
    const below = (at, ...parts) => svg("g", { transform: `translate(${this.left} ${this.height + 8 + 18 * at})` }, parts);
    const text = (x, words) => svg("text", { x, y: 10, fill: "currentColor" }, words);
    const lines = [below(0, text(0, this.title)), ...[...this.looks].map(([name, look], at) => below(at + 1, ...sample(look), text(38, plainName(name))))];
    const height = this.height + 16 + 18 * lines.length;
    copy.append(...lines);
    copy.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    copy.setAttribute("height", height);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("color", style.color);
    copy.setAttribute("font-family", style.fontFamily);
    copy.prepend(svg("title", {}, this.title), svg("rect", { width: this.width, height, fill: getComputedStyle(document.body).backgroundColor }));
    return new XMLSerializer().serializeToString(copy);
  }
}

// --- files and the tip -----------------------------------------------------------------------------------------------

function asCsv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: address, download: name.replace(/[^\w.-]+/g, "-") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const tip = html("div", { id: "tip", role: "status", hidden: true });

function showTip(text, x, y) {
  tip.hidden = false;
  tip.textContent = text;
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
  tip.style.top = `${y - height - 12 < 4 ? y + 16 : y - height - 12}px`;
}

function hideTip() {
  tip.hidden = true;
}
