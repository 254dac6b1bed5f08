"use strict";
// Draws the data of the page: lanes on a canvas, the folded graph, downloads. No library.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const canvas = $("canvas"), lanes = $("lanes"), g = canvas.getContext("2d");
const GUTTER = 46, AXIS = 22, FILLS = 5;
const HEIGHTS = [22, 18, 9, 9], MEMORY = 24, GHOST = 8;

// ---- reading the columns -------------------------------------------------------------------

function reader(text) {
  const raw = atob(text);
  let at = 0;
  const u = () => {
    let value = 0, scale = 1, byte;
    do { byte = raw.charCodeAt(at++); value += (byte & 127) * scale; scale *= 128; } while (byte & 128);
    return value;
  };
  return { u, s: () => { const n = u(); return n % 2 ? -(n + 1) / 2 : n / 2; }, more: () => at < raw.length };
}

function readRank(text, rank) {
  const r = reader(text), it = { kind: [], lane: [], mb: [], chunk: [], part: [], id: [], s: [], e: [], cause: [], on: [] };
  let lane = -1, mb, chunk, part, id, end;
  while (r.more()) {
    const head = r.u();
    if (head % 3 !== lane) { lane = head % 3; mb = chunk = part = id = end = 0; }
    it.kind.push((head - lane) / 3); it.lane.push(lane);
    it.mb.push(mb += r.s()); it.chunk.push(chunk += r.s()); it.part.push(part += r.s()); it.id.push(id += r.s());
    const start = end + r.s();
    end = start + r.u();
    it.s.push(start); it.e.push(end);
    const wait = r.u(), place = it.s.length - 1;
    it.cause.push(wait ? (wait - 1) >> 1 : -1);
    it.on.push(wait && !(wait & 1) ? [rank + r.s(), place + r.s()] : null);
  }
  it.s = Float64Array.from(it.s); it.e = Float64Array.from(it.e);
  const chunks = [...new Set(it.chunk)].sort((x, y) => x - y), turn = new Map(chunks.map((chunk, n) => [chunk, n]));
  it.turn = it.lane.map((lane, i) => lane === 0 ? turn.get(it.chunk[i]) : 0);
  // Computations stand first, by start.
  it.computed = Int32Array.from(it.lane.keys()).filter(i => it.lane[i] === 0);
  return it;
}

const EXPERTS = new Set(D.kinds.map((kind, i) => kind[1].startsWith("experts") ? i : -1));
const trackOf = (rank, i) => rank.lane[i] === 0 ? (EXPERTS.has(rank.kind[i]) ? 1 : 0) : rank.lane[i] + 1;

// Spreads the spans of a track over as many rows as overlap, four at most.
function trackRows(rank, track) {
  const rows = [], ends = [];
  for (let i = 0; i < rank.s.length; i++) {
    if (trackOf(rank, i) !== track) continue;
    let row = ends.findIndex(end => end <= rank.s[i]);
    if (row < 0) row = rows.length < 4 ? rows.push([]) - 1 : 3;
    rows[row].push(i);
    ends[row] = rank.e[i];
  }
  return rows.map(row => Int32Array.from(row));
}

function gapsOf(rank, makespan) {
  const all = [];
  for (let i = 0; i < rank.s.length; i++) if (rank.lane[i] === 0) all.push(i);
  all.sort((a, b) => rank.s[a] - rank.s[b]);
  const gaps = [];
  let free = 0;
  for (const i of all) {
    if (free < rank.s[i]) gaps.push({ s: free, e: rank.s[i], cause: rank.cause[i] < 0 ? (free ? 1 : 0) : rank.cause[i], i });
    free = Math.max(free, rank.e[i]);
  }
  if (free < makespan) gaps.push({ s: free, e: makespan, cause: 7, i: -1 });
  return gaps;
}

// What is held over time: bytes by class, or activations counted from the spans.
function heldOf(step, r) {
  const t = [], v = [];
  if (step.memory) {
    const n = step.memory.classes.length, read = reader(step.memory.ranks[r]), now = Array(n).fill(0);
    let time = 0;
    while (read.more()) {
      t.push(time += read.u());
      for (let c = 0; c < n; c++) now[c] += read.s();
      v.push(now.map(level => level * step.memory.unit));
    }
    return { t, v };
  }
  const rank = step.ranks[r], live = new Map();
  for (let i = 0; i < rank.s.length; i++) {
    if (rank.lane[i] !== 0) continue;
    const key = rank.chunk[i] * 1e6 + rank.mb[i], own = live.get(key) || { s: Infinity, e: -1 };
    if (rank.kind[i] === 0) own.s = Math.min(own.s, rank.s[i]);
    if (rank.kind[i] === 2 || rank.kind[i] === 3) own.e = Math.max(own.e, rank.e[i]);
    live.set(key, own);
  }
  const changes = [];
  for (const own of live.values()) {
    if (own.s < Infinity) changes.push([own.s, 1]);
    if (own.e >= 0) changes.push([own.e, -1]);
  }
  changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let held = 0;
  for (const [time, change] of changes) { t.push(time); v.push([held += change]); }
  return { t, v };
}

const steps = D.steps.map((step, p) => {
  const planned = step.planned.map(readRank);
  const measured = step.measured && step.measured.map(readRank);
  const ranks = measured || planned;
  const last = ranks => ranks.reduce((most, rank) => rank.e.reduce((a, b) => Math.max(a, b), most), 0);
  const own = { ...step, p, ranks, ghost: measured && planned, makespan: last(ranks) };
  own.end = Math.max(own.makespan, measured ? last(planned) : 0);
  own.tracks = ranks.map(rank => [0, 1, 2, 3].map(track => trackRows(rank, track)));
  own.gaps = ranks.map(rank => gapsOf(rank, own.makespan));
  own.held = ranks.map((_, r) => heldOf(own, r));
  own.most = own.held.map(held => held.v.reduce((most, row) => Math.max(most, row.reduce((a, b) => a + b, 0)), 0));
  own.top = Math.max(1e-9, ...own.most);
  if (step.spread.length) own.wide = step.spread.map(text => { const r = reader(text), all = []; while (r.more()) all.push([r.u(), r.u()]); return all; });
  return own;
});
// Plans share one axis: times are compared in the unit, not in ticks.
const END = Math.max(...steps.map(step => step.end * step.tick), 1e-12);
const path = steps.map(criticalPath);

// ---- words ---------------------------------------------------------------------------------

