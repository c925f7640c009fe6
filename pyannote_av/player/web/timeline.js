// The timeline: one lane per speaker, and lanes for sound alone, changes and notes.

const LANE = 30; // pixels
const narrow = window.matchMedia("(max-width: 699px)");
/** The visible part of the recording, in seconds. */
const view = { start: 0, span: 10 };
let selected = null; // id of the chosen turn
let drag = null;
let lanes = [];

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
let ink = {};
function readColours() {
  ink = { text: style("--text"), soft: style("--soft"), line: style("--line"), back: style("--back"), lane: style("--lane"), accent: style("--accent"), warn: style("--warn") };
}

const laneTitle = { audio: "Sound alone", changes: "Changed by picture", notes: "Problems" };
const notes = data.notes.map(([start, end, text]) => ({ start: start / 1000, end: end / 1000, text }));

/** Lanes from top to bottom. On narrow screens, each has its name above it. */
function layOut() {
  const head = narrow.matches ? 16 : 0;
  let top = 0;
  const lane = (kind, height, more) => {
    const one = { kind, top: top + head, height, head, ...more };
    top += head + height;
    return one;
  };
  lanes = state.speakers.map((one) => lane("speaker", LANE, { speaker: one }));
  if (audioOnly) lanes.push(lane("audio", LANE));
  if (audioOnly) lanes.push(lane("changes", 20));
  if (notes.length) lanes.push(lane("notes", 20));
  lanes.total = top;
}

function refreshLanes() {
  layOut();
  const items = lanes.map((lane) => {
    const item = document.createElement("li");
    const { speaker } = lane;
    item.style.top = `${lane.top - lane.head}px`;
    item.style.height = `${narrow.matches ? lane.head : lane.height}px`;
    if (speaker) {
      const button = document.createElement("button");
      const dot = document.createElement("i");
      const name = document.createElement("span");
      dot.style.background = speaker.colour;
      name.textContent = speaker.name;
      name.dir = "auto";
      button.type = "button";
      button.title = `List the turns of ${speaker.name}`;
      button.append(dot, name);
      button.addEventListener("click", () => listTurns(speaker.id));
      item.append(button);
    } else item.textContent = laneTitle[lane.kind];
    return item;
  });
  $("names").replaceChildren(...items);
  $("lanes").style.height = $("names").style.height = `${lanes.total}px`;
  const room = Math.max(140, Math.min(lanes.total, narrow.matches ? 420 : window.innerHeight * 0.38));
  $("scroll").style.maxHeight = `${room}px`;
  $("scroll").classList.toggle("overflows", lanes.total > room + 1);
}

// --- the visible part ---

const widthOf = () => $("ruler").clientWidth;
const xOf = (time) => ((time - view.start) / view.span) * widthOf();
const timeOf = (x) => view.start + (x / Math.max(1, widthOf())) * view.span;
const least = () => Math.min(1, duration());

function setView(start, span) {
  view.span = Math.min(Math.max(span, least()), duration());
  view.start = Math.min(Math.max(start, 0), duration() - view.span);
  drawTimeline();
}

/** Zoom in (factor below 1) or out, around a time that stays where it is. */
function zoom(factor, around = playback.time) {
  const inside = around >= view.start && around <= view.start + view.span;
  const centre = inside ? around : view.start + view.span / 2;
  const span = Math.min(Math.max(view.span * factor, least()), duration());
  setView(centre - ((centre - view.start) / view.span) * span, span);
}

/** Show a time: by jumps, so that nothing glides. */
function reveal(time, share = 0.1) {
  if (time < view.start || time > view.start + view.span) setView(time - share * view.span, view.span);
}

// --- drawing ---

const patterns = new Map();
/** Diagonal stripes of a colour: the speaker is off screen. */
function stripes(context, colour) {
  const key = `${colour} ${window.devicePixelRatio}`;
  if (!patterns.has(key)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const pen = tile.getContext("2d");
    pen.fillStyle = colour;
    pen.globalAlpha = 0.25;
    pen.fillRect(0, 0, 6, 6);
    pen.globalAlpha = 1;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.8;
    for (const shift of [-6, 0, 6]) {
      pen.beginPath();
      pen.moveTo(shift - 1, 7);
      pen.lineTo(shift + 7, -1);
      pen.stroke();
    }
    patterns.set(key, context.createPattern(tile, "repeat"));
  }
  return patterns.get(key);
}

