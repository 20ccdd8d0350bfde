// Draws the partitions of a pipeline's chains. One byte a partition; far away, each is one pixel of an image, near, only
// those that are seen are drawn. Nothing is asked of the server while one moves.

const box = document.getElementById("calendar");
const canvas = document.getElementById("calendar-canvas");
const context = canvas.getContext("2d", { alpha: false });
const rangeOutput = document.getElementById("calendar-range");
const cellOutput = document.getElementById("calendar-cell");
const panel = document.getElementById("calendar-partition");
const rows = [...box.querySelectorAll(".rows li")].map((each) => ({
  name: each.textContent,
  url: each.dataset.url,
  page: each.dataset.page,
  chosen: "chosen" in each.dataset,
  tag: null,
  cells: null,
}));

const LANE = 18; // above each row: marks
const AXIS = 22;
const LABEL = 16;
const GAP = 6;
const DAY = 86_400_000;
const GLYPHS = { promotion: "▲", rewind: "↶", fork: "├", adoption: "├", stop: "■", regrid: "▦", head: "◆" };

let colors = [];
let ink = "#000";
let minor = "#555";
let paper = "#fff";
// what is seen, in milliseconds since 1970, and the partition that the keyboard is at
let from = 0;
let to = 1;
let cursor = null;
let drawing = false;
const image = document.createElement("canvas");
const imageContext = image.getContext("2d", { alpha: false });
const frames = [];

// -- where partitions are ---------------------------------------------------------------------------------------------

function startOf(row, number) {
  if (row.seconds) return row.origin + number * row.seconds * 1000;
  const first = new Date(row.origin);
  return Date.UTC(first.getUTCFullYear(), first.getUTCMonth() + number * row.months, first.getUTCDate());
}

function placeOf(row, moment) {
  if (row.seconds) return Math.floor((moment - row.origin) / (row.seconds * 1000));
  const first = new Date(row.origin);
  const at = new Date(moment);
  const months = (at.getUTCFullYear() - first.getUTCFullYear()) * 12 + at.getUTCMonth() - first.getUTCMonth();
  const place = Math.floor(months / row.months);
  return startOf(row, place) > moment ? place - 1 : place;
}

async function load(row) {
  const answer = await fetch(row.url, row.tag ? { headers: { "If-None-Match": row.tag } } : {});
  if (answer.status === 304 || !answer.ok) return false;
  row.tag = answer.headers.get("ETag");
  const data = await answer.json();
  const cells = new Uint8Array(data.count).fill(data.states.indexOf("absent"));
  let place = 0;
  for (let at = 0; at < data.ranges.length; at += 3) {
    place += data.ranges[at];
    cells.fill(data.ranges[at + 2], place, place + data.ranges[at + 1]);
    place += data.ranges[at + 1];
  }
  Object.assign(row, data, { cells, ends: startOf({ ...data }, data.count) });
  return true;
}

function bounds() {
  const known = rows.filter((row) => row.cells && row.count);
  if (!known.length) return [0, 1];
  return [Math.min(...known.map((row) => row.origin)), Math.max(...known.map((row) => row.ends))];
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const states = rows.find((row) => row.cells)?.states || [];
  colors = states.map((state) => style.getPropertyValue("--p-" + state).trim());
  ink = style.getPropertyValue("--ink").trim();
  minor = style.getPropertyValue("--minor").trim();
  paper = style.getPropertyValue("--card").trim();
}

function packed(color) {
  const number = parseInt(color.slice(1), 16);
  return 0xff000000 | ((number & 0xff) << 16) | (number & 0xff00) | (number >> 16);
}

let size = { width: 0, height: 0, ratio: 1, band: 0 };

function resize() {
  const width = canvas.clientWidth;
  const room = Math.min(560, Math.max(150, innerHeight * 0.5));
  const band = Math.max(28, Math.min(110, (room - AXIS) / rows.length - LANE - LABEL - GAP));
  const height = Math.round(AXIS + rows.length * (LANE + LABEL + band + GAP));
  const ratio = devicePixelRatio || 1;
  size = { width, height, ratio, band };
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  ask();
}

function ask() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame((began) => {
    drawing = false;
    draw();
    frames.push(performance.now() - began);
    if (frames.length > 240) frames.shift();
  });
}

function x(moment) {
  return ((moment - from) / (to - from)) * size.width;
}

