// What the page was made from: decoded once, never changed.

/** Bytes of a base64 text, as an ArrayBuffer. */
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

/** Turns from columns of milliseconds and speaker numbers. */
function turnsOf(columns) {
  return columns.start.map((start, i) => ({
    id: i,
    start: start / 1000,
    end: columns.end[i] / 1000,
    speaker: columns.speaker[i],
    confidence: columns.confidence ? columns.confidence[i] : null,
    modality: columns.modality ? columns.modality[i] : null,
    edited: columns.edited ? Boolean(columns.edited[i]) : false,
  }));
}

/**
 * Face tracks. A run is an uninterrupted part of a track. Between its knots, boxes move linearly.
 *
 * Knot k is at times[k] ms, in boxes[4 k] to boxes[4 k + 3] (x1, y1, x2, y2 in units of 1e-4 of the
 * picture). Run r has the knots first[r] to first[r + 1] - 1, and belongs to track[r].
 *
 * `scores` has the thousandths of each score, one for each box of the result; -32768 is unknown.
 */
class Tracks {
  constructor(content) {
    this.ids = content.ids;
    this.owner = content.owner;
    this.frameRate = content.frameRate;
    this.frameSize = content.frameSize;
    this.track = new Uint32Array(bytesOf(content.track));
    this.first = new Uint32Array(bytesOf(content.first));
    this.times = new Int32Array(bytesOf(content.times));
    this.boxes = new Int16Array(bytesOf(content.boxes));
    this.scores = ["confidence", "speaking"]
      .filter((name) => name in content)
      .map((name) => ({ name, values: new Int16Array(bytesOf(content[name])) }));
    // half a picture on either side: pictures of other frame rates fall between the rows
    this.margin = 0.5 / this.frameRate;
    this._buckets = new Map();
    for (let run = 0; run < this.track.length; run++) {
      const last = Math.floor((this.endOf(run) + 1) / Tracks.BUCKET);
      for (let b = Math.floor((this.startOf(run) - 1) / Tracks.BUCKET); b <= last; b++) {
        if (!this._buckets.has(b)) this._buckets.set(b, []);
        this._buckets.get(b).push(run);
      }
    }
  }

  /** Time of the first box of a run, in seconds. */
  startOf(run) {
    return this.times[this.first[run]] / 1000;
  }

  /** Time at which the last picture of a run ends, in seconds. */
  endOf(run) {
    return this.times[this.first[run + 1] - 1] / 1000 + 1 / this.frameRate;
  }

  /** Box of a run at a time, as fractions of the picture; ends of the run are kept. */
  boxAt(run, time) {
    const { times, boxes } = this;
    const ms = time * 1000;
    let low = this.first[run];
    let high = this.first[run + 1] - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= ms) low = middle;
      else high = middle;
    }
    const length = times[high] - times[low];
    const part = length ? Math.min(1, Math.max(0, (ms - times[low]) / length)) : 0;
    return [0, 1, 2, 3].map(
      (c) => ((1 - part) * boxes[4 * low + c] + part * boxes[4 * high + c]) / 10000,
    );
  }

  /** Faces that are visible at a time: number of the track and box. */
  at(time) {
    const runs = this._buckets.get(Math.floor(time / Tracks.BUCKET)) ?? [];
    const found = [];
    for (const run of runs) {
      if (time < this.startOf(run) - this.margin) continue;
      if (time >= this.endOf(run) - this.margin) continue;
      found.push({ track: this.track[run], box: this.boxAt(run, time) });
    }
    return found;
  }
}
Tracks.BUCKET = 5; // seconds

const data = JSON.parse(document.getElementById("data").textContent);
const tracks = data.tracks ? new Tracks(data.tracks) : null;
const hasFaces = Boolean(tracks && tracks.track.length);
const originalTurns = turnsOf(data.turns);
const originalExclusive = data.exclusive ? turnsOf(data.exclusive) : null;
const audioOnly = data.audioOnly ? turnsOf(data.audioOnly) : null;

/**
 * Parts of the time in which the same turns are active, from groups of turns.
 *
 * Yields {start, end, active}: one Map per group, from speaker to the turn that began first.
 */
function* segments(...groups) {
  const events = [];
  groups.forEach((turns, group) => {
    for (const turn of turns) {
      events.push({ time: turn.start, on: true, group, turn });
      events.push({ time: turn.end, on: false, group, turn });
    }
  });
  events.sort((a, b) => a.time - b.time || a.on - b.on);
  const running = groups.map(() => new Map());
  let last = null;
  for (const { time, on, group, turn } of events) {
    if (last !== null && time > last) {
      const active = running.map(
        (some) => new Map([...some].map(([speaker, turns]) => [speaker, turns[0]])),
      );
      if (active.some((some) => some.size)) yield { start: last, end: time, active };
    }
    last = time;
    const some = running[group];
    const turns = some.get(turn.speaker) ?? [];
    if (on) some.set(turn.speaker, [...turns, turn]);
    else if (turns.length > 1) some.set(turn.speaker, turns.filter((one) => one !== turn));
    else some.delete(turn.speaker);
  }
}

/** Append a part to a list of parts; joins it with the last one if they touch and are alike. */
function append(parts, part, alike = () => true) {
  const last = parts[parts.length - 1];
  if (last && part.start - last.end < 0.0015 && alike(last, part)) last.end = part.end;
  else parts.push(part);
}

/** Speaker of the result that shares most time with each speaker of the sound-only turns. */
function matchAudioSpeakers() {
  const shared = new Map();
  for (const { start, end, active } of segments(audioOnly, originalTurns)) {
    for (const a of active[0].keys()) {
      for (const b of active[1].keys()) {
        const key = `${a} ${b}`;
        shared.set(key, (shared.get(key) ?? 0) + end - start);
      }
    }
  }
  const match = new Map();
  const taken = new Set();
  for (const [key] of [...shared].sort((x, y) => y[1] - x[1])) {
    const [a, b] = key.split(" ").map(Number);
    if (match.has(a) || taken.has(b)) continue;
    match.set(a, b);
    taken.add(b);
  }
  return match;
}

/** Parts in which the result differs from the sound-only turns by at least 0.1 s. */
function findChanges(match) {
  const parts = [];
  for (const { start, end, active } of segments(audioOnly, originalTurns)) {
    const before = new Set([...active[0].keys()].map((one) => match.get(one) ?? `audio ${one}`));
    const after = new Set(active[1].keys());
    const added = [...after].filter((one) => !before.has(one));
    const removed = [...before].filter((one) => !after.has(one));
    if (!added.length && !removed.length) continue;
    const kind = added.length && removed.length ? "relabelled" : added.length ? "added" : "removed";
    append(parts, { start, end, kind, added, removed }, (a, b) =>
      a.kind === b.kind && String([a.added, a.removed]) === String([b.added, b.removed]));
  }
  return parts.filter((one) => one.end - one.start >= 0.1);
}

const audioMatch = audioOnly ? matchAudioSpeakers() : new Map();
const changes = audioOnly ? findChanges(audioMatch) : [];
