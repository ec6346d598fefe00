// The page: what is chosen stands in the address (#section?name=value&...), and everything shown follows from it.

const data = JSON.parse(document.getElementById("contents").textContent);
for (const { curve } of data.runs) curve.epoch = data.steps[curve.epoch];
for (const { lines } of Object.values(data.curves))
  for (const line of lines) for (const kind of ["accuracy", "loss", "train_loss"]) line[kind].epoch = data.steps[line[kind].epoch];
const different = (values) => [...new Set(values)].filter((value) => value !== null && value !== undefined);
const sections = [...document.querySelectorAll("main > section")];
const PLAIN = { section: sections[0].id, dataset: "", variant: "", recipe: "", origin: "", epochs: "", params: "", sort: "", show: "", hide: "", kind: "", against: "", cell: "", run: "", theme: "" };
const KEPT = ["section", "theme"]; // by "Reset"
const MOST_SHOWN = 12; // methods in a chart before anybody has chosen
const MOST_DOTS = 16; // cells in the chart above the leaderboard
const ORIGINS = different(data.facts.flatMap((fact) => fact.origin.split(" and ")));
const isNumber = (value) => Number(value) >= 0;
const ALLOWED = { // what else an address says is left out
  dataset: (value) => Object.hasOwn(data.titles, value), origin: (value) => ORIGINS.includes(value), epochs: isNumber, params: isNumber,
  kind: (value) => value === "loss", against: (value) => Object.hasOwn(data.costs, value), theme: (value) => ["light", "dark"].includes(value),
};

// A section's id is its anchor where there is no JavaScript; here the address says more.
for (const section of sections) {
  section.name = section.id;
  section.removeAttribute("id");
}
let state = read();
const sectionShown = () => sections.find((one) => one.name === state.section);

function read() {
  const [section, words] = location.hash.slice(1).split("?");
  const found = { ...PLAIN };
  if (sections.some((one) => one.name === section)) found.section = section;
  for (const [name, value] of new URLSearchParams(words || "")) if (Object.hasOwn(PLAIN, name) && name !== "section" && (ALLOWED[name]?.(value) ?? true)) found[name] = value;
  return found;
}

function address(of) {
  const words = new URLSearchParams(Object.entries(of).filter(([name, value]) => name !== "section" && value !== PLAIN[name]));
  return `#${of.section}${words.size ? `?${words}` : ""}`;
}

// `step`: worth a step of the browser's back button. Otherwise the reader stays where the page was, and so do the keys.
function set(changes, step = false) {
  const [top, focused] = [scrollY, document.activeElement];
  const controls = () => [...document.querySelectorAll("main > section:not([hidden]) :is(a, button, select, summary, [tabindex])")];
  const at = controls().indexOf(focused);
  state = { ...state, ...changes };
  history[step ? "pushState" : "replaceState"](null, "", address(state));
  render();
  scrollTo(0, step ? 0 : top);
  if (!step && !focused.isConnected) controls()[at]?.focus({ preventScroll: true });
  if (step && !focused.closest("nav")) (document.getElementById("run") || sectionShown().querySelector("h2")).focus({ preventScroll: true });
}

// As a link leads there, which may also be opened in another window.
function link(of, text, title = null) {
  return html("a", { href: address({ ...PLAIN, ...of }), title, onclick: (event) => go(event, of) }, text);
}

function go(event, changes) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  set(changes, true);
}

addEventListener("popstate", () => ((state = read()), render()));

addEventListener("scroll", () => Chart.last?.choose(null), { passive: true });

// --- filters ---------------------------------------------------------------------------------------------------------

// A name that exists is meant exactly; anything else is a part of a name. Commas part alternatives.
function names(typed, known) {
  const words = typed.includes(",") && !known.includes(typed) ? typed.split(",") : [typed];
  const wanted = words.map((word) => word.trim().toLowerCase()).filter(Boolean);
  return (name) => !wanted.length || wanted.some((word) => (known.some((one) => one.toLowerCase() === word) ? name.toLowerCase() === word : name.toLowerCase().includes(word)));
}

function passing() {
  const variant = names(state.variant, different(data.facts.map((fact) => fact.variant)));
  const recipe = names(state.recipe, different(data.facts.map((fact) => fact.recipe)));
  const most = (limit, value) => !(Number.parseFloat(limit) >= 0) || (value !== null && value <= Number.parseFloat(limit));
  return data.facts.map(
    (fact) =>
      (!state.dataset || fact.dataset === state.dataset) &&
      variant(fact.variant) &&
      recipe(fact.recipe) &&
      (!state.origin || fact.origin.split(" and ").includes(state.origin)) &&
      most(state.epochs, fact.epochs) &&
      most(state.params, fact.params === null ? null : Number((fact.params / 1e6).toPrecision(3))), // as the table has it
  );
}