function draw() {
  context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
  context.fillStyle = paper;
  context.fillRect(0, 0, size.width, size.height);
  let top = 0;
  for (const row of rows) {
    context.fillStyle = row.chosen ? ink : minor;
    context.font = `${row.chosen ? "600 " : ""}12px system-ui, sans-serif`;
    context.textAlign = "left";
    context.fillText(row.name, 4, top + 12);
    top += LABEL;
    if (row.cells) {
      drawMarks(row, top);
      drawCells(row, top + LANE);
    }
    row.top = top + LANE;
    top += LANE + size.band + GAP;
  }
  drawAxis(top);
  say();
}

function drawCells(row, top) {
  const first = Math.max(0, placeOf(row, from));
  const last = Math.min(row.count, placeOf(row, to) + 1);
  if (last <= first) return;
  const left = x(startOf(row, first));
  const width = (x(startOf(row, last)) - left) / (last - first);
  if (width >= 3) {
    drawNear(row, top, first, last);
    drawBorders(row, top);
  } else drawFar(row, top, first, last, left, x(startOf(row, last)));
  if (cursor !== null && row.chosen) {
    const at = x(startOf(row, cursor));
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(at, top - 1, Math.max(2, x(startOf(row, cursor + 1)) - at), size.band + 2);
  }
}

function drawNear(row, top, first, last) {
  for (let place = first; place < last; place++) {
    const left = x(startOf(row, place));
    const right = x(startOf(row, place + 1));
    context.fillStyle = colors[row.cells[place]];
    context.fillRect(left, top, Math.max(1, right - left - 1), size.band);
  }
}

// each partition is a pixel: a column of pixels holds as many as there is room for
function drawFar(row, top, first, last, left, right) {
  const count = last - first;
  const columns = Math.max(1, Math.min(count, Math.round((right - left) * size.ratio)));
  const deep = Math.ceil(count / columns);
  const wide = Math.ceil(count / deep);
  const pixels = imageContext.createImageData(wide, deep);
  const words = new Uint32Array(pixels.data.buffer);
  const palette = new Uint32Array(colors.map(packed));
  words.fill(palette[row.cells[last - 1]]);
  const cells = row.cells;
  let column = 0;
  let line = 0;
  for (let place = first; place < last; place++) {
    words[line * wide + column] = palette[cells[place]];
    if (++line === deep) {
      line = 0;
      column++;
    }
  }
  image.width = wide;
  image.height = deep;
  imageContext.putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, left, top, right - left, size.band);
}

// of what is seen, where checkpoints end: asked for once a view has stood still, as far as they can be told apart
let borders = { row: null, first: 0, end: 0, places: [] };
let asking = 0;

function askForBorders() {
  clearTimeout(asking);
  const row = chosen();
  if (!row) return;
  const first = Math.max(0, placeOf(row, from));
  const end = Math.min(row.count, placeOf(row, to) + 1);
  const wide = ((to - from) / (end - first) / (to - from)) * size.width >= 3;
  if (!wide || end <= first || (borders.row === row && borders.first <= first && borders.end >= end)) return;
  asking = setTimeout(async () => {
    const answer = await fetch(`${row.page}/borders.json?first=${first}&end=${end}`);
    if (!answer.ok) return;
    borders = { row, first, end, places: await answer.json() };
    ask();
  }, 200);
}

function drawBorders(row, top) {
  if (borders.row !== row) return;
  context.fillStyle = ink;
  for (const [place] of borders.places) {
    const at = x(startOf(row, place + 1));
    if (at >= 0 && at <= size.width) context.fillRect(at - 1, top - 4, 2, size.band + 4);
  }
}

function drawMarks(row, top) {
  context.font = "13px system-ui, sans-serif";
  context.textAlign = "center";
  let before = -Infinity;
  for (const [place, kind] of row.marks) {
    const at = x(startOf(row, place));
    if (at < 0 || at > size.width || (kind !== "head" && at - before < 8)) continue;
    before = at;
    context.fillStyle = kind === "stop" ? colors[row.states.indexOf("refused")] : ink;
    context.fillText(GLYPHS[kind] || "•", Math.min(size.width - 7, Math.max(7, at)), top + 13);
  }
}

const STEPS = [
  ["hour", 3_600_000], ["6 hours", 6 * 3_600_000], ["day", DAY], ["week", 7 * DAY], ["month", 30 * DAY],
  ["quarter", 91 * DAY], ["year", 365 * DAY], ["5 years", 1826 * DAY],
];