/** Height of a bar: the surer, the taller. */
const tallness = (turn) => 8 + 14 * (turn.confidence ?? (turn.edited ? 1 : 0.7));

let redraw = 0;
function drawTimeline() {
  if (redraw) return;
  redraw = requestAnimationFrame(() => {
    redraw = 0;
    drawNow();
  });
}

function drawNow() {
  drawRuler();
  drawLanes();
  drawOverview();
  placePlayhead();
}

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
function stepOf() {
  const seconds = (view.span * 80) / Math.max(1, widthOf());
  return STEPS.find((one) => one >= seconds) ?? 7200;
}

function drawRuler() {
  const canvas = $("ruler");
  const context = fitCanvas(canvas, canvas.clientWidth, canvas.clientHeight);
  const step = stepOf();
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = ink.soft;
  context.strokeStyle = ink.line;
  context.beginPath();
  for (let i = Math.floor(view.start / step); i * step <= view.start + view.span; i++) {
    const x = Math.round(xOf(i * step)) + 0.5;
    context.moveTo(x, 14);
    context.lineTo(x, 22);
    const text = clock(i * step, step < 1 ? 1 : 0);
    const wide = context.measureText(text).width;
    context.fillText(text, Math.min(Math.max(2, x - wide / 2), canvas.clientWidth - wide - 2), 8);
  }
  context.stroke();
}

function drawLanes() {
  const holder = $("lanes");
  const canvas = holder.firstElementChild;
  const scroll = $("scroll");
  const height = Math.min(lanes.total, scroll.clientHeight || lanes.total);
  canvas.style.height = `${height}px`;
  const width = holder.clientWidth;
  const context = fitCanvas(canvas, width, height);
  context.translate(0, -scroll.scrollTop);
  const last = scroll.scrollTop + height;
  const step = stepOf();
  lanes.forEach((lane, i) => {
    if (lane.top + lane.height < scroll.scrollTop || lane.top - lane.head > last) return;
    if (i % 2 === 0) {
      context.fillStyle = ink.lane;
      context.fillRect(0, lane.top - lane.head, width, lane.height + lane.head);
    }
    context.fillStyle = ink.line;
    for (let k = Math.ceil(view.start / step); k * step <= view.start + view.span; k++) {
      context.fillRect(Math.round(xOf(k * step)), lane.top, 1, lane.height);
    }
    DRAW[lane.kind](context, lane, width);
  });
}

/** Visible turns of a sorted list with their edges in pixels; those closer than a pixel as one. */
function* bars(turns, width) {
  const end = view.start + view.span;
  let reached = -Infinity;
  for (let i = firstAfter(turns, view.start); i < turns.length && turns[i].start < end; i++) {
    const x = Math.max(-10, xOf(turns[i].start));
    const right = Math.min(width + 10, Math.max(xOf(turns[i].end), x + 1));
    if (right <= reached && turns[i].id !== selected) continue;
    reached = right;
    yield { turn: turns[i], x, right };
  }
}