function time(t, unit) {
  if (unit !== "s") return `${+t.toFixed(3)} ${t === 1 ? "unit" : "units"}`;
  const [value, name] = t < 1e-3 ? [t * 1e6, "µs"] : t < 1 ? [t * 1e3, "ms"] : [t, "s"];
  return `${+value.toPrecision(3)} ${name}`;
}
const bytes = n => { let i = 0; while (n >= 1024 && i < 4) { n /= 1024; i++; } return `${+n.toFixed(i ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][i]}`; };
const held = (step, n) => step.memory ? bytes(n) : `${n} activation${n === 1 ? "" : "s"}`;
const short = (rank, i) => D.kinds[rank.kind[i]][0] + rank.mb[i];
const words = (step, r, i) => `${short(step.ranks[r], i)} of chunk ${step.ranks[r].chunk[i]}, ${D.kinds[step.ranks[r].kind[i]][1]}`;
const signed = (t, unit) => (t < 0 ? "−" : "+") + time(Math.abs(t), unit);

function tell(sel) {
  const step = steps[sel.p], rank = step.ranks[sel.r], i = sel.i, T = t => time(t * step.tick, step.unit);
  const lines = [`rank ${sel.r}: ${words(step, sel.r, i)}${rank.part[i] ? ", part " + rank.part[i] : ""}`,
    `${T(rank.s[i])} to ${T(rank.e[i])}, takes ${T(rank.e[i] - rank.s[i])}; number ${rank.id[i]}`];
  if (rank.cause[i] >= 0) {
    const on = rank.on[i];
    lines.push(`before: ${D.causes[rank.cause[i]]}` + (on ? `, for ${words(step, on[0], on[1])} on rank ${on[0]}` : ""));
  }
  if (step.wide) { const [a, b] = step.wide[sel.r][i]; if (a || b) lines.push(`over its ranks from ${T(rank.s[i] - a)} to ${T(rank.e[i] + b)}`); }
  const late = lateness(sel);
  if (late) lines.push(`late ${signed(late.total, step.unit)} = own ${signed(late.own, step.unit)}, inherited ${signed(late.inherited, step.unit)}, queueing ${signed(late.queueing, step.unit)}`);
  const chain = chainOf(sel);
  if (chain.length > 1) lines.push(`chain: ${chain.length} spans back to the start of the step`);
  return lines.join("\n");
}

// ---- what came before what -----------------------------------------------------------------

function before(step, r, i) {
  const rank = step.ranks[r];
  if (rank.on[i]) return rank.on[i];
  const track = trackOf(rank, i);
  if (track === 2) {
    // A message comes after the last computation of its side that was done when it left.
    const side = ["C", "d"].includes(D.kinds[rank.kind[i]][0]) ? 1 : 0;
    let at = firstFrom(rank.computed, rank.s, rank.s[i] + 1e-9) - 1;
    while (at >= 0 && (trackOf(rank, at) !== side || rank.e[at] > rank.s[i])) at--;
    if (at >= 0) return [r, at];
  }
  for (let at = i - 1; at >= 0; at--) if (trackOf(rank, at) === track) return [r, at];
  return null;
}
function chainFrom(step, r, i) {
  const chain = [];
  for (let at = [r, i], n = 0; at && n < 200000; at = before(step, at[0], at[1]), n++) chain.push(at);
  return chain;
}
function criticalPath(step) {
  let best = null, most = -1;
  step.ranks.forEach((rank, r) => rank.e.forEach((end, i) => { if (end > most) { most = end; best = [r, i]; } }));
  return best ? chainFrom(step, best[0], best[1]) : [];
}
let chainKey = "", chainNow = [];
function chainOf(sel) {
  const key = `${sel.p},${sel.r},${sel.i}`;
  if (key !== chainKey) { chainKey = key; chainNow = chainFrom(steps[sel.p], sel.r, sel.i); }
  return chainNow;
}
function ghostOf(step, r, i) {
  if (!step.ghost) return -1;
  const rank = step.ranks[r], plan = step.ghost[r];
  if (!plan.tasks) {
    plan.tasks = new Map();
    for (let j = 0; j < plan.s.length; j++) plan.tasks.set([plan.kind[j], plan.chunk[j], plan.part[j], plan.mb[j]].join(), j);
  }
  const found = plan.tasks.get([rank.kind[i], rank.chunk[i], rank.part[i], rank.mb[i]].join());
  return found === undefined ? -1 : found;
}
function lateness(sel) {
  const step = steps[sel.p], rank = step.ranks[sel.r], i = sel.i, j = ghostOf(step, sel.r, i);
  if (j < 0) return null;
  const plan = step.ghost[sel.r], from = before(step, sel.r, i), k = from ? ghostOf(step, from[0], from[1]) : -1;
  const total = rank.e[i] - plan.e[j], own = total - (rank.s[i] - plan.s[j]);
  const inherited = k < 0 ? 0 : step.ranks[from[0]].e[from[1]] - step.ghost[from[0]].e[k];
  const scaled = n => n * step.tick;
  return { total: scaled(total), own: scaled(own), inherited: scaled(inherited), queueing: scaled(total - own - inherited) };
}

// ---- rows ----------------------------------------------------------------------------------

let rows = [], content = 0;
function layout() {
  rows = []; content = AXIS;
  const add = (h, row) => { rows.push({ y: content, h, ...row }); content += h; };
  steps.forEach((step, p) => {
    if (steps.length > 1) add(24, { type: "plan", p });
    const shown = [0, 1, 2, 3].map(track => Math.max(...step.tracks.map(tracks => tracks[track].length)));
    step.ranks.forEach((_, r) => {
      content += 5;
      const top = content;
      shown.forEach((count, track) => { for (let k = 0; k < count; k++) add(HEIGHTS[track] + (step.ghost && $("ghost").checked && track < 2 ? GHOST : 0), { type: "track", p, r, track, k }); });
      if ($("memory").checked) add(step.memory ? MEMORY + 12 : MEMORY, { type: "memory", p, r });
      rows.push({ y: top, h: content - top, type: "label", p, r });
    });
    content += 8;
  });
  $("spacer").style.height = Math.max(0, content - lanes.clientHeight) + "px";
}

// ---- view ----------------------------------------------------------------------------------

