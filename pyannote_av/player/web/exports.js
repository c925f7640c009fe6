// Files made of the corrected result.

/** Time with hours, minutes and milliseconds, as SRT has it. */
function stamp(seconds) {
  const ms = Math.round(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const rest = String(ms % 1000).padStart(3, "0");
  return `${two(Math.floor(ms / 3600000))}:${two(Math.floor(ms / 60000) % 60)}:${two(Math.floor(ms / 1000) % 60)},${rest}`;
}

/** A name as a field of RTTM, which cannot hold white space. */
const field = (name) => name.replace(/\s+/gu, "_") || "<NA>";
const oneLine = (name) => name.replace(/[\r\n\u2028\u2029]+/gu, " ");
const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** Turns without overlap: who began first goes on, unless the result says otherwise. */
function exclusiveTurns() {
  if (state.turns === initial.turns) {
    return originalExclusive ?? state.turns;
  }
  const parts = [];
  for (const { start, end, active } of segments(state.turns)) {
    const [first] = [...active[0].values()].sort(byTime);
    append(parts, { start, end, speaker: first.speaker }, (a, b) => a.speaker === b.speaker);
  }
  return parts;
}

/** Names in RTTM: two speakers must not become one. */
function fieldNames() {
  const taken = new Set();
  return new Map(state.speakers.map(({ id, name }) => {
    let unique = field(name);
    for (let i = 2; taken.has(unique); i++) unique = `${field(name)}_${i}`;
    taken.add(unique);
    return [id, unique];
  }));
}

function toRttm() {
  const names = fieldNames();
  return state.turns
    .map(({ start, end, speaker }) =>
      `SPEAKER ${field(data.uri || "<NA>")} 1 ${start.toFixed(3)} ${(end - start).toFixed(3)} <NA> <NA> ${names.get(speaker)} <NA> <NA>\n`)
    .join("");
}

function toSrt() {
  return state.turns
    .map(({ start, end, speaker }, i) => `${i + 1}\n${stamp(start)} --> ${stamp(end)}\n${oneLine(nameOf(speaker))}\n\n`)
    .join("");
}

function toCsv() {
  const rows = state.turns.map(({ start, end, speaker, confidence, modality }) =>
    [data.uri ?? "", start.toFixed(3), end.toFixed(3), (end - start).toFixed(3), nameOf(speaker), confidence ?? "", modality ?? ""]
      .map(String).map(quoted).join(","));
  return ["uri,start,end,duration,speaker,confidence,modality", ...rows, ""].join("\n");
}

/** New name of every speaker of the original result; merged speakers share a name. */
function toNames() {
  const names = {};
  for (const { label, merged, name } of state.speakers) {
    for (const one of [label, ...(merged ?? [])]) if (one !== null) names[one] = name;
  }
  return JSON.stringify({ uri: data.uri, names }, null, 2) + "\n";
}

/** Face tracks with a box for every picture, as in files of pyannote-av. */
function tracksContent() {
  const step = 1 / tracks.frameRate;
  const content = { uri: data.uri, frame_rate: round(tracks.frameRate) };
  if (tracks.frameSize) content.frame_size = tracks.frameSize;
  const entries = tracks.ids.map((id, i) => {
    const speaker = state.owner[i] >= 0 ? nameOf(state.owner[i]) : null;
    return { id, speaker, start: 0, end: 0, times: [], boxes: [] };
  });
  let row = 0; // of the scores, which are in the order of runs
  for (let run = 0; run < tracks.track.length; run++) {
    const entry = entries[tracks.track[run]];
    const start = tracks.startOf(run);
    const count = Math.round((tracks.endOf(run) - start) / step);
    for (let i = 0; i < count; i++) {
      entry.times.push(round(start + i * step));
      entry.boxes.push(tracks.boxAt(run, start + i * step).map((v) => Math.round(v * 1e5) / 1e5));
    }
    for (const { name, values } of tracks.scores) {
      entry[name] ??= [];
      for (const v of values.subarray(row, row + count)) entry[name].push(v === -32768 ? null : v / 1000);
    }
    row += count;
  }
  for (const entry of entries) {
    for (const { name } of tracks.scores) if (entry[name].every((v) => v === null)) delete entry[name];
    entry.start = entry.times[0];
    entry.end = round(entry.times[entry.times.length - 1] + step);
  }
  content.tracks = entries;
  return content;
}

function toJson() {
  const plain = ({ start, end, speaker }) => ({ start: round(start), end: round(end), speaker: nameOf(speaker) });
  const provenance = ({ confidence, modality, edited }) => {
    if (edited) return { confidence: null, edited: true };
    return modality === null ? {} : { confidence, modality };
  };
  const content = {
    format: data.format,
    version: data.version,
    uri: data.uri,
    diarization: state.turns.map((one) => ({ ...plain(one), ...provenance(one) })),
    exclusive_diarization: exclusiveTurns().map(plain),
    speakers: [...new Set(state.turns.map((one) => nameOf(one.speaker)))].sort(),
  };
  if (audioOnly) {
    content.audio_only = audioOnly.map(({ start, end, speaker }) =>
      ({ start, end, speaker: data.audioSpeakers[speaker] }));
  }
  if (tracks) content.face_tracks = tracksContent();
  if (data.report) content.report = data.report;
  return JSON.stringify(content) + "\n";
}

const EXPORTS = {
  rttm: { make: toRttm, suffix: ".rttm", type: "text/plain" },
  json: { make: toJson, suffix: ".json", type: "application/json" },
  srt: { make: toSrt, suffix: ".srt", type: "application/x-subrip" },
  csv: { make: toCsv, suffix: ".csv", type: "text/csv" },
  names: { make: toNames, suffix: ".names.json", type: "application/json" },
};

/** Offer a file for download. */
function download(kind) {
  const { make, suffix, type } = EXPORTS[kind];
  const stem = (data.uri || "talk").replace(/[/\\:*?"<>|\u0000-\u001f]+/gu, "_");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([make()], { type: `${type};charset=utf-8` }));
  link.download = `${stem}${kind === "names" ? "" : ".corrected"}${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say(`${link.download} exported`);
}