function ticks() {
  const room = ((to - from) / size.width) * 90;
  const [name, step] = STEPS.find((each) => each[1] >= room) || STEPS[STEPS.length - 1];
  const found = [];
  const begin = new Date(from);
  for (let number = 0; number < 60; number++) {
    let at;
    if (step >= 30 * DAY) {
      const months = { month: 1, quarter: 3, year: 12, "5 years": 60 }[name];
      const first = Math.floor((begin.getUTCFullYear() * 12 + begin.getUTCMonth()) / months) * months;
      const moved = new Date(Date.UTC(2000, 0));
      moved.setUTCFullYear(Math.floor((first + number * months) / 12), (first + number * months) % 12, 1);
      at = moved.getTime();
    } else {
      at = Math.floor(from / step) * step + number * step;
    }
    if (at > to) break;
    if (at >= from) found.push([at, label(at, step)]);
  }
  return found;
}

function label(moment, step) {
  const text = new Date(moment).toISOString();
  if (step >= 365 * DAY) return text.slice(0, 4);
  if (step >= 30 * DAY) return text.slice(0, 7);
  if (step >= DAY) return text.slice(0, 10);
  return text.slice(5, 16).replace("T", " ");
}

function drawAxis(top) {
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "left";
  context.fillStyle = minor;
  for (const [at, text] of ticks()) {
    context.fillRect(x(at), top - GAP, 1, 6);
    context.fillText(text, x(at) + 4, top + 10);
  }
}

function written(moment) {
  const text = new Date(moment).toISOString();
  return text.endsWith("T00:00:00.000Z") ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

function say() {
  const text = `${written(from)} … ${written(to)}`;
  if (rangeOutput.textContent !== text) rangeOutput.textContent = text;
}

// -- moving -----------------------------------------------------------------------------------------------------------

function see(begin, end) {
  const [least, most] = bounds();
  const shortest = Math.min(...rows.filter((row) => row.cells).map((row) => (row.seconds || row.months * 2_629_746) * 1000));
  const length = Math.max(shortest * 2, Math.min(most - least, end - begin));
  from = Math.max(least, Math.min(begin, most - length));
  to = from + length;
  ask();
  askForBorders();
  remember();
}

function zoom(factor, around = (from + to) / 2) {
  see(around - (around - from) * factor, around + (to - around) * factor);
}

function pan(share) {
  const by = (to - from) * share;
  see(from + by, to + by);
}

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const place = new URL(location.href);
    const [least, most] = bounds();
    const all = from <= least && to >= most;
    for (const [name, value] of [["from", from], ["to", to]]) {
      if (all) place.searchParams.delete(name);
      else place.searchParams.set(name, new Date(value).toISOString().slice(0, 16) + "Z");
    }
    history.replaceState(null, "", place);
  }, 250);
}

function recall() {
  const query = new URLSearchParams(location.search);
  const [least, most] = bounds();
  const begin = Date.parse(query.get("from") || "");
  const end = Date.parse(query.get("to") || "");
  see(Number.isNaN(begin) ? least : begin, Number.isNaN(end) ? most : end);
  const at = Date.parse(query.get("at") || "");
  const row = chosen();
  if (!Number.isNaN(at) && row) show(row, placeOf(row, at));
}

function chosen() {
  return rows.find((row) => row.chosen && row.cells);
}

// -- one partition ----------------------------------------------------------------------------------------------------

function tell(row, place) {
  if (place < 0 || place >= row.count) {
    cellOutput.textContent = "";
    return;
  }
  const state = row.states[row.cells[place]].replaceAll("_", " ");
  const marks = row.marks.filter((mark) => mark[0] === place || mark[0] === place + 1).map((mark) => mark[2]);
  cellOutput.textContent = [`${row.name}: ${written(startOf(row, place))} ${state}`, ...marks].join(" · ");
}

async function show(row, place) {
  if (place < 0 || place >= row.count) return;
  const start = new Date(startOf(row, place)).toISOString().slice(0, 19) + "Z";
  const address = `${row.page}/partitions/${encodeURIComponent(start)}`;
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById("partition") || page.getElementById("main");
  const title = document.createElement("h3");
  const link = document.createElement("a");
  link.href = address;
  link.textContent = `Partition ${written(startOf(row, place))}`;
  title.append(link);
  // links of that page are relative to its own place
  const place_ = new URL(address, location.href);
  for (const each of found.querySelectorAll("a[href]")) each.href = new URL(each.getAttribute("href"), place_).href;
  panel.replaceChildren(title, found);
  panel.hidden = false;
  const url = new URL(location.href);
  url.searchParams.set("at", start);
  history.replaceState(null, "", url);
}