let a = 0, b = END, hover = null, pinned = null, color = {}, patterns = [], W = 0, H = 0, dirty = false, tab = "time";
const X = t => GUTTER + (t - a) / (b - a) * (W - GUTTER);
const T = x => a + (x - GUTTER) / (W - GUTTER) * (b - a);
function view(from, to) {
  const width = Math.min(Math.max(to - from, END / 1e6), END * 1.02);
  a = Math.min(Math.max(from, -0.01 * END), 1.01 * END - width);
  b = a + width;
  redraw(); remember();
}
const zoom = (factor, at = (a + b) / 2) => view(at - (at - a) * factor, at + (b - at) * factor);
function redraw() { if (!dirty) { dirty = true; requestAnimationFrame(() => { dirty = false; draw(); }); } }
let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const parts = [`t=${(a / END).toFixed(6)},${(b / END).toFixed(6)}`];
    if (pinned) parts.push(`box=${pinned.p},${pinned.r},${pinned.i}`);
    if (tab !== "time") parts.push(`tab=${tab}`);
    history.replaceState(null, "", "#" + parts.join("&"));
  }, 80);
}
function recall() {
  const parts = new Map(location.hash.slice(1).split("&").map(part => part.split("=")));
  const numbers = name => (parts.get(name) || "").split(",").map(Number);
  const [from, to] = numbers("t");
  if (to > from) { a = from * END; b = to * END; }
  const box = parts.has("box") ? numbers("box") : [];
  if (box.length) {
    const [r, i] = box.slice(-2), p = box.length > 2 ? box[0] : 0;
    if (steps[p] && steps[p].ranks[r] && i < steps[p].ranks[r].s.length) { pinned = { p, r, i }; if (!(to > from)) show(pinned); }
  }
  select(parts.get("tab") || "time");
  redraw();
}
// Moves the view so that a span is well inside of it.
function show(sel) {
  const step = steps[sel.p], rank = step.ranks[sel.r], s = rank.s[sel.i] * step.tick, e = rank.e[sel.i] * step.tick;
  if ((e - s) / (b - a) * (W || 1000) < 14) { const half = Math.max(e - s, END / 1e6) * 25; a = (s + e) / 2 - half; b = a + 2 * half; }
  if (s < a || e > b) { const half = (b - a) / 2; a = (s + e) / 2 - half; b = a + 2 * half; }
  const row = rows.find(row => row.type === "label" && row.p === sel.p && row.r === sel.r);
  if (row && (row.y < lanes.scrollTop + AXIS || row.y + row.h > lanes.scrollTop + H)) lanes.scrollTop = row.y - H / 2;
  view(a, b);
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ground", "text", "dim", "line", "band", "lane", "ink", "idle", "path", "pick", "fill0", "fill1", "fill2", "fill3", "fill4"]) color[name] = style.getPropertyValue("--" + name).trim();
  color.fills = [0, 1, 2, 3, 4].map(i => color["fill" + i]);
  patterns = [null, hatch([[0, 8, 8, 0]], color.ink), hatch([[0, 0, 8, 8]], color.ink), hatch([[0, 0, 8, 8], [0, 8, 8, 0]], color.ink), hatch([[0, 4, 8, 4]], color.ink)];
  patterns.idle = hatch([[0, 8, 8, 0], [-2, 2, 2, -2], [6, 10, 10, 6]], color.idle);
  patterns.ends = hatch([[4, 3, 4, 5]], color.idle);
  steps.forEach(step => { step.images = new Map(); });
  legend(); redraw();
}
function hatch(lines, ink) {
  const tile = document.createElement("canvas"), t = tile.getContext("2d");
  tile.width = tile.height = 8;
  t.strokeStyle = ink; t.globalAlpha = ink === color.ink ? 0.3 : 0.55; t.lineWidth = 1;
  for (const [x0, y0, x1, y1] of lines) { t.beginPath(); t.moveTo(x0, y0); t.lineTo(x1, y1); t.stroke(); }
  return g.createPattern(tile, "repeat");
}
// Classes of bytes share the fills of the boxes, lighter, so the strip has names of its own.
function classes(put) {
  const step = steps.find(step => step.memory);
  if (!step) return;
  step.memory.classes.forEach((name, c) => put(color.fills[c % FILLS], null, (c ? "" : "holds, from below: ") + name, 0.6));
}
function legend() {
  const used = new Set();
  steps.forEach(step => step.ranks.forEach(rank => rank.kind.forEach(kind => used.add(kind))));
  const seen = new Set(), box = $("legend");
  box.textContent = "";
  const put = (fill, pattern, text, alpha = 1) => {
    const span = document.createElement("span"), swatch = document.createElement("canvas"), s = swatch.getContext("2d");
    swatch.width = 30; swatch.height = 22; swatch.style.cssText = "width:15px;height:11px"; s.scale(2, 2);
    if (fill) { s.globalAlpha = alpha; s.fillStyle = fill; s.fillRect(0, 0, 15, 11); s.globalAlpha = 1; }
    if (pattern) { s.fillStyle = pattern; s.fillRect(0, 0, 15, 11); }
    span.append(swatch, text); box.append(span);
  };
  [...used].sort((x, y) => x - y).forEach(kind => {
    const [letter, name, fill] = D.kinds[kind];
    if (EXPERTS.has(kind) || seen.has(letter)) return;
    seen.add(letter);
    put(color.fills[fill], patterns[fill], `${letter} ${name}`);
  });
  put(null, patterns.idle, "idle");
  if (steps.some(step => step.ranks.some(rank => rank.turn.some(turn => turn > 0)))) {
    put(color.fills[4], null, "bar below: a later chunk of its rank");
    const s = box.lastChild.firstChild.getContext("2d"); s.fillStyle = color.ink; s.fillRect(1, 7.5, 13, 1.5);
  }
  classes(put);
}

// The share of each fill in thin columns over the whole step, as an image: what is drawn when boxes
// are too thin to tell apart.
const COLUMNS = 8192;
function image(step, r, track, k) {
  const key = r * 64 + track * 8 + k;
  if (step.images.has(key)) return step.images.get(key);
  const rank = step.ranks[r], ix = step.tracks[r][track][k], h = HEIGHTS[track], scale = COLUMNS * step.tick / END;
  const share = new Float32Array(COLUMNS * FILLS);
  for (const i of ix) {
    const fill = D.kinds[rank.kind[i]][2], s = rank.s[i] * scale, e = Math.min(rank.e[i] * scale, COLUMNS - 1e-6);
    const from = Math.floor(s), to = Math.floor(e);
    for (let c = from; c <= to; c++) share[c * FILLS + fill] += Math.min(e, c + 1) - Math.max(s, c);
  }
  const tile = document.createElement("canvas");
  tile.width = COLUMNS; tile.height = h;
  const t = tile.getContext("2d"), out = t.createImageData(COLUMNS, h), pixels = new Uint32Array(out.data.buffer);
  const packed = color.fills.map(hex => { const n = parseInt(hex.slice(1), 16); return (255 << 24 | (n & 255) << 16 | (n >> 8 & 255) << 8 | n >> 16) >>> 0; });
  for (let c = 0; c < COLUMNS; c++) {
    let sum = 0, y = h;
    for (let f = 0; f < FILLS; f++) {
      sum += share[c * FILLS + f];
      for (const top = Math.round(h * (1 - Math.min(sum, 1))); y > top;) pixels[--y * COLUMNS + c] = packed[f];
    }
  }
  t.putImageData(out, 0, 0);
  step.images.set(key, tile);
  return tile;
}

