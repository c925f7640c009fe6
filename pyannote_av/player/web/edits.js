// Corrections: an immutable state, the steps that change it, undo, and what is kept in the browser.

// M. A. Petroff, "Accessible color sequences for data visualization", arXiv:2107.02270
const PALETTE = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"];
PALETTE.push("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd");

/** Colour of speaker `i`: safe for colour-blind readers up to 10, then spread over the hues. */
function colourOf(i) {
  if (i < PALETTE.length) return PALETTE[i];
  const hue = (i * 137.508) % 360;
  const light = 0.45 + 0.1 * (i % 3);
  const amount = 0.55 * Math.min(light, 1 - light);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    const value = light - amount * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(255 * value).toString(16).padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((i) => {
    const value = parseInt(colour.slice(i, i + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

const byTime = (a, b) => a.start - b.start || a.end - b.end || a.id - b.id;
const round = (seconds) => Math.round(seconds * 1000) / 1000;
const SHORTEST = 0.02; // seconds, of a turn

const initial = Object.freeze({
  turns: originalTurns,
  speakers: data.speakers.map((name, id) => ({ id, name, label: name, colour: colourOf(id) })),
  owner: tracks ? tracks.owner : [], // speaker of each track, -1 where unknown
});

let state = initial;
let derived = derive(initial);
let past = [];
let future = [];
const listeners = [];

/** Call a function after every change of the state. */
function onChange(listener) {
  listeners.push(listener);
}

/** What follows from a state: turns by speaker, seconds, overlap, and when faces are visible. */
function derive(from) {
  const lanes = new Map(from.speakers.map((one) => [one.id, []]));
  const turn = new Map();
  for (const one of from.turns) {
    lanes.get(one.speaker)?.push(one);
    turn.set(one.id, one);
  }
  const seconds = new Map();
  const overlap = new Map();
  for (const [id, some] of lanes) {
    seconds.set(id, 0);
    overlap.set(id, []);
    let end = -Infinity;
    for (const one of some) {
      seconds.set(id, seconds.get(id) + Math.max(0, one.end - Math.max(one.start, end)));
      end = Math.max(end, one.end);
    }
  }
  for (const { start, end, active } of segments(from.turns)) {
    if (active[0].size < 2) continue;
    for (const id of active[0].keys()) append(overlap.get(id), { start, end });
  }
  const visible = new Map(from.speakers.map((one) => [one.id, []]));
  if (hasFaces) {
    const runs = [];
    for (let run = 0; run < tracks.track.length; run++) {
      const speaker = from.owner[tracks.track[run]];
      if (speaker >= 0) runs.push({ speaker, start: tracks.startOf(run), end: tracks.endOf(run) });
    }
    runs.sort((a, b) => a.start - b.start);
    for (const { speaker, start, end } of runs) {
      const parts = visible.get(speaker);
      const last = parts?.[parts.length - 1];
      if (last && start <= last.end + 0.1) last.end = Math.max(last.end, end);
      else parts?.push({ start, end });
    }
  }
  const speaker = new Map(from.speakers.map((one) => [one.id, one]));
  return { lanes, turn, seconds, overlap, visible, speaker };
}

function show(next) {
  state = next;
  derived = derive(next);
  for (const listener of listeners) listener();
}

/** Make a step that can be undone, say what it did, and keep the result in the browser. */
function commit(next, message) {
  past.push({ state, message });
  future = [];
  show({ ...state, ...next });
  say(message);
  keep();
}

function undo() {
  const step = past.pop();
  if (!step) return say("Nothing to undo");
  future.push({ state, message: step.message });
  show(step.state);
  say(`Undone: ${step.message}`);
  keep();
}

function redo() {
  const step = future.pop();
  if (!step) return say("Nothing to redo");
  past.push({ state, message: step.message });
  show(step.state);
  say(`Done again: ${step.message}`);
  keep();
}

const nameOf = (id) => derived.speaker.get(id)?.name ?? "";
const spanOf = (turn) => `${clock(turn.start)} to ${clock(turn.end)}`;
const nextId = (list) => list.reduce((most, one) => Math.max(most, one.id), -1) + 1;

/** Change a turn; its confidence and modality no longer hold. */
function changeTurn(id, change, message) {
  const before = derived.turn.get(id);
  const after = { ...before, ...change, confidence: null, modality: null, edited: true };
  after.start = round(after.start);
  after.end = round(after.end);
  const turns = state.turns.map((one) => (one.id === id ? after : one)).sort(byTime);
  commit({ turns }, message ?? `Turn of ${nameOf(after.speaker)}: ${spanOf(after)}`);
}

/** Nearest times to which the boundaries of a turn can be moved: no turn of the same speaker. */
function limitsOf(turn, speaker = turn.speaker) {
  let from = 0;
  let to = duration();
  const middle = (turn.start + turn.end) / 2;
  for (const one of derived.lanes.get(speaker) ?? []) {
    if (one.id === turn.id) continue;
    if (one.end <= middle) from = Math.max(from, one.end);
    else if (one.start >= middle) to = Math.min(to, one.start);
  }
  return { from: Math.min(from, turn.start), to: Math.max(to, turn.end) };
}

/** Move a boundary, as far as neighbours and the other boundary allow. */
function bounded(turn, side, time) {
  const { from, to } = limitsOf(turn);
  return side === "start"
    ? Math.min(Math.max(from, time), turn.end - SHORTEST)
    : Math.max(Math.min(to, time), turn.start + SHORTEST);
}

function relabelTurn(id, speaker) {
  const before = derived.turn.get(id);
  if (!before || before.speaker === speaker) return;
  const rest = state.turns.filter((one) => one.id !== id);
  const moved = { ...before, speaker, confidence: null, modality: null, edited: true };
  const message = `Turn ${spanOf(before)}: ${nameOf(speaker)} instead of ${nameOf(before.speaker)}`;
  commit({ turns: joined([...rest, moved], speaker) }, message);
}

function deleteTurn(id) {
  const before = derived.turn.get(id);
  if (!before) return;
  const turns = state.turns.filter((one) => one.id !== id);
  commit({ turns }, `Turn of ${nameOf(before.speaker)} deleted: ${spanOf(before)}`);
}

/** Add a turn; returns its id, or null where the speaker already speaks. */
function addTurn(speaker, start, end) {
  const from = round(Math.max(0, start));
  let to = round(Math.min(end, duration()));
  for (const one of derived.lanes.get(speaker) ?? []) {
    if (one.start <= from && one.end > from) {
      say(`${nameOf(speaker)} already speaks at ${clock(from)}`);
      return null;
    }
    if (one.start > from) to = Math.min(to, one.start);
  }
  if (to - from < SHORTEST) {
    say("No room for a turn here");
    return null;
  }
  const turn = { id: nextId(state.turns), start: from, end: to, speaker };
  Object.assign(turn, { confidence: null, modality: null, edited: true });
  commit({ turns: [...state.turns, turn].sort(byTime) }, `Turn of ${nameOf(speaker)} added: ${spanOf(turn)}`);
  return turn.id;
}

function splitTurn(id, time) {
  const before = derived.turn.get(id);
  if (!before || time < before.start + SHORTEST || time > before.end - SHORTEST) {
    return say("Move the position into the turn to split it");
  }
  const cut = round(time);
  const second = { ...before, id: nextId(state.turns), start: cut, edited: true };
  const turns = state.turns.map((one) => (one.id === id ? { ...one, end: cut, edited: true } : one));
  commit({ turns: [...turns, second].sort(byTime) }, `Turn split at ${clock(cut)}`);
}

/** Turns, with those of one speaker that overlap or touch united. */
function joined(turns, speaker) {
  const own = turns.filter((one) => one.speaker === speaker).sort(byTime);
  const kept = [];
  for (const one of own) {
    const last = kept[kept.length - 1];
    if (!last || one.start > last.end) kept.push(one);
    else if (one.end > last.end || one.edited) {
      const end = Math.max(last.end, one.end);
      kept[kept.length - 1] = { ...last, end, confidence: null, modality: null, edited: true };
    }
  }
  return [...turns.filter((one) => one.speaker !== speaker), ...kept].sort(byTime);
}

/** Name a speaker. Returns the other speaker who has this name already, or null. */
function renameSpeaker(id, name) {
  const clean = name.trim();
  const before = derived.speaker.get(id);
  if (!clean || clean === before.name) return null;
  const other = state.speakers.find((one) => one.id !== id && one.name === clean);
  if (other) return other;
  const speakers = state.speakers.map((one) => (one.id === id ? { ...one, name: clean } : one));
  commit({ speakers }, `${before.name} is now called ${clean}`);
  return null;
}

function recolourSpeaker(id, colour) {
  const speakers = state.speakers.map((one) => (one.id === id ? { ...one, colour } : one));
  commit({ speakers }, `New colour for ${nameOf(id)}`);
}

function addSpeaker() {
  const names = new Set(state.speakers.map((one) => one.name));
  let number = state.speakers.length + 1;
  while (names.has(`Speaker ${number}`)) number += 1;
  const id = nextId(state.speakers);
  const one = { id, name: `Speaker ${number}`, label: null, colour: colourOf(id) };
  commit({ speakers: [...state.speakers, one] }, `${one.name} added`);
  return id;
}

/** Give all turns and faces of one speaker to another. */
function mergeSpeakers(id, into) {
  const message = `${nameOf(id)} merged into ${nameOf(into)}`;
  const turns = joined(
    state.turns.map((one) => (one.speaker === id ? { ...one, speaker: into } : one)), into);
  const labels = new Set(state.speakers.find((one) => one.id === into).merged ?? []);
  const gone = state.speakers.find((one) => one.id === id);
  for (const label of [gone.label, ...(gone.merged ?? [])]) if (label !== null) labels.add(label);
  const speakers = state.speakers
    .filter((one) => one.id !== id)
    .map((one) => (one.id === into ? { ...one, merged: [...labels] } : one));
  const owner = state.owner.map((one) => (one === id ? into : one));
  commit({ turns, speakers, owner }, message);
}

// --- kept in the browser ---

const STORE = `pyannote-av:${data.key}`;
let keeping = 0;

/** Store the state, at most twice a second. */
function keep() {
  clearTimeout(keeping);
  keeping = setTimeout(keepNow, 500);
}

function keepNow() {
  clearTimeout(keeping);
  if (!past.length && !future.length) return;
  try {
    if (state === initial) localStorage.removeItem(STORE);
    else localStorage.setItem(STORE, JSON.stringify({ ...state, saved: Date.now() }));
  } catch {
    say("This browser cannot keep the corrections: export them before you close the page");
  }
}

/** Corrections kept by an earlier visit to this page, or null. */
function kept() {
  try {
    const content = JSON.parse(localStorage.getItem(STORE));
    const lists = [content.turns, content.speakers, content.owner];
    return lists.every(Array.isArray) && content.owner.length === initial.owner.length ? content : null;
  } catch {
    return null;
  }
}

function restore({ turns, speakers, owner }) {
  commit({ turns, speakers, owner }, "Corrections restored");
}

function discard() {
  try {
    localStorage.removeItem(STORE);
  } catch {
    // a browser without storage has kept nothing
  }
}