function under(event) {
  const rect = canvas.getBoundingClientRect();
  const moment = from + ((event.clientX - rect.left) / rect.width) * (to - from);
  const y = event.clientY - rect.top;
  const row = rows.find((each) => each.cells && y >= each.top - LANE && y < each.top + size.band);
  return row ? [row, placeOf(row, moment)] : [null, 0];
}

// -- pointers and keys ------------------------------------------------------------------------------------------------

const pointers = new Map();
let moved = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event.clientX);
  moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) {
    const [row, place] = under(event);
    if (row) tell(row, place);
    return;
  }
  const before = pointers.get(event.pointerId);
  const width = canvas.clientWidth;
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const was = Math.max(8, Math.abs(before - other));
    const is = Math.max(8, Math.abs(event.clientX - other));
    const middle = (event.clientX + other) / 2 - canvas.getBoundingClientRect().left;
    zoom(was / is, from + (middle / width) * (to - from));
  } else {
    pan(-(event.clientX - before) / width);
  }
  moved += Math.abs(event.clientX - before);
  pointers.set(event.pointerId, event.clientX);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    if (pointers.delete(event.pointerId) && name === "pointerup" && moved < 4) {
      const [row, place] = under(event);
      if (row) {
        if (row.chosen) cursor = place;
        ask();
        show(row, place);
      }
    }
  });
}
canvas.addEventListener(
  "wheel",
  (event) => {
    if (event.deltaX && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan(event.deltaX / canvas.clientWidth);
    } else if (event.ctrlKey || event.altKey || document.activeElement === canvas) {
      event.preventDefault();
      const rect = canvas.getBoundingClientRect();
      zoom(Math.exp(event.deltaY / 400), from + ((event.clientX - rect.left) / rect.width) * (to - from));
    }
  },
  { passive: false },
);

function moveCursor(by) {
  const row = chosen();
  if (!row) return;
  const middle = placeOf(row, (from + to) / 2);
  cursor = Math.max(0, Math.min(row.count - 1, cursor === null ? middle : cursor + by));
  const at = startOf(row, cursor);
  const next = startOf(row, cursor + 1);
  if (at < from) see(at, at + (to - from));
  else if (next > to) see(next - (to - from), next);
  tell(row, cursor);
  ask();
}

const KEYS = {
  ArrowLeft: (event) => (event.shiftKey ? pan(-0.5) : moveCursor(-1)),
  ArrowRight: (event) => (event.shiftKey ? pan(0.5) : moveCursor(1)),
  PageUp: () => pan(-0.9),
  PageDown: () => pan(0.9),
  Home: () => see(bounds()[0], bounds()[0] + (to - from)),
  End: () => see(bounds()[1] - (to - from), bounds()[1]),
  "+": () => zoom(0.5, cursor === null ? undefined : startOf(chosen(), cursor)),
  "=": () => zoom(0.5, cursor === null ? undefined : startOf(chosen(), cursor)),
  "-": () => zoom(2),
  0: () => see(...bounds()),
  Enter: () => chosen() && show(chosen(), cursor === null ? placeOf(chosen(), (from + to) / 2) : cursor),
};
canvas.addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (!act || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  act(event);
});
box.querySelector(".tools").addEventListener("click", (event) => {
  const how = event.target.dataset?.zoom;
  if (how === "all") see(...bounds());
  else if (how === "in") zoom(0.5);
  else if (how === "out") zoom(2);
  else if (how === "back") pan(-0.5);
  else if (how === "on") pan(0.5);
  else if (how) see((from + to) / 2 - how * 500, (from + to) / 2 + how * 500);
});

// -- life -------------------------------------------------------------------------------------------------------------

async function begin() {
  rows.sort((one, other) => (one.chosen === other.chosen ? 0 : one.chosen ? -1 : 1));
  const first = rows.find((row) => row.chosen);
  await load(first);
  readColors();
  resize();
  recall();
  draw();
  performance.mark("calendar-drawn");
  await Promise.all(rows.filter((row) => row !== first).map(load));
  ask();
}

document.addEventListener("refreshed", async () => {
  const changed = await Promise.all(rows.map(load));
  if (!changed.some(Boolean)) return;
  borders = { row: null, first: 0, end: 0, places: [] };
  ask();
  askForBorders();
});
document.addEventListener("themed", () => {
  readColors();
  ask();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColors();
  ask();
});
new ResizeObserver(() => {
  if (canvas.clientWidth !== size.width) resize();
}).observe(canvas);
// what a test measures: how long the last frames took to draw, in milliseconds
Object.defineProperty(canvas, "frameTimes", { get: () => frames });
begin();