// First place of a row of spans that ends after a time; ends rise along a row.
function firstAfter(ix, ends, t) {
  let lo = 0, hi = ix.length;
  while (lo < hi) { const mid = lo + hi >> 1; if (ends[ix[mid]] <= t) lo = mid + 1; else hi = mid; }
  return lo;
}
function firstFrom(ix, starts, t) {
  let lo = 0, hi = ix.length;
  while (lo < hi) { const mid = lo + hi >> 1; if (starts[ix[mid]] < t) lo = mid + 1; else hi = mid; }
  return lo;
}

// ---- drawing -------------------------------------------------------------------------------

function draw() {
  const dpr = devicePixelRatio || 1;
  W = lanes.clientWidth; H = lanes.clientHeight;
  if (canvas.width !== Math.round(W * dpr) || canvas.height !== Math.round(H * dpr)) {
    canvas.width = Math.round(W * dpr); canvas.height = Math.round(H * dpr);
    canvas.style.width = W + "px"; canvas.style.height = H + "px";
  }
  g.setTransform(dpr, 0, 0, dpr, 0, 0);
  g.fillStyle = color.ground; g.fillRect(0, 0, W, H);
  const up = lanes.scrollTop;
  g.save();
  g.beginPath(); g.rect(0, AXIS, W, H - AXIS); g.clip();
  for (const row of rows) {
    const y = row.y - up;
    if (y + row.h < AXIS || y > H) continue;
    if (row.type === "plan") drawPlan(row, y);
    else if (row.type === "track") drawTrack(row, y);
    else if (row.type === "memory") drawMemory(row, y);
  }
  if ($("path").checked) steps.forEach((step, p) => drawChain(p, path[p], color.path, 1.5, up));
  const sel = pinned || hover;
  if (sel && sel.i >= 0) drawChain(sel.p, chainOf(sel), color.pick, 2, up, true);
  drawLabels(up);
  g.restore();
  drawAxis();
  drawOverview();
}
function drawLabels(up) {
  g.fillStyle = color.ground; g.fillRect(0, AXIS, GUTTER, H);
  g.font = "600 12px system-ui, sans-serif"; g.textBaseline = "middle"; g.textAlign = "right";
  for (const row of rows) {
    const y = row.y - up;
    if (y + row.h < 0 || y > H) continue;
    if (row.type === "label") { g.fillStyle = color.text; g.fillText("r" + row.r, GUTTER - 8, y + 11); }
    if (row.type === "plan") { g.fillStyle = color.band; g.fillRect(0, y, GUTTER, row.h); g.fillStyle = color.text; g.fillText("ABCD"[row.p], GUTTER - 8, y + row.h / 2); }
    if (row.type === "track" && row.k === 0 && row.track) {
      g.font = "10px system-ui, sans-serif"; g.fillStyle = color.dim;
      g.fillText(["", "exp", "com", "copy"][row.track], GUTTER - 8, y + Math.min(row.h, 12) / 2 + 1);
      g.font = "600 12px system-ui, sans-serif";
    }
  }
}
function drawPlan(row, y) {
  const step = steps[row.p];
  g.fillStyle = color.band; g.fillRect(0, y, W, row.h);
  g.fillStyle = color.text; g.font = "600 12.5px system-ui, sans-serif"; g.textAlign = "left"; g.textBaseline = "middle";
  g.fillText(`${step.name}   ${time(step.makespan * step.tick, step.unit)}`, GUTTER + 6, y + row.h / 2);
}
function drawTrack(row, y) {
  const { p, r, track, k } = row, step = steps[p], rank = step.ranks[r], ix = step.tracks[r][track][k];
  // Where a plan stands behind a run, its boxes have a strip of their own below the run's.
  const behind = step.ghost && $("ghost").checked && track < 2, h = row.h - 1 - (behind ? GHOST : 0);
  g.fillStyle = color.lane; g.fillRect(GUTTER, y, W - GUTTER, row.h - 1);
  if (track === 0 && k === 0) drawGaps(step, r, y, h);
  if (!ix) return;
  if (behind) drawGhost(step, r, row, y + h + 1);
  const lo = firstAfter(ix, rank.e, a / step.tick), hi = firstFrom(ix, rank.s, b / step.tick);
  if (hi - lo > (W - GUTTER) / 3) {
    const tile = image(step, r, track, k), scale = COLUMNS / END;
    const s = Math.max(0, a), e = Math.min(END, b);
    g.imageSmoothingEnabled = true;
    g.drawImage(tile, s * scale, 0, (e - s) * scale, tile.height, X(s), y, X(e) - X(s), h);
    return;
  }
  for (let fill = 0; fill < FILLS; fill++) drawBoxes(step, rank, ix, lo, hi, fill, y, h);
  drawLetters(step, rank, ix, lo, hi, y, h);
}
function drawBoxes(step, rank, ix, lo, hi, fill, y, h) {
  const boxes = [], later = [];
  for (let n = lo; n < hi; n++) {
    const i = ix[n];
    if (D.kinds[rank.kind[i]][2] !== fill) continue;
    const x0 = Math.max(X(rank.s[i] * step.tick), GUTTER - 2), x1 = Math.min(X(rank.e[i] * step.tick), W + 2);
    const w = x1 - x0;
    boxes.push(x0, w > 3 ? w - 1 : Math.max(w, 0.6));
    if (rank.turn[i] && w > 3) later.push(x0, w - 1, Math.min(3, rank.turn[i]));
  }
  g.fillStyle = color.fills[fill];
  for (let n = 0; n < boxes.length; n += 2) g.fillRect(boxes[n], y, boxes[n + 1], h);
  if (patterns[fill]) {
    g.fillStyle = patterns[fill];
    for (let n = 0; n < boxes.length; n += 2) if (boxes[n + 1] > 5) g.fillRect(boxes[n], y, boxes[n + 1], h);
  }
  // A later chunk of the rank has a bar at its foot, the third two, and so on.
  g.fillStyle = color.ink;
  for (let n = 0; n < later.length; n += 3) for (let bar = 0; bar < later[n + 2]; bar++) g.fillRect(later[n] + 1, y + h - 3 - 3 * bar, later[n + 1] - 2, 1.5);
}
function drawLetters(step, rank, ix, lo, hi, y, h) {
  if (h < 8 || (hi - lo) * 9 > W) return;
  g.font = `${h > 14 ? "600 11px" : "8.5px"} system-ui, sans-serif`; g.textAlign = "center"; g.textBaseline = "middle";
  for (let n = lo; n < hi; n++) {
    const i = ix[n], x0 = Math.max(X(rank.s[i] * step.tick), GUTTER), x1 = Math.min(X(rank.e[i] * step.tick), W), w = x1 - x0;
    if (w < 9) continue;
    const kind = D.kinds[rank.kind[i]], full = kind[0] + rank.mb[i], text = w > 7 * full.length + 3 ? full : kind[0];
    if (patterns[kind[2]]) { g.fillStyle = color.fills[kind[2]]; const half = 3.4 * text.length + 1.5; g.fillRect((x0 + x1) / 2 - half, y + h / 2 - 6, 2 * half, Math.min(12, h)); }
    g.fillStyle = color.ink;
    g.fillText(text, (x0 + x1) / 2 - 0.5, y + h / 2 + 0.5);
  }
}
function drawGaps(step, r, y, h) {
  const gaps = step.gaps[r];
  let lo = 0, hi = gaps.length;
  while (lo < hi) { const mid = lo + hi >> 1; if (gaps[mid].e * step.tick <= a) lo = mid + 1; else hi = mid; }
  g.font = "11px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
  for (let drawn = 0; lo < gaps.length && drawn < 400; lo++, drawn++) {
    const gap = gaps[lo];
    if (gap.s * step.tick >= b) break;
    const x0 = Math.max(X(gap.s * step.tick), GUTTER), x1 = Math.min(X(gap.e * step.tick), W), w = x1 - x0;
    if (w < 2) continue;
    const ends = gap.cause === 0 || gap.cause === 7;
    g.fillStyle = ends ? patterns.ends : patterns.idle;
    g.fillRect(x0, y, w - 1, h);
    const on = gap.i >= 0 && step.ranks[r].on[gap.i];
    const cause = D.causes[gap.cause], texts = on && !ends ? [`waits for ${short(step.ranks[on[0]], on[1])} of rank ${on[0]}`, `${short(step.ranks[on[0]], on[1])} r${on[0]}`] : [cause];
    const text = texts.find(text => g.measureText(text).width + 14 < w);
    if (text) {
      const half = g.measureText(text).width / 2 + 4;
      g.fillStyle = color.lane; g.fillRect((x0 + x1) / 2 - half, y + 3, 2 * half, h - 6);
      g.fillStyle = color.dim; g.fillText(text, (x0 + x1) / 2, y + h / 2 + 0.5);
    }
  }
}
function drawGhost(step, r, row, y) {
  const plan = step.ghost[r], all = plan.rows || (plan.rows = [0, 1, 2, 3].map(track => trackRows(plan, track)));
  const own = all[row.track][row.k];
  if (!own) return;
  const lo = firstAfter(own, plan.e, a / step.tick), hi = firstFrom(own, plan.s, b / step.tick);
  g.lineWidth = 1;
  for (let n = lo; n < hi && n < lo + 3000; n++) {
    const x0 = X(plan.s[own[n]] * step.tick), w = X(plan.e[own[n]] * step.tick) - x0;
    if (w < 1) continue;
    g.fillStyle = g.strokeStyle = color.fills[D.kinds[plan.kind[own[n]]][2]];
    g.globalAlpha = 0.25; g.fillRect(x0, y, w - 1, GHOST - 2); g.globalAlpha = 1;
    if (w > 4) { g.setLineDash([3, 2]); g.strokeRect(x0 + 0.5, y + 0.5, w - 2, GHOST - 3); }
  }
  g.setLineDash([]);
}
function drawMemory(row, y) {
  const step = steps[row.p], it = step.held[row.r], h = row.h - 4, base = y + row.h - 2;
  const classes = it.v.length ? it.v[0].length : 0, limit = step.memory && step.memory.limit;
  const top = Math.max(step.top, limit && limit < 1.6 * step.top ? limit : 0) * 1.04;
  const level = v => base - h * v / top;
  const xs = [], vs = [];
  let n = firstAfter(indexes(it), it.t, a / step.tick);
  n = Math.max(0, n - 1);
  let last = -1;
  for (; n < it.t.length && it.t[n] * step.tick <= b; n++) {
    const x = Math.max(GUTTER, X(it.t[n] * step.tick)), v = it.v[n];
    // One point a pixel, and of those the fullest: a peak is never lost.
    if (xs.length && Math.floor(x) === last) { if (sum(v) > sum(vs[vs.length - 1])) vs[vs.length - 1] = v; continue; }
    xs.push(x); vs.push(v); last = Math.floor(x);
  }
  const right = Math.min(W, X(step.makespan * step.tick));
  for (let c = classes - 1; c >= 0 && xs.length; c--) {
    g.beginPath(); g.moveTo(xs[0], base);
    let before = base;
    for (let m = 0; m < xs.length; m++) {
      let v = 0;
      for (let d = 0; d <= c; d++) v += vs[m][d];
      g.lineTo(xs[m], before); before = level(v); g.lineTo(xs[m], before);
    }
    g.lineTo(right, before); g.lineTo(right, base); g.closePath();
    const ink = step.memory ? color.fills[c % FILLS] : color.fills[4];
    g.fillStyle = color.ground; g.fill();
    g.globalAlpha = step.memory ? 0.6 : 0.3; g.fillStyle = ink; g.fill(); g.globalAlpha = 1;
    g.strokeStyle = ink; g.lineWidth = 1; g.stroke();
  }
  if (limit && limit <= top) {
    g.strokeStyle = color.fills[1]; g.setLineDash([5, 3]); g.beginPath(); g.moveTo(GUTTER, level(limit)); g.lineTo(W, level(limit)); g.stroke(); g.setLineDash([]);
  }
  const most = step.most[row.r], at = it.v.findIndex(v => sum(v) === most);
  if (at >= 0) {
    const x = X(it.t[at] * step.tick);
    if (x >= GUTTER && x < W) {
      g.fillStyle = color.text; g.beginPath(); g.moveTo(x, level(most) - 1); g.lineTo(x - 4, level(most) - 6); g.lineTo(x + 4, level(most) - 6); g.fill();
      const text = step.memory ? bytes(most) : `${most} held`, left = x + 12 + 6 * text.length < W;
      g.font = "10px system-ui, sans-serif"; g.textBaseline = "top"; g.textAlign = left ? "left" : "right";
      const wide = g.measureText(text).width;
      g.globalAlpha = 0.8; g.fillStyle = color.ground; g.fillRect(left ? x + 5 : x - 9 - wide, y + 2, wide + 4, 12); g.globalAlpha = 1;
      g.fillStyle = color.text; g.fillText(text, left ? x + 7 : x - 7, y + 3);
    }
  }
}
const sum = v => { let all = 0; for (const part of v) all += part; return all; };
const indexes = it => it.ix || (it.ix = Int32Array.from(it.t.keys()));