function field(label, name, control) {
  control.id = `filter-${name}`;
  control.addEventListener(control.tagName === "SELECT" ? "change" : "input", () => set({ [name]: control.value }));
  return html("label", { for: control.id }, html("span", {}, label), control);
}

function select(options) {
  return html("select", {}, options.map(([value, text]) => html("option", { value }, text)));
}

function typed(name, known) {
  const list = html("datalist", { id: `known-${name}` }, known.map((value) => html("option", { value })));
  return html("span", {}, html("input", { type: "search", list: list.id, placeholder: "all", autocomplete: "off", title: "a name, a part of names, or several with commas" }), list);
}

function filterBar() {
  const facts = (name) => different(data.facts.map((fact) => fact[name]));
  const text = (label, name) => {
    const made = typed(name, facts(name).sort());
    const labelled = field(label, name, made.firstChild);
    labelled.append(made.lastChild);
    return labelled;
  };
  const upTo = (label, name, unit) => field(label, name, html("input", { type: "number", min: 0, step: "any", placeholder: unit }));
  return html(
    "form", { id: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
    field("Data set", "dataset", select([["", "all"], ...Object.entries(data.titles)])),
    text("Variant", "variant"),
    text("Recipe", "recipe"),
    field("From", "origin", select([["", "all"], ...ORIGINS.map((one) => [one, one])])),
    upTo("Epochs up to", "epochs", "any"),
    upTo("Params up to (M)", "params", "any"),
    html("button", { type: "button", id: "reset", onclick: () => set({ ...PLAIN, ...Object.fromEntries(KEPT.map((name) => [name, state[name]])) }) }, "Reset"),
    html("button", { type: "button", id: "theme", onclick: () => set({ theme: isDark() ? "light" : "dark" }) }, ""),
    html("output", { id: "count" }),
  );
}

const isDark = () => (state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

// --- tables ----------------------------------------------------------------------------------------------------------

const tables = [...document.querySelectorAll("table")];

function prepareTables() {
  for (const table of tables) {
    const heads = [...table.tHead.rows[0].cells];
    table.all = [...table.tBodies[0].rows];
    for (const [at, head] of heads.entries()) {
      const name = head.textContent;
      if (!table.closest("[data-study]"))
        head.replaceChildren(html("button", { type: "button", onclick: () => set({ sort: state.sort === name ? `-${name}` : state.sort === `-${name}` ? "" : name }) }, name));
      if (name.startsWith("to ")) for (const row of table.all) command(row.cells[at]);
      if (name.startsWith("what ")) for (const row of table.all) folded(row.cells[at]);
    }
    for (const [at, row] of table.all.entries()) row.place = at;
  }
  for (const row of document.querySelectorAll("#table-runs tbody tr")) {
    const id = row.cells[0].textContent;
    row.dataset.run = id;
    row.cells[0].replaceChildren(link({ section: "runs", run: id }, id));
  }
  for (const row of document.querySelectorAll("#table-published tbody tr")) {
    const key = row.cells[0].textContent;
    const [title, address] = data.sources[key];
    row.cells[0].replaceChildren(html("a", { href: address, title, rel: "noreferrer" }, key));
  }
  for (const row of document.querySelectorAll("#table-leaderboard tbody tr")) {
    const fact = data.facts[row.dataset.of];
    if (fact.origin === "missing") row.classList.add("missing");
    else row.cells[0].replaceChildren(link({ section: "runs", variant: fact.variant, recipe: fact.recipe, dataset: fact.dataset, run: "", sort: "" }, fact.variant, "its runs"));
  }
}

function command(cell) {
  const text = cell.textContent;
  if (!text.startsWith("python ")) return;
  const code = html("code", { title: text }, text);
  cell.replaceChildren(html("span", { class: "command" }, code, copying(text, code)));
}

// A long text below its beginning.
function folded(cell, most = 60) {
  const text = cell.textContent;
  if (text.length > most) cell.replaceChildren(html("details", {}, html("summary", {}, `${text.slice(0, most)}…`), text));
}

function copying(text, code) {
  const button = html("button", { type: "button", "aria-label": `Copy: ${text}`, onclick: async () => {
    getSelection().selectAllChildren(code);
    await navigator.clipboard?.writeText(text).then(() => (button.textContent = "copied"), () => {});
  } }, "copy");
  return button;
}

function sortKey(text) {
  const number = text.replaceAll(",", "").match(/^[+-]?\d+(\.\d+)?(?![\w.-]*[A-Za-z])(?!\d*-\d)/); // no day
  return number ? Number(number[0]) : text.startsWith(HOLE) || text === "" ? null : text.toLowerCase();
}

function compare(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return one < other ? -1 : one > other ? 1 : 0;
}

// Numbers fall, since the best is wanted on top; words rise. A hole is last in either way.
function sorted(table) {
  const heads = [...table.tHead.rows[0].cells];
  const backwards = state.sort.startsWith("-");
  const at = heads.findIndex((head) => head.textContent === (backwards ? state.sort.slice(1) : state.sort));
  const keys = new Map(table.all.map((row) => [row, at < 0 ? null : sortKey(row.cells[at].textContent)]));
  const numeric = [...keys.values()].some((key) => typeof key === "number");
  const way = numeric === backwards ? 1 : -1;
  for (const [place, head] of heads.entries()) head.ariaSort = place === at ? (way > 0 ? "ascending" : "descending") : null;
  if (at < 0) return table.all;
  return table.all.toSorted((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    return (a === null || b === null ? compare(a, b) : way * compare(a, b)) || one.place - other.place;
  });
}

function showTables(section, isShown) {
  for (const table of section.querySelectorAll("table")) {
    if (!table.closest("[data-study]")) table.tBodies[0].replaceChildren(...sorted(table));
    for (const row of table.all) if (row.dataset.of !== undefined) row.hidden = !isShown[row.dataset.of];
  }
}

// --- which methods are drawn -----------------------------------------------------------------------------------------

const named = (row) => row.join(", ");
const lookOf = (name) => data.looks[name] || UNKNOWN;

const listed = (names) => names.split("\n"); // no name has a line's end

function drawnOf(known) {
  if (state.show === "*") return new Set(known);
  if (state.show) return new Set(listed(state.show).filter((name) => known.includes(name)));
  if (state.hide) return new Set(known.filter((name) => !listed(state.hide).includes(name)));
  return new Set(known.slice(0, MOST_SHOWN));
}

function toggle(known, name) {
  const drawn = drawnOf(known);
  if (!drawn.delete(name)) drawn.add(name);
  choose(known, drawn);
}

// Whichever list is the shorter one stands in the address, with those of it that the filters leave out now.
function choose(known, drawn) {
  const hidden = known.filter((name) => !drawn.has(name));
  const few = known.length <= MOST_SHOWN;
  const joined = (before, names) => [...listed(before).filter((name) => name && !known.includes(name)), ...names].join("\n");
  if (!hidden.length) set({ show: few ? "" : "*", hide: "" });
  else if (hidden.length <= drawn.size || !drawn.size) set({ show: "", hide: joined(state.hide, hidden) });
  else set({ show: joined(state.show === "*" ? "" : state.show, [...drawn]), hide: "" });
}

function swatch(name) {
  return svg("svg", { width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": true }, sample(lookOf(name)));
}

function legend(known) {
  if (!known.length) return null;
  const drawn = drawnOf(known);
  const entries = known.map((name) =>
    html("button", { type: "button", class: "method", "aria-pressed": String(drawn.has(name)), title: drawn.has(name) ? "hide" : "show", onclick: () => toggle(known, name),
      onpointerenter: () => near(name), onpointerleave: () => near("") }, swatch(name), plainName(name)));
  return html("div", { class: "legend", role: "group", "aria-label": "Methods" },
    html("button", { type: "button", onclick: () => choose(known, new Set(known)) }, "show all"),
    html("button", { type: "button", onclick: () => choose(known, new Set()) }, "hide all"),
    html("span", { class: "nothing" }, `${drawn.size} of ${known.length} shown`), entries);
}

function near(name) {
  for (const drawing of document.querySelectorAll("main svg[role=img]")) {
    drawing.classList.toggle("focused", Boolean(name));
    for (const group of drawing.querySelectorAll(".series")) group.classList.toggle("near", group.dataset.series === name);
  }
}

// --- parts of the sections -------------------------------------------------------------------------------------------

let isShown = [];
const rowsShown = () => new Set(data.facts.filter((_, at) => isShown[at]).map((fact) => `${fact.dataset}\n${fact.variant}, ${fact.recipe}`));
const nothing = (text) => html("p", { class: "nothing" }, text);

// Of each of so many charts: side by side where there is room for two.
function widthOf(place, charts = 1) {
  const whole = Math.max(280, place.clientWidth || 320);
  return charts > 1 && whole >= 2 * 400 ? Math.floor((whole - 24) / 2) : Math.min(whole, 860);
}

function choice(label, name, options) {
  const control = html("select", { onchange: () => set({ [name]: control.value }) }, options.map(([value, text]) => html("option", { value, selected: value === state[name] }, text)));
  control.value = options.some(([value]) => value === state[name]) ? state[name] : options[0][0];
  control.id = `choose-${name}`;
  return html("label", { for: control.id }, html("span", {}, label), control);
}

// What charts have in common that draw methods of each data set: `panels` of [data set, lines], each line with its row.
function methods(place, panels, draw, controls = []) {
  const shown = rowsShown();
  const kept = panels.map(([dataset, lines]) => [dataset, lines.filter((line) => shown.has(`${dataset}\n${named(line.row)}`))]).filter(([, lines]) => lines.length);
  const known = different(kept.flatMap(([, lines]) => lines.map((line) => named(line.row))));
  const drawn = drawnOf(known);
  place.append(html("div", { class: "controls" }, controls), legend(known) || nothing("Nothing to draw for what passes the filters."));
  const charts = kept.map(([dataset, lines]) => draw(dataset, lines.filter((line) => drawn.has(named(line.row))), widthOf(place, kept.length)));
  const side = html("div", { class: "charts" }, charts.filter(Boolean).map((chart) => chart.element()));
  place.append(side);
  return side;
}

const DRAW = {
  leaderboard(place) {
    const order = [...document.querySelectorAll("#table-leaderboard tbody tr")].filter((row) => !row.hidden && !row.classList.contains("missing"));
    const cells = order.map((row) => Number(row.dataset.of)).filter((at) => data.means[at]);
    if (!cells.length) return;
    const shown = cells.slice(0, MOST_DOTS);
    const more = cells.length > shown.length ? `, the first ${shown.length} of ${cells.length} cells` : "";
    const single = different(shown.map((at) => data.facts[at].dataset)).length === 1;
    const rows = shown.map((at) => {
      const fact = data.facts[at];
      const name = `${fact.variant}, ${fact.recipe}`;
      return { label: plainName(single ? name : `${name} · ${data.titles[fact.dataset]}`), series: name, look: lookOf(name), clear: true, ...data.means[at] };
    });
    place.append(dots("leaderboard", `Test accuracy (%)${single ? ` on ${data.titles[data.facts[shown[0]].dataset]}` : ""}${more}`, rows, place, { within: [0, 100], write: (row) => spread(row.mean, row.half) }).element());
  },

  published(place) {
    const rows = data.published.filter((row) => isShown[row.of] && row.mean !== null);
    if (!rows.length) return;
    const marked = rows.map((row) => ({ ...row, label: `${row.variant} · ${data.titles[row.dataset]} (${row.source})`, look: lookOf(`${row.variant}, ${row.recipe}`), clear: row.verdict === "reached" }));
    place.append(dots("published", "Our mean minus the published number (points)", marked, place, { zero: true, write: (row) => `${signed(row.mean)}${row.half === null ? "" : ` ± ${row.half.toFixed(2)}`}: ${row.verdict}` }).element());
  },

  studies(place, section) {
    let shown = 0;
    for (const article of section.querySelectorAll("article")) {
      const study = data.studies[article.dataset.study];
      article.hidden = !study.of.some((at) => isShown[at]);
      if (article.hidden) continue;
      shown += 1;
      const spot = article.querySelector(".drawn");
      const rows = study.rows.filter((row) => row.mean !== null).map((row) => ({ ...row, look: ["#0072B2", "o", "-", row.clear ? "full" : "none"] }));
      const charts = [];
      if (rows.length) {
        const write = (row) => `${signed(row.mean)}${row.half === null ? "" : ` ± ${row.half.toFixed(2)}`} points against ${row.against}\nn = ${row.n}, Holm p = ${row.holm}: ${row.verdict}${row.changed ? `\n${row.changed}` : ""}`;
        charts.push(dots(`study-${study.name}`, `Points of accuracy against ${different(rows.map((row) => row.against)).length > 1 ? "the first level of each factor" : rows[0].against} (filled: Holm p ≤ .05)`, rows, spot, { zero: true, write }));
      }
      if (study.along) charts.push(along(study, spot));
      spot.replaceChildren(html("div", { class: "charts" }, charts.map((chart) => chart.element())), ...(study.along ? [key(study.along)] : []));
    }
    if (!shown) place.append(nothing("No study passes the filters."));
  },

  curves(place) {
    const kinds = [["", "accuracy"], ["loss", "loss"]];
    const panels = Object.entries(data.curves).map(([dataset, of]) => [dataset, of.lines]);
    const kind = state.kind === "loss" ? "loss" : "accuracy";
    methods(place, panels, (dataset, lines, width) => {
      const { split, title } = data.curves[dataset];
      return curves(`${kind}-${dataset}`, `${title}: ${split === "val" ? "validation" : "test"} ${kind}${kind === "loss" ? "; thin: training loss" : " (%)"}; bands: lowest to highest seed`, lines.filter((line) => line[kind].epoch.length), kind, width);
    }, choice("Show", "kind", kinds));
  },

  costs(place) {
    const options = Object.entries(data.costs).map(([name, of], at) => [at ? name : "", of.x_label]);
    const against = state.against in data.costs ? state.against : Object.keys(data.costs)[0];
    const cost = data.costs[against];
    const titles = Object.fromEntries(Object.entries(data.titles).map(([name, text]) => [text, name]));
    methods(place, cost.panels.map((panel) => [titles[panel.title], panel.points]), (dataset, points, width) => points.length ? tradeoff(`accuracy-vs-${against}-${dataset}`, data.titles[dataset], points, cost.x_label, width) : null, choice("Against", "against", options));
    if (cost.heading) place.append(html("p", {}, cost.heading));
  },

  quality(place) {
    const panels = Object.entries(data.reliability).map(([dataset, of]) => [dataset, of.panels]);
    const side = methods(place, panels, (dataset, lines, width) => (lines.length ? reliability(dataset, lines, Math.min(width, 400)) : null));
    const shown = rowsShown();
    const known = (dataset, line) => shown.has(`${dataset}\n${named(line.row)}`);
    const all = different(panels.flatMap(([dataset, lines]) => lines.filter((line) => known(dataset, line)).map((line) => named(line.row))));
    const drawn = drawnOf(all);
    const charts = Object.entries(data.robustness).map(([dataset, of]) => {
      const lines = of.lines.filter((line) => known(dataset, line) && (drawn.has(named(line.row)) || !all.includes(named(line.row))));
      return lines.length ? robustness(dataset, of.title, lines, widthOf(place, 2)) : null;
    });
    side.append(...charts.filter(Boolean).map((chart) => chart.element()));
    place.append(confusions(place, known));
  },

  runs(place) {
    const at = data.runs.findIndex((run) => run.id === state.run);
    if (at >= 0) place.append(runPanel(data.runs[at], place));
    else if (state.run) place.append(nothing(`There is no run ${state.run} on this page.`));
  },
};

// --- charts ----------------------------------------------------------------------------------------------------------

// A row for each thing that has a mean and perhaps an interval, all on one axis.
function dots(name, title, rows, place, { zero = false, within, write }) {
  const whole = widthOf(place);
  const longest = Math.max(...rows.map((row) => row.label.length));
  const narrow = whole < 500; // labels stand above their marks
  const left = narrow ? 16 : Math.min(Math.round(whole * 0.5), 18 + 7 * longest);
  const most = Math.floor(narrow ? (whole - 20) / 6.4 : (left - 12) / 7);
  const cut = (text) => (text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2) + 1)}` : text);
  const ends = rows.flatMap((row) => [row.mean - (row.half || 0), row.mean + (row.half || 0)]);
  const chart = new Chart({
    name, title, width: whole, height: 44 + (narrow ? 36 : 22) * rows.length, left, right: 16,
    x: { range: range(zero ? [...ends, 0] : ends, { within }) },
    y: { range: [rows.length - 0.4, -0.6], ticks: narrow ? [] : rows.map((row, at) => [at, cut(row.label)]) },
  });
  chart.rows = [["row", "mean", "half-width", "n"]];
  if (zero) chart.rule([[0, -0.6], [0, rows.length - 0.4]]);
  for (const [at, row] of rows.entries()) {
    const group = chart.series(row.series || "");
    const look = [row.look[0], row.look[1], row.look[2], row.clear ? "full" : "none"];
    if (narrow) chart.marks.append(svg("text", { x: left, y: fixed(chart.y(at) - 9), fill: "currentColor" }, cut(row.label)));
    chart.interval(group, [row.mean, at], row.half, look, "x");
    chart.marker(group, row.mean, at, look);
    chart.spot(row.mean, at, `${row.label}\n${write(row)}${row.n ? `\n${row.n} seed${row.n > 1 ? "s" : ""}` : ""}`);
    chart.rows.push([row.label, row.mean, row.half, row.n]);
  }
  return chart;
}

function curves(name, title, lines, kind, width) {
  if (!lines.length) return null;
  const values = lines.flatMap((line) => [...line[kind].mean, ...(line[kind].low || []), ...(line[kind].high || []), ...(kind === "loss" ? line.train_loss.mean : [])]);
  const epochs = lines.flatMap((line) => line[kind].epoch);
  const chart = new Chart({ name, title, width, height: 330, x: { label: "epochs", range: [Math.min(0, ...epochs), Math.max(1, ...epochs)] }, y: { range: range(values, { within: kind === "loss" ? [0, Infinity] : [0, 100] }) } });
  chart.rows = [["method", "epoch", "mean", "lowest seed", "highest seed", "n"]];
  for (const line of lines) {
    const [method, series] = [named(line.row), line[kind]];
    const look = lookOf(method);
    const group = chart.series(method, look);
    const over = (values) => values.map((value, at) => [series.epoch[at], value]);
    if (series.low) chart.band(group, over(series.low), over(series.high), look);
    if (kind === "loss") chart.line(group, line.train_loss.mean.map((value, at) => [line.train_loss.epoch[at], value]), look, { "stroke-width": 0.8, "stroke-opacity": 0.6 });
    chart.line(group, over(series.mean), look);
    for (const [at, epoch] of series.epoch.entries()) {
      const spread = series.low ? ` (${short(series.low[at])} to ${short(series.high[at])})` : "";
      chart.spot(epoch, series.mean[at], `${plainName(method)}\nepoch ${epoch}: ${short(series.mean[at])}${spread}\n${line.n} seed${line.n > 1 ? "s" : ""}`, method);
      chart.rows.push([method, epoch, series.mean[at], series.low?.[at], series.high?.[at], line.n]);
    }
  }
  return chart;
}

// The points that no other equals or beats in both.
function front(points) {
  const best = [];
  for (const point of points.toSorted((one, other) => one.x - other.x || other.mean - one.mean)) if (!best.length || point.mean > best.at(-1).mean) best.push(point);
  return best;
}

function tradeoff(name, title, points, label, width) {
  const ends = points.flatMap((point) => [point.mean - (point.half || 0), point.mean + (point.half || 0)]);
  const best = front(points);
  const dashed = best.length > 1 ? "; dashed: the Pareto front of what is shown" : "";
  const chart = new Chart({ name, title: `${title}: test accuracy (%) against ${label}${dashed}`, width, height: 330, x: { label, log: true, range: range(points.map((point) => point.x), { log: true }) }, y: { range: range(ends, { within: [0, 100] }) } });
  chart.rows = [["method", label, "mean", "half-width", "n", "on the Pareto front"]];
  const steps = best.flatMap((point, at) => (at ? [[point.x, best[at - 1].mean], [point.x, point.mean]] : [[point.x, point.mean]]));
  if (best.length > 1) chart.rule(steps, { "stroke-dasharray": "4 3" });
  for (const point of points) {
    const method = named(point.row);
    const group = chart.series(method, lookOf(method));
    chart.interval(group, [point.x, point.mean], point.half, lookOf(method), "y");
    chart.marker(group, point.x, point.mean, lookOf(method));
    const on = best.includes(point);
    chart.spot(point.x, point.mean, `${plainName(method)}\n${spread(point.mean, point.half)} %, ${short(point.x)} ${label}\n${point.n} seed${point.n > 1 ? "s" : ""}${on && best.length > 1 ? ", on the Pareto front" : ""}`, method);
    chart.rows.push([method, point.x, point.mean, point.half, point.n, on ? "yes" : "no"]);
  }
  return chart;
}

function reliability(dataset, lines, width) {
  const chart = new Chart({ name: `reliability-${dataset}`, title: `${data.titles[dataset]}: accuracy at each confidence (bins of ≥ 0.5 % of the images)`, width, height: Math.min(width, 400), x: { label: "confidence (%)", range: [0, 100] }, y: { label: "accuracy (%)", range: [0, 100] } });
  chart.rows = [["method", "confidence", "accuracy", "share of images (%)", "calibration error (%)", "n"]];
  chart.rule([[0, 0], [100, 100]], { "stroke-dasharray": "2 3" });
  for (const line of lines) {
    const method = named(line.row);
    const look = lookOf(method);
    const group = chart.series(method, look);
    const kept = line.confidence.map((x, at) => [x, line.accuracy[at], line.share[at]]).filter(([, , share]) => share >= 0.5);
    chart.line(group, kept, look);
    for (const [x, y, share] of kept) {
      chart.marker(group, x, y, look);
      chart.spot(x, y, `${plainName(method)}\nconfidence ${short(x)} %, accuracy ${short(y)} %\n${short(share)} % of the images; calibration error ${short(line.error)} %`, method);
    }
    for (const [at, x] of line.confidence.entries()) chart.rows.push([method, x, line.accuracy[at], line.share[at], line.error, line.n]);
  }
  return chart;
}

function robustness(dataset, title, lines, width) {
  const strongest = Math.max(...lines.map((line) => line.accuracy.length)) - 1;
  const chart = new Chart({ name: `robustness-${dataset}`, title: `${title}: test accuracy (%) on corrupted images, mean over kinds`, width, height: 330, x: { label: "strength (0: none)", range: [0, strongest], ticks: Array.from({ length: strongest + 1 }, (_, at) => [at, String(at)]) }, y: { range: range(lines.flatMap((line) => line.accuracy), { within: [0, 100] }) } });
  chart.rows = [["method", "strength", "accuracy", "n"]];
  for (const line of lines) {
    const method = named(line.row);
    const group = chart.series(method, lookOf(method));
    chart.line(group, line.accuracy.map((y, x) => [x, y]), lookOf(method));
    for (const [x, y] of line.accuracy.entries()) {
      chart.marker(group, x, y, lookOf(method));
      chart.spot(x, y, `${plainName(method)}\nstrength ${x}: ${short(y)} %\n${line.n} seed${line.n > 1 ? "s" : ""}`, method);
      chart.rows.push([method, x, y, line.n]);
    }
  }
  return chart;
}

function along(study, place) {
  const { along: of, name } = study;
  const points = of.lines.flatMap((line) => line.points);
  const ends = points.flatMap((point) => [point.mean - (point.half || 0), point.mean + (point.half || 0)]);
  const x = of.log ? range(of.ticks.map(([tick]) => tick), { log: true }) : [-0.4, of.ticks.length - 0.6];
  const chart = new Chart({ name: `along-${name}`, title: `${of.y_label} along ${of.x_label.replaceAll("\n", " ")}`, width: widthOf(place), height: 330, x: { label: of.x_label.split(",")[0], range: x, log: of.log, ticks: of.ticks }, y: { range: range(ends, { within: [0, 100] }) } });
  chart.rows = [[of.legend || "method", of.x_label.replaceAll("\n", " "), "mean", "half-width", "n"]];
  for (const line of of.lines) {
    const look = lookOf(`${line.name}, published`);
    const group = chart.series(line.name);
    chart.looks.set(levelOf(of, line), look);
    chart.line(group, line.points.map((point) => [point.x, point.mean]), look);
    for (const point of line.points) {
      chart.interval(group, [point.x, point.mean], point.half, look, "y");
      chart.marker(group, point.x, point.mean, look);
      const tick = of.ticks.find(([x]) => x === point.x);
      chart.spot(point.x, point.mean, `${levelOf(of, line)}, ${tick ? tick[1] : short(point.x)}\n${spread(point.mean, point.half)} %\n${point.n} seed${point.n > 1 ? "s" : ""}`, line.name);
      chart.rows.push([line.name, tick ? tick[1] : point.x, point.mean, point.half, point.n]);
    }
  }
  return chart;
}

const levelOf = ({ legend }, { name }) => (legend ? `${legend}=${name}` : name);

function key(of) {
  return html("div", { class: "legend" }, of.lines.map((line) => html("span", { class: "method" }, swatch(`${line.name}, published`), levelOf(of, line))));
}

function confusions(place, known) {
  const cells = Object.entries(data.confusion).flatMap(([dataset, of]) => of.panels.filter((panel) => known(dataset, panel)).map((panel) => [`${dataset}|${named(panel.row)}`, `${of.title}: ${plainName(named(panel.row))}`, panel]));
  if (!cells.length) return nothing("No run that passes the filters has predictions.");
  const [id, title, panel] = cells.find(([name]) => name === state.cell) || cells[0];
  const controls = html("div", { class: "controls" }, choice("Confusion matrix of", "cell", cells.map(([name, text], at) => [at ? name : "", text])));
  const width = Math.min(widthOf(place), 560);
  const drawn = panel.share ? matrix(id, title, panel, width) : pairs(id, title, panel, place);
  return html("div", {}, controls, html("div", { class: "charts" }, drawn.element()));
}

function matrix(id, title, panel, width) {
  const ticks = Array.from({ length: panel.classes }, (_, at) => [at, String(at)]);
  const chart = new Chart({ name: `confusion-${id}`, title: `${title}: share of the true class's images (%)`, width, height: width, x: { label: "predicted class", range: [-0.5, panel.classes - 0.5], ticks, bare: true }, y: { label: "true class", range: [panel.classes - 0.5, -0.5], ticks } });
  chart.rows = [["true class", "predicted class", "share (%)"]];
  const side = [Math.abs(chart.x(1) - chart.x(0)), Math.abs(chart.y(1) - chart.y(0))];
  for (const [of, line] of panel.share.entries()) {
    for (const [as, share] of line.entries()) {
      const [x, y] = [chart.x(as), chart.y(of)];
      const colour = { fill: of === as ? "#0072B2" : "#D55E00", "fill-opacity": Number((0.02 + 0.85 * Math.sqrt(share / 100)).toFixed(3)) };
      chart.marks.append(svg("rect", { x: fixed(x - side[0] / 2), y: fixed(y - side[1] / 2), width: fixed(side[0] - 1), height: fixed(side[1] - 1), ...colour }));
      if (panel.classes <= 12 && share >= 1) chart.marks.append(svg("text", { x: fixed(x), y: fixed(y + 4), "text-anchor": "middle", "font-size": 11, fill: "currentColor" }, String(Math.round(share))));
      chart.spot(as, of, `class ${of} → ${as}: ${short(share)} %`);
      chart.rows.push([of, as, share]);
    }
  }
  return chart;
}

function pairs(id, title, panel, place) {
  const rows = panel.pairs.map(([of, as, share]) => ({ label: `class ${of} → ${as}`, mean: share, half: null, look: ["#D55E00", "o", "-", "full"], clear: true }));
  return dots(`confusion-${id}`, `${title}: the pairs that are confused most, share of the true class's images (%)`, rows, place, { within: [0, 100], write: (row) => `${short(row.mean)} %` });
}

// --- one run ---------------------------------------------------------------------------------------------------------

function definitions(pairs) {
  return html("dl", {}, pairs.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]).flat());
}