const DRAW = {
  speaker(context, { top, height, speaker }, width) {
    const turns = derived.lanes.get(speaker.id);
    const visible = derived.visible.get(speaker.id);
    const stripe = stripes(context, speaker.colour);
    const base = top + height - 5;
    for (const { turn, x, right } of bars(turns, width)) {
      const tall = tallness(turn);
      if (!hasFaces || right - x < 2) {
        context.fillStyle = speaker.colour;
        context.fillRect(x, base - tall, right - x, tall);
      } else {
        context.fillStyle = stripe;
        context.fillRect(x, base - tall, right - x, tall);
        context.fillStyle = speaker.colour;
        for (let i = firstAfter(visible, turn.start); i < visible.length && visible[i].start < turn.end; i++) {
          const from = Math.max(x, xOf(visible[i].start));
          const to = Math.min(right, xOf(visible[i].end));
          if (to > from) context.fillRect(from, base - tall, to - from, tall);
        }
      }
      if (right - x > 4) {
        context.strokeStyle = speaker.colour;
        context.lineWidth = 1;
        context.strokeRect(x + 0.5, base - tall + 0.5, right - x - 1, tall - 1);
      }
      if (turn.edited && right - x > 6) {
        context.fillStyle = ink.text;
        context.beginPath();
        context.moveTo(x, base - tall);
        context.lineTo(x + 7, base - tall);
        context.lineTo(x, base - tall + 7);
        context.fill();
      }
      if (turn.id === selected) {
        context.strokeStyle = ink.text;
        context.lineWidth = 2;
        context.strokeRect(x - 1, top + 2, right - x + 2, height - 4);
        context.fillStyle = ink.text;
        for (const edge of [x - 3, right - 1]) context.fillRect(edge, top + height / 2 - 6, 4, 12);
      }
    }
    context.fillStyle = ink.text;
    for (const { x, right } of bars(derived.overlap.get(speaker.id), width)) {
      context.fillRect(x, base + 1.5, right - x, 2.5);
    }
  },
  audio(context, { top, height }, width) {
    const count = Math.max(1, data.audioSpeakers.length);
    const row = (height - 6) / count;
    const rows = new Map();
    for (const turn of audioOnly) {
      if (!rows.has(turn.speaker)) rows.set(turn.speaker, []);
      rows.get(turn.speaker).push(turn);
    }
    for (const [id, turns] of rows) {
      context.fillStyle = derived.speaker.get(audioMatch.get(id))?.colour ?? ink.soft;
      for (const { x, right } of bars(turns, width)) {
        context.fillRect(x, top + 3 + row * id, right - x, Math.max(1.5, row - 1));
      }
    }
  },
  changes(context, { top, height }, width) {
    const middle = top + height / 2;
    context.fillStyle = ink.line;
    context.fillRect(0, middle, width, 1);
    context.fillStyle = ink.accent;
    for (const { turn, x, right } of bars(changes, width)) {
      const [from, to] = { added: [-7, 0], removed: [1, 8], relabelled: [-7, 8] }[turn.kind];
      context.fillRect(x, middle + from, right - x, to - from);
    }
  },
  notes(context, { top, height }, width) {
    context.fillStyle = stripes(context, ink.warn);
    context.strokeStyle = ink.warn;
    for (const { x, right } of bars(notes, width)) {
      context.fillRect(x, top + 4, right - x, height - 8);
      context.strokeRect(x + 0.5, top + 4.5, Math.max(1, right - x - 1), height - 9);
    }
  },
};

let overviewKey = "";
const overviewImage = document.createElement("canvas");
function drawOverview() {
  const canvas = $("overview");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const key = [width, height, window.devicePixelRatio, duration(), JSON.stringify(ink)].join();
  if (overviewKey !== key || overviewImage.state !== state) {
    overviewKey = key;
    overviewImage.state = state;
    const context = fitCanvas(overviewImage, width, height);
    const row = (height - 4) / Math.max(1, state.speakers.length);
    state.speakers.forEach((speaker, i) => {
      context.fillStyle = speaker.colour;
      for (const turn of derived.lanes.get(speaker.id)) {
        const x = (turn.start / duration()) * width;
        const right = (turn.end / duration()) * width;
        context.fillRect(x, 2 + i * row, Math.max(0.7, right - x), Math.max(1, row - 0.5));
      }
    });
  }
  const context = fitCanvas(canvas, width, height);
  if (overviewImage.width && overviewImage.height) context.drawImage(overviewImage, 0, 0, width, height);
  const x = (view.start / duration()) * width;
  const wide = Math.max(3, (view.span / duration()) * width);
  context.fillStyle = ink.back;
  context.globalAlpha = 0.6;
  context.fillRect(0, 0, x, height);
  context.fillRect(x + wide, 0, width, height);
  context.globalAlpha = 1;
  context.strokeStyle = ink.accent;
  context.lineWidth = 1.5;
  context.strokeRect(Math.min(x, width - 3) + 0.75, 0.75, wide - 1.5, height - 1.5);
}

function placePlayhead() {
  const x = xOf(playback.time);
  $("playhead").style.transform = `translateX(${x}px)`;
  $("playhead").hidden = x < -1 || x > widthOf() + 1;
}

// --- pointer ---