steps.forEach(step => {
  const at = new Map();
  step.rowAt = (r, i) => {
    if (!at.has(r)) {
      const own = new Uint8Array(step.ranks[r].s.length);
      step.tracks[r].forEach(track => track.forEach((ix, k) => ix.forEach(i => { own[i] = k; })));
      at.set(r, own);
    }
    return at.get(r)[i];
  };
});
// Rows by step, rank, track and place, so that chains of thousands find theirs at once.
let rowIndex = new Map();
function indexRows() {
  rowIndex = new Map();
  for (const row of rows) if (row.type === "track") rowIndex.set(((row.p * 4096 + row.r) * 4 + row.track) * 4 + row.k, row);
}
function drawChain(p, chain, ink, width, up, arrows) {
  const step = steps[p], shown = chain.length * (b - a) / END, boxes = new Path2D(), lines = new Path2D();
  const inset = step.ghost && $("ghost").checked ? GHOST : 0;
  let from = null;
  g.strokeStyle = g.fillStyle = ink;
  for (const [r, i] of chain) {
    const rank = step.ranks[r], s = rank.s[i] * step.tick, e = rank.e[i] * step.tick, track = trackOf(rank, i);
    const row = rowIndex.get(((p * 4096 + r) * 4 + track) * 4 + step.rowAt(r, i));
    if (!row) continue;
    const y = row.y - up, h = row.h - (track < 2 ? inset : 0), x0 = X(s), x1 = X(e);
    if (from && from.y !== y && from.x > GUTTER - 50 && x1 < W + 50) {
      lines.moveTo(x1 - 1, y + h / 2); lines.lineTo(from.x + 1, from.y + from.h / 2);
      if (arrows) { const yy = from.y + from.h / 2; lines.moveTo(from.x - 5, yy - 4); lines.lineTo(from.x + 1, yy); lines.lineTo(from.x - 5, yy + 4); }
    }
    from = { x: x0, y, h };
    if (e < a) break;
    if (s > b) continue;
    if (x1 - x0 > 3 && shown < 2 * W) boxes.rect(x0 + 0.75, y + 0.75, Math.max(1, x1 - x0 - 2.5), h - 2.5);
    else g.fillRect(x0, y, Math.max(1, x1 - x0), 2);
  }
  g.lineWidth = width; g.stroke(boxes);
  g.lineWidth = arrows ? width : 1; g.globalAlpha = arrows ? 1 : 0.55; g.stroke(lines); g.globalAlpha = 1;
}
function ticks(from, to, most) {
  const rough = (to - from) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(f => f * power).find(step => step >= rough), all = [];
  for (let n = Math.ceil(from / step); n * step <= to; n++) all.push(n * step);
  return all;
}
function drawAxis() {
  const unit = steps[0].unit;
  g.fillStyle = color.ground; g.fillRect(0, 0, W, AXIS);
  g.strokeStyle = color.line; g.lineWidth = 1; g.beginPath(); g.moveTo(0, AXIS - 0.5); g.lineTo(W, AXIS - 0.5); g.stroke();
  g.fillStyle = color.dim; g.font = "11px system-ui, sans-serif"; g.textAlign = "left"; g.textBaseline = "middle";
  for (const t of ticks(Math.max(a, 0), Math.min(b, END), W / 110)) {
    const x = X(t);
    if (x < GUTTER) continue;
    g.beginPath(); g.moveTo(x + 0.5, AXIS - 6); g.lineTo(x + 0.5, AXIS); g.stroke();
    const text = t === 0 ? "0" : time(t, unit);
    if (x + 4 + g.measureText(text).width < W) g.fillText(text, x + 4, AXIS / 2);
  }
}