const MACHINE = "machine: ";

function runPanel(run, place) {
  const fact = data.facts[run.cell];
  const method = `${fact.variant}, ${fact.recipe}`;
  const row = document.querySelector(`#table-runs tr[data-run="${CSS.escape(run.id)}"]`);
  const again = row ? row.cells[row.cells.length - 1].textContent.replace(/copy$|copied$/, "") : "";
  const code = html("code", {}, again);
  const ofCell = data.runs.filter((other) => other.cell === run.cell);
  const lines = ofCell.filter((other) => other.curve.epoch.length).map((other) => ({ row: [`seed ${other.seed}`], n: 1, accuracy: other.curve, own: other === run }));
  const own = Object.entries(run.own);
  const all = Object.entries({ ...data.fields, ...data.shared[run.cell] }).filter(([, value]) => value !== null);
  const shared = all.filter(([name]) => !name.startsWith(MACHINE));
  const machine = [...own, ...all].filter(([name]) => name.startsWith(MACHINE)).map(([name, value]) => [name.slice(MACHINE.length), value]);
  const chart = lines.length ? seedCurves(run, lines, widthOf(place)) : null;
  return html(
    "article", { class: "run", id: "run", tabindex: -1 },
    html("h3", {}, run.id),
    html("p", {}, `${plainName(method)} on ${data.titles[fact.dataset]}, seed ${run.seed}, ${run.origin}`, run.failed ? html("b", {}, ` — failed: ${run.failed}`) : null),
    again ? html("p", { class: "command wrap" }, code, again.startsWith("python") ? copying(again, code) : null) : null,
    definitions(Object.entries(run.measured).map(([name, value]) => [name, short(value)])),
    chart ? html("div", { class: "charts" }, chart.element()) : nothing("There are no epochs in its record."),
    run.picture ? html("figure", {}, html("figcaption", {}, "Attention maps (harness.look)"), picture(run)) : null,
    html("h4", {}, "What differs from other runs of its cell"),
    own.length ? definitions(own) : nothing(ofCell.length > 1 ? "Nothing but the seed." : "It is the only one."),
    html("details", {}, html("summary", {}, "Its environment"), definitions(machine)),
    html("details", {}, html("summary", {}, `The ${shared.length} fields that all runs of the cell share`), definitions(shared)),
    html("button", { type: "button", onclick: () => set({ run: "" }, true) }, "Close"),
  );
}