/** Turn and edge under the pointer; edges are easier to hit with a mouse than with a finger. */
function hit(event) {
  const bounds = $("lanes").getBoundingClientRect();
  const x = event.clientX - bounds.left;
  const y = event.clientY - bounds.top;
  const lane = lanes.find((one) => y >= one.top - one.head && y < one.top + one.height);
  const time = timeOf(x);
  const found = { lane, time, turn: null, side: null, x };
  if (!lane) return found;
  const list = { speaker: derived.lanes.get(lane.speaker?.id), audio: audioOnly, changes, notes }[lane.kind];
  const finger = event.pointerType !== "mouse";
  const reach = (finger ? 16 : 5) * (view.span / Math.max(1, widthOf()));
  let nearest = Infinity;
  for (let i = Math.max(0, firstAfter(list, time - reach) - 1); i < list.length && list[i].start <= time + reach; i++) {
    const one = list[i];
    if (time >= one.start && time < one.end && !found.turn) found.turn = one;
    if (lane.kind !== "speaker" || (finger && one.id !== selected)) continue;
    for (const side of ["start", "end"]) {
      const far = Math.abs(time - one[side]);
      // in short turns, edges leave room to click between them
      if (far < Math.min(reach, Math.max((one.end - one.start) / 3, reach / 3)) || (far < reach && (side === "start" ? time < one.start : time > one.end))) {
        if (far < nearest) Object.assign(found, { turn: one, side });
        nearest = Math.min(nearest, far);
      }
    }
  }
  return found;
}

function select(id, { seek = false, focus = false } = {}) {
  selected = id;
  const turn = derived.turn.get(id);
  if (playback.loop !== null) playback.loop = id;
  if (turn) {
    reveal(turn.start, 0.3);
    if (seek) playback.seek(turn.start);
  }
  refreshTurn();
  refreshList(true);
  refreshControls();
  drawTimeline();
  if (focus) $("turns").focus();
}

const fingers = new Map();

function setUpPointer() {
  const area = $("lanes");
  area.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    area.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      drag = { kind: "pinch" };
      return;
    }
    const { turn, side, lane, time } = hit(event);
    if (turn && side) {
      drag = { kind: "edge", id: turn.id, side, time: turn[side] };
      if (selected !== turn.id) select(turn.id);
    } else drag = { kind: "click", x: event.clientX, start: view.start, turn: lane?.kind === "speaker" ? turn : null, time };
  });
  area.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return point(event);
    const before = fingers.get(event.pointerId);
    fingers.set(event.pointerId, event);
    if (drag?.kind === "pinch" && fingers.size === 2) return pinch(before, event);
    if (drag?.kind === "edge") return dragEdge(event);
    if (drag?.kind === "click" && Math.abs(event.clientX - drag.x) > 4) {
      drag.kind = "pan";
      area.classList.add("panning");
    }
    if (drag?.kind === "pan") {
      setView(drag.start - ((event.clientX - drag.x) / widthOf()) * view.span, view.span);
    }
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    area.classList.remove("panning");
    const done = drag;
    if (fingers.size && done?.kind === "pinch") return;
    drag = null;
    $("tip").hidden = true;
    if (event.type === "pointercancel") return drawTimeline();
    if (done?.kind === "click") {
      playback.seek(done.time);
      select(done.turn ? done.turn.id : null);
    } else if (done?.kind === "edge") {
      const turn = derived.turn.get(done.id);
      if (turn && round(done.time) !== turn[done.side]) changeTurn(done.id, { [done.side]: done.time });
      else drawTimeline();
    }
  };
  area.addEventListener("pointerup", release);
  area.addEventListener("pointercancel", release);
  area.addEventListener("pointerleave", () => ($("tip").hidden = true));
  area.addEventListener("dblclick", (event) => {
    const { lane, turn, time } = hit(event);
    if (lane?.kind === "speaker" && !turn) {
      const id = addTurn(lane.speaker.id, time, time + Math.min(2, view.span / 10));
      if (id !== null) select(id);
    } else if (turn && lane.kind === "speaker") playback.playTurn(turn);
  });
  const wheel = (event) => {
    const overflows = $("scroll").classList.contains("overflows") && event.currentTarget === area;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (overflows && !sideways && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const unit = event.deltaMode ? 33 : 1;
    const moved = event.deltaX || (event.shiftKey ? event.deltaY : 0);
    if (sideways) setView(view.start + ((moved * unit) / widthOf()) * view.span, view.span);
    else zoom(1.0018 ** (event.deltaY * unit), timeOf(event.clientX - area.getBoundingClientRect().left));
  };
  for (const one of [area, $("ruler"), $("overview")]) one.addEventListener("wheel", wheel, { passive: false });
  $("scroll").addEventListener("scroll", drawTimeline);
  holdAndMove($("ruler"), (x) => playback.seek(timeOf(x)));
  holdAndMove($("overview"), (x, width, event) => {
    const time = (x / width) * duration();
    if (event.type === "pointerdown" && view.span >= duration() * 0.999) playback.seek(time);
    else setView(time - view.span / 2, view.span);
  });
}