// ---- overview: how many ranks compute ------------------------------------------------------

const BINS = 1024;
function busyOf(step) {
  if (step.busy) return step.busy;
  const busy = new Float32Array(BINS), scale = BINS * step.tick / END;
  step.ranks.forEach((rank, r) => {
    const idle = new Float32Array(BINS).fill(1);
    for (const gap of step.gaps[r]) {
      const s = gap.s * scale, e = Math.min(gap.e * scale, BINS - 1e-6);
      for (let c = Math.floor(s); c <= Math.floor(e); c++) idle[c] -= Math.min(e, c + 1) - Math.max(s, c);
    }
    const end = step.makespan * scale;
    for (let c = 0; c < BINS; c++) busy[c] += Math.max(0, idle[c] - Math.max(0, c + 1 - Math.max(end, c))) / step.ranks.length;
  });
  return step.busy = busy;
}
function drawOverview() {
  const over = $("overview"), dpr = devicePixelRatio || 1, w = over.clientWidth, h = over.clientHeight, o = over.getContext("2d");
  if (over.width !== Math.round(w * dpr)) { over.width = Math.round(w * dpr); over.height = Math.round(h * dpr); over.image = null; }
  if (!over.image || over.ground !== color.ground) {
    over.ground = color.ground;
    const tile = over.image = document.createElement("canvas"), t = tile.getContext("2d");
    tile.width = over.width; tile.height = over.height; t.scale(dpr, dpr);
    t.fillStyle = color.lane; t.fillRect(0, 0, w, h);
    steps.forEach((step, p) => {
      const busy = busyOf(step), each = h / steps.length;
      t.fillStyle = color.fills[4]; t.globalAlpha = 0.7;
      for (let x = 0; x < w; x++) { const v = busy[Math.floor(x / w * BINS)] * (each - 3); t.fillRect(x, (p + 1) * each - v, 1, v); }
      t.globalAlpha = 1; t.font = "10px system-ui, sans-serif"; t.textBaseline = "top"; t.fillStyle = color.text;
      t.fillText(steps.length > 1 ? "ABCD"[p] : "", 4, p * each + 2);
    });
  }
  o.setTransform(1, 0, 0, 1, 0, 0); o.drawImage(over.image, 0, 0); o.scale(dpr, dpr);
  const x0 = Math.max(0, a / END * w), x1 = Math.min(w, b / END * w);
  o.fillStyle = color.ground; o.globalAlpha = 0.6; o.fillRect(0, 0, x0, h); o.fillRect(x1, 0, w - x1, h); o.globalAlpha = 1;
  o.strokeStyle = color.pick; o.lineWidth = 2; o.strokeRect(x0 + 1, 1, Math.max(2, x1 - x0 - 2), h - 2);
}

// ---- pointing ------------------------------------------------------------------------------