// Only so many pictures are in this file; of the others their place is.
function picture(run) {
  return run.picture.startsWith("data:") ? html("img", { src: run.picture, alt: `Attention maps of ${run.id}` }) : html("code", {}, run.picture);
}

function seedCurves(run, lines, width) {
  const chart = curves(`curve-${run.id}`, "Accuracy (%) by epoch; pale: the other seeds", lines, "accuracy", width);
  chart.looks.clear();
  for (const group of chart.marks.querySelectorAll(".series")) {
    const own = group.dataset.series === `seed ${run.seed}`;
    for (const path of group.children) {
      path.setAttribute("stroke", own ? "#0072B2" : "currentColor");
      path.setAttribute("stroke-opacity", own ? 1 : 0.3);
    }
  }
  return chart;
}

// --- everything ------------------------------------------------------------------------------------------------------

function render() {
  isShown = passing();
  document.documentElement.dataset.theme = state.theme;
  for (const section of sections) section.hidden = section.name !== state.section;
  for (const link of document.querySelectorAll("nav a")) {
    const id = link.dataset.section;
    link.setAttribute("href", address({ ...state, section: id, sort: "", run: "" }));
    link.ariaCurrent = id === state.section ? "page" : null;
  }
  for (const name of ["dataset", "variant", "recipe", "origin", "epochs", "params"]) {
    const control = document.getElementById(`filter-${name}`);
    if (control.value !== state[name]) control.value = state[name];
  }
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  const section = sectionShown();
  showTables(section, isShown);
  const rows = [...section.querySelectorAll("tr[data-of]")];
  document.getElementById("count").textContent = rows.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
  hideTip();
  const place = section.querySelector(".drawn");
  place.replaceChildren();
  DRAW[section.name](place, section);
  if (rows.length && rows.every((row) => row.hidden)) place.append(nothing("No row passes the filters."));
}

function begin() {
  for (const link of document.querySelectorAll("nav a")) {
    link.dataset.section = link.getAttribute("href").slice(1);
    link.addEventListener("click", (event) => go(event, { section: link.dataset.section, sort: "", run: "" }));
  }
  document.querySelector("header").after(filterBar());
  document.body.append(tip);
  for (const head of document.querySelectorAll("h2")) head.tabIndex = -1;
  prepareTables();
  for (const spot of document.querySelectorAll("[data-command]")) command(spot);
  let width = innerWidth;
  addEventListener("resize", () => innerWidth !== width && ((width = innerWidth), requestAnimationFrame(() => set({}))));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set({}));
  render();
  scrollTo(0, 0);
}

begin();