/** Call a function with the place of the pointer while it is held down. */
function holdAndMove(canvas, move) {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    move(event.offsetX, canvas.clientWidth, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) move(event.offsetX, canvas.clientWidth, event);
  });
}

function dragEdge(event) {
  const turn = derived.turn.get(drag.id);
  const { left } = $("lanes").getBoundingClientRect();
  drag.time = round(bounded(turn, drag.side, timeOf(event.clientX - left)));
  // the turn follows the pointer; it is changed, in one step, when the pointer is released
  const lane = derived.lanes.get(turn.speaker);
  const moved = { ...turn, [drag.side]: drag.time, edited: true };
  derived.lanes.set(turn.speaker, lane.map((one) => (one.id === turn.id ? moved : one)));
  drawTimeline();
  tip(event, `${drag.side === "start" ? "Starts" : "Ends"} at ${clock(drag.time, 2)}`);
}

function pinch(before, now) {
  const [a, b] = [...fingers.values()];
  const other = a.pointerId === now.pointerId ? b : a;
  const { left } = $("lanes").getBoundingClientRect();
  const was = Math.max(20, Math.abs(before.clientX - other.clientX));
  const is = Math.max(20, Math.abs(now.clientX - other.clientX));
  const centre = (now.clientX + other.clientX) / 2 - left;
  const time = timeOf((before.clientX + other.clientX) / 2 - left);
  const span = Math.min(Math.max((view.span * was) / is, least()), duration());
  setView(time - (centre / widthOf()) * span, span);
}

/** Show what is under the pointer. */
function point(event) {
  const { turn, side, lane, time } = hit(event);
  $("lanes").style.cursor = side ? "ew-resize" : turn && lane.kind === "speaker" ? "pointer" : "";
  if (!turn || event.pointerType !== "mouse") return void ($("tip").hidden = true);
  tip(event, describe(lane, turn, time));
}

const HOW = { audio: "by sound", video: "by picture", "audio+video": "by sound and picture" };

/** How a turn came about, in words. */
function source({ confidence, modality, edited }) {
  if (edited) return "corrected by hand";
  const how = HOW[modality];
  if (confidence === null) return how ? `decided ${how} alone` : "";
  return `decided ${how ?? "by the model"}, confidence ${Math.round(100 * confidence)} %`;
}

function describe(lane, turn) {
  const span = `${clock(turn.start, 2)} to ${clock(turn.end, 2)}`;
  const names = (some) => some.map((id) => nameOf(id) || "somebody else").join(", ");
  if (lane.kind === "notes") return `${span}: ${turn.text}`;
  if (lane.kind === "audio") {
    return `${span}: ${nameOf(audioMatch.get(turn.speaker)) || data.audioSpeakers[turn.speaker]}, from sound alone`;
  }
  if (lane.kind === "changes") {
    const parts = [];
    if (turn.added.length) parts.push(`${names(turn.added)} added`);
    if (turn.removed.length) parts.push(`${names(turn.removed)} removed`);
    return `${span}: ${parts.join(", ")}`;
  }
  return [`${nameOf(turn.speaker)}, ${span}`, source(turn)].filter(Boolean).join(", ");
}

function tip(event, text) {
  const element = $("tip");
  element.textContent = text;
  element.hidden = false;
  const bounds = $("timeline").getBoundingClientRect();
  const x = Math.min(event.clientX - bounds.left + 12, bounds.width - element.offsetWidth - 4);
  element.style.left = `${Math.max(4, x)}px`;
  element.style.top = `${event.clientY - bounds.top - element.offsetHeight - 10}px`;
}