function hit(x, y) {
  y += lanes.scrollTop;
  if (x < GUTTER) return null;
  const row = rows.find(row => (row.type === "track" || row.type === "memory") && y >= row.y && y < row.y + row.h);
  if (!row) return null;
  const step = steps[row.p], t = T(x) / step.tick;
  if (row.type === "memory") return { ...row, i: -1, t };
  const rank = step.ranks[row.r], ix = step.tracks[row.r][row.track][row.k];
  if (ix) {
    const slack = 2 * (b - a) / W / step.tick, n = firstAfter(ix, rank.e, t - slack);
    if (n < ix.length && rank.s[ix[n]] <= t + slack) return { p: row.p, r: row.r, i: ix[n] };
  }
  const gap = row.track === 0 && step.gaps[row.r].find(gap => gap.s <= t && t < gap.e);
  return gap ? { p: row.p, r: row.r, i: -1, gap } : null;
}
function describe(spot) {
  if (spot.i >= 0) return tell(spot);
  const step = steps[spot.p];
  if (spot.gap) {
    const { s, e, cause, i } = spot.gap, on = i >= 0 && step.ranks[spot.r].on[i];
    return `rank ${spot.r} idles ${time((e - s) * step.tick, step.unit)}: ${D.causes[cause]}` + (on ? `\nfor ${words(step, on[0], on[1])} on rank ${on[0]}` : "") + (i >= 0 ? `\nnext: ${words(step, spot.r, i)}` : "");
  }
  const it = step.held[spot.r], n = firstFrom(indexes(it), it.t, spot.t) - 1;
  if (n < 0) return null;
  const parts = step.memory ? step.memory.classes.map((name, c) => `\n${name}: ${bytes(it.v[n][c])}`).join("") : "";
  return `rank ${spot.r} holds ${held(step, sum(it.v[n]))}${parts}`;
}
let drag = null;
canvas.addEventListener("pointerdown", e => { canvas.setPointerCapture(e.pointerId); drag = { x: e.offsetX, y: e.clientY, a, b, up: lanes.scrollTop, moved: false }; });
canvas.addEventListener("pointermove", e => {
  if (drag) {
    const dx = e.offsetX - drag.x, dy = e.clientY - drag.y;
    if (Math.abs(dx) + Math.abs(dy) > 4) drag.moved = true;
    if (drag.moved) { const dt = dx / (W - GUTTER) * (drag.b - drag.a); lanes.scrollTop = drag.up - dy; view(drag.a - dt, drag.b - dt); $("tip").hidden = true; }
    return;
  }
  const spot = hit(e.offsetX, e.offsetY), text = spot && describe(spot);
  const tip = $("tip");
  tip.hidden = !text;
  if (text) {
    tip.textContent = text;
    tip.style.left = Math.max(4, Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (e.clientY + 18 + tip.offsetHeight < innerHeight ? e.clientY + 18 : e.clientY - 12 - tip.offsetHeight) + "px";
  }
  const now = spot && spot.i >= 0 ? spot : null;
  if ((now && now.i) !== (hover && hover.i) || (now && now.r) !== (hover && hover.r)) { hover = now; redraw(); }
});
canvas.addEventListener("pointerup", e => {
  if (drag && !drag.moved) { const spot = hit(e.offsetX, e.offsetY); pin(spot && spot.i >= 0 ? { p: spot.p, r: spot.r, i: spot.i } : null); }
  drag = null;
});
canvas.addEventListener("pointerleave", () => { hover = null; $("tip").hidden = true; redraw(); });
canvas.addEventListener("wheel", e => {
  e.preventDefault();
  if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) { const dt = (e.deltaX || e.deltaY) / W * (b - a); view(a + dt, b + dt); }
  else zoom(Math.exp(Math.max(-1, Math.min(1, e.deltaY / 240))), T(e.offsetX));
}, { passive: false });
function pin(sel) {
  pinned = sel;
  $("status").textContent = sel ? tell(sel).replaceAll("\n", "; ") : "";
  redraw(); remember();
}
let sliding = false;
const slide = e => { const at = e.offsetX / $("overview").clientWidth * END, half = (b - a) / 2; view(at - half, at + half); };
$("overview").addEventListener("pointerdown", e => { sliding = true; $("overview").setPointerCapture(e.pointerId); slide(e); });
$("overview").addEventListener("pointermove", e => { if (sliding) slide(e); });
$("overview").addEventListener("pointerup", () => { sliding = false; });

// ---- keys ----------------------------------------------------------------------------------

function start() {
  if (pinned) return pinned;
  const ix = steps[0].tracks[0][0][0], rank = steps[0].ranks[0];
  return { p: 0, r: 0, i: ix[Math.min(ix.length - 1, firstAfter(ix, rank.e, a / steps[0].tick))] };
}
const go = sel => { pin(sel); show(sel); };
function along(by) {
  if (!pinned) return go(start());
  const { p, r, i } = pinned, step = steps[p], ix = step.tracks[r][trackOf(step.ranks[r], i)][step.rowAt(r, i)];
  const n = ix.indexOf(i) + by;
  if (n >= 0 && n < ix.length) go({ p, r, i: ix[n] });
}
function across(by) {
  const { p, r, i } = start(), step = steps[p], rank = step.ranks[r + by];
  if (!rank) return pinned || go({ p, r, i });
  const ix = step.tracks[r + by][0][0], n = Math.min(ix.length - 1, firstAfter(ix, rank.e, step.ranks[r].s[i]));
  go({ p, r: r + by, i: ix[n] });
}
function microbatch(by) {
  const { p, r, i } = start(), rank = steps[p].ranks[r];
  for (let j = i + by; j >= 0 && j < rank.s.length; j += by) {
    if (rank.kind[j] === rank.kind[i] && rank.chunk[j] === rank.chunk[i] && rank.mb[j] === rank.mb[i] + by) return go({ p, r, i: j });
  }
}
function find(text) {
  const letter = (text.match(/(?:^|\s)([A-Za-z])(?=\s|$)/) || [])[1], at = name => { const m = text.match(new RegExp(`${name}(\\d+)`)); return m ? +m[1] : -1; };
  const [s, m, c] = [at("s"), at("m"), at("c")];
  for (const step of steps) for (let r = 0; r < step.ranks.length; r++) {
    if (s >= 0 && r !== s) continue;
    const rank = step.ranks[r];
    for (let i = 0; i < rank.s.length; i++) {
      const own = D.kinds[rank.kind[i]][0];
      if ((!letter || own === letter || own === letter.toUpperCase()) && (m < 0 || rank.mb[i] === m) && (c < 0 || rank.chunk[i] === c)) return go({ p: step.p, r, i });
    }
  }
  $("status").textContent = `nothing is called ${text}`;
}
$("find").addEventListener("keydown", e => { if (e.key === "Enter") { find(e.target.value.trim()); canvas.focus({ preventScroll: true }); } if (e.key === "Escape") canvas.focus({ preventScroll: true }); e.stopPropagation(); });
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || tab !== "time" || ["INPUT", "BUTTON"].includes(e.target.tagName) && e.key !== "/") return;
  const move = share => { const dt = share * (b - a); view(a + dt, b + dt); };
  const keys = {
    "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), Home: () => view(0, END), ArrowLeft: () => move(-0.15), ArrowRight: () => move(0.15),
    ArrowUp: () => across(-1), ArrowDown: () => across(1), n: () => along(1), p: () => along(-1), "[": () => microbatch(-1), "]": () => microbatch(1),
    "/": () => $("find").focus(), Enter: () => pin(hover || start()), Escape: () => pin(null),
  };
  if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
});

// ---- tabs, graph, downloads ----------------------------------------------------------------

const tabs = ["time", "graph", "tables"];
function select(name) {
  tab = tabs.includes(name) ? name : "time";
  for (const own of tabs) {
    $(own).hidden = own !== tab;
    $("tab-" + own).setAttribute("aria-selected", own === tab);
    $("tab-" + own).tabIndex = own === tab ? 0 : -1;
  }
  $("tip").hidden = true;
  if (tab === "graph") graph();
  if (tab === "tables") spansInView();
  if (tab === "time") size();
}
tabs.forEach((name, n) => {
  $("tab-" + name).addEventListener("click", () => { select(name); remember(); });
  $("tab-" + name).addEventListener("keydown", e => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (by) { const next = tabs[(n + by + 3) % 3]; select(next); remember(); $("tab-" + next).focus(); e.stopPropagation(); }
  });
});
const make = (name, text, parent) => { const it = document.createElement(name); if (text) it.textContent = text; if (parent) parent.append(it); return it; };
let open = 0;
// One stage unfolded, its neighbours closed beside it, all others as one number.
function graph() {
  const box = $("graph"), all = steps[0].stages;
  box.textContent = "";
  if (!all.length) { make("p", "These orders have no model; a job's picture shows its graph here, folded by stage.", box); return; }
  make("p", "The model, folded by stage. Open one to see its layers and what leaves it.", box).className = "dim";
  const list = make("div", "", box);
  list.className = "stages";
  const near = [open - 1, open, open + 1].filter(s => s >= 0 && s < all.length);
  if (near[0] > 0) { make("button", `${near[0]} before`, list).onclick = () => { open = near[0] - 1; graph(); }; make("span", "→", list).className = "arrow"; }
  near.forEach((s, n) => {
    if (n) make("span", "→", list).className = "arrow";
    list.append(card(all[s], s));
  });
  const rest = all.length - 1 - near[near.length - 1];
  if (rest > 0) { make("span", "→", list).className = "arrow"; make("button", `${rest} more`, list).onclick = () => { open = near[near.length - 1] + 1; graph(); }; }
}
function card(stage, s) {
  const own = make("div");
  own.className = "stage";
  const layers = stage.chunks.reduce((count, [, layers]) => count + layers.length, 0);
  const head = make("button", `${s === open ? "▾" : "▸"} Stage ${s}: ${layers} parts`, own);
  head.setAttribute("aria-expanded", s === open);
  head.onclick = () => { open = s; graph(); [...$("graph").querySelectorAll("button")].find(b => b.textContent.includes(`Stage ${s}:`)).focus(); };
  if (s !== open) return own;
  for (const [chunk, layers] of stage.chunks) {
    make("h3", `chunk ${chunk}`, own);
    const list = make("ul", "", own);
    for (const [name, ops] of layers) {
      const fold = make("details", "", make("li", "", list));
      make("summary", `${name}: ${ops.length} node${ops.length > 1 ? "s" : ""}`, fold);
      fold.append(ops.join(", "));
    }
  }
  if (stage.channels.length) { make("h3", "leaves here", own); const list = make("ul", "", own); stage.channels.forEach(text => make("li", text, list)); }
  return own;
}
function table(all, most) {
  const rows = [];
  for (const step of steps) for (let r = 0; r < step.ranks.length; r++) {
    const rank = step.ranks[r];
    for (let i = 0; i < rank.s.length && rows.length < most; i++) {
      const s = rank.s[i] * step.tick, e = rank.e[i] * step.tick;
      if (!all && (e < a || s > b)) continue;
      rows.push({ plan: step.name, rank: r, track: D.tracks[trackOf(rank, i)], number: rank.id[i], work: D.kinds[rank.kind[i]][1], chunk: rank.chunk[i], part: rank.part[i], microbatch: rank.mb[i], start: s, end: e, waited: rank.cause[i] < 0 ? "" : D.causes[rank.cause[i]] });
    }
  }
  return rows;
}
function spansInView() {
  const box = $("view"), most = 200, rows = table(false, most);
  box.textContent = "";
  box.className = "wide";
  const it = make("table", "", box);
  make("caption", rows.length < most ? "Spans in view" : `The first ${most} spans in view; the downloads have all`, it);
  const head = make("tr", "", make("thead", "", it)), body = make("tbody", "", it);
  if (!rows.length) return;
  Object.keys(rows[0]).forEach(name => { make("th", name, head).scope = "col"; });
  rows.forEach(row => { const line = make("tr", "", body); Object.values(row).forEach(value => make("td", String(typeof value === "number" ? +value.toPrecision(6) : value), line)); });
}
function download(name, type, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
$("csv").onclick = () => {
  const rows = table(true, Infinity), cell = value => /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value;
  download("spans.csv", "text/csv", [Object.keys(rows[0] || {}), ...rows.map(Object.values)].map(row => row.map(cell).join()).join("\n") + "\n");
};
$("json").onclick = () => download("spans.json", "application/json", JSON.stringify(table(true, Infinity)));
$("in").onclick = () => zoom(0.6);
$("out").onclick = () => zoom(1 / 0.6);
$("fit").onclick = () => view(0, END);
$("path").onchange = redraw;
$("memory").onchange = $("ghost").onchange = () => size();
$("ghost-label").hidden = !steps.some(step => step.ghost);

function size() {
  layout();
  const room = Math.max(240, innerHeight - lanes.getBoundingClientRect().top - scrollY - 120);
  lanes.style.height = Math.min(content + 4, room) + "px";
  layout(); indexRows(); redraw();
}
lanes.addEventListener("scroll", redraw);
addEventListener("resize", size);
addEventListener("hashchange", recall);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
theme(); size(); recall();
