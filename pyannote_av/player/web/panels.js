// Speakers, the chosen turn, the list of turns, and the report.

/** Element with text and properties. */
function element(tag, properties = {}, ...children) {
  const one = Object.assign(document.createElement(tag), properties);
  one.append(...children);
  return one;
}

const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "");

// --- speakers ---

function speakerCard(speaker) {
  const { id, name, colour } = speaker;
  const seconds = derived.seconds.get(id);
  const total = [...derived.seconds.values()].reduce((a, b) => a + b, 0);
  const turns = derived.lanes.get(id).length;
  const face = data.faces[id]
    ? element("img", { src: data.faces[id], alt: "", width: 48, height: 48 })
    : element("span", { className: "initial", ariaHidden: "true", textContent: [...name][0] ?? "?" });
  if (!data.faces[id]) {
    face.style.background = colour;
    face.style.color = inkOn(colour);
  }
  face.classList.add("face");
  face.style.borderColor = colour;
  const input = element("input", { value: name, type: "text", dir: "auto", spellcheck: false, maxLength: 200, ariaLabel: `Name of ${name}` });
  input.addEventListener("change", () => {
    const other = renameSpeaker(id, input.value);
    if (other) askToMerge(id, other.id);
    if (input.value !== nameOf(id)) input.value = nameOf(id);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") input.value = name;
    if (event.key === "Enter" || event.key === "Escape") input.blur();
  });
  const pick = element("input", { type: "color", value: colour, title: "Colour", ariaLabel: `Colour of ${name}` });
  pick.addEventListener("change", () => recolourSpeaker(id, pick.value));
  const solo = element("button", { type: "button", textContent: "Only", title: `Play only ${name}`, ariaLabel: `Play only ${name}` });
  solo.dataset.solo = id;
  solo.addEventListener("click", () => {
    setSolo(id);
    if (playback.solo !== null && !playback.playing) playback.play();
  });
  const merge = element("button", { type: "button", textContent: "Merge…", ariaLabel: `Merge ${name} into another speaker`, disabled: state.speakers.length < 2 });
  merge.addEventListener("click", () => askToMerge(id));
  const share = element("span", { className: "share" }, element("i"));
  share.firstElementChild.style.width = total ? `${(100 * seconds) / total}%` : "0";
  share.firstElementChild.style.background = colour;
  const numbers = `${clock(seconds)} · ${percent(seconds, total) || "0 %"}`;
  const card = element("li", {},
    face,
    element("div", { className: "about" }, element("div", { className: "line" }, input, pick),
      share,
      element("div", { className: "line" }, element("small", { textContent: numbers, title: `${turns} turn${turns === 1 ? "" : "s"}` }), element("span", { className: "grow" }), solo, merge)));
  card.dataset.speaker = id;
  return card;
}

function refreshSpeakers() {
  const active = document.activeElement;
  const place = active?.closest?.("#speakers [data-speaker]");
  const index = place ? [...place.querySelectorAll("input, button")].indexOf(active) : -1;
  $("speakers").replaceChildren(...state.speakers.map(speakerCard));
  // the card is a new one; whoever was in it stays in it
  const card = place && $("speakers").querySelector(`[data-speaker="${place.dataset.speaker}"]`);
  if (card && index >= 0) card.querySelectorAll("input, button")[index]?.focus();
}

/** Options for all speakers but one. */
function speakerOptions(except = null) {
  return state.speakers
    .filter((one) => one.id !== except)
    .map((one) => element("option", { value: String(one.id), textContent: one.name }));
}

function askToMerge(id, into = null) {
  const dialog = $("merge");
  $("merge-title").textContent = `Merge ${nameOf(id)}`;
  $("merge-into").replaceChildren(...speakerOptions(id));
  if (into !== null) $("merge-into").value = String(into);
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "merge") mergeSpeakers(id, Number($("merge-into").value));
  };
  dialog.showModal();
}

// --- the chosen turn ---

function refreshTurn() {
  const turn = derived.turn.get(selected);
  if (!turn) selected = null;
  for (const one of $("turn").elements) one.disabled = !turn;
  $("turn").classList.toggle("none", !turn);
  $("turn-title").textContent = turn ? `Turn ${state.turns.indexOf(turn) + 1} of ${state.turns.length}` : "Choose a turn";
  $("turn-source").textContent = turn ? source(turn) : "";
  const [start, end] = [$("turn-start"), $("turn-end")];
  start.value = turn ? turn.start.toFixed(2) : "";
  end.value = turn ? turn.end.toFixed(2) : "";
  $("turn-speaker").replaceChildren(...(turn ? speakerOptions() : []));
  if (turn) $("turn-speaker").value = String(turn.speaker);
}

function setBoundary(side, time) {
  const turn = derived.turn.get(selected);
  if (!turn) return say("Choose a turn first");
  const limited = round(bounded(turn, side, time));
  if (limited !== turn[side]) changeTurn(turn.id, { [side]: limited });
  refreshTurn();
}

function addAtPosition() {
  if (!state.speakers.length) addSpeaker();
  const chosen = derived.turn.get(selected)?.speaker ?? state.speakers[0].id;
  const { time } = playback;
  // the first speaker who is silent here, if the chosen one already speaks
  const free = [chosen, ...state.speakers.map((one) => one.id)].find((id) => !speaksAt(id, time));
  const id = addTurn(free ?? chosen, time, time + 1);
  if (id !== null) select(id);
}

function setUpTurn() {
  $("turn").addEventListener("submit", (event) => event.preventDefault());
  for (const side of ["start", "end"]) {
    const input = $(`turn-${side}`);
    input.addEventListener("change", () => {
      if (Number.isFinite(input.valueAsNumber)) setBoundary(side, input.valueAsNumber);
      else refreshTurn();
    });
  }
  $("turn-speaker").addEventListener("change", () => relabelTurn(selected, Number($("turn-speaker").value)));
  $("turn-play").addEventListener("click", () => playback.playTurn(derived.turn.get(selected)));
  $("turn-split").addEventListener("click", () => splitTurn(selected, playback.time));
  $("turn-delete").addEventListener("click", () => deleteTurn(selected));
  $("turn-add").addEventListener("click", addAtPosition);
}

// --- the list of turns, of which only the visible rows exist ---

const ROW = 34; // pixels
let listed = [];
let filter = "";

function listTurns(speaker) {
  filter = String(speaker);
  openTab("turns");
  refreshList();
  $("turns").focus();
}

function refreshList(keepInSight = false) {
  const options = [element("option", { value: "", textContent: "all speakers" }), ...speakerOptions()];
  $("filter").replaceChildren(...options);
  if (filter && !derived.speaker.has(Number(filter))) filter = "";
  $("filter").value = filter;
  listed = filter ? derived.lanes.get(Number(filter)) : state.turns;
  const box = $("turns");
  box.hidden = !listed.length;
  document.querySelector("#panel-turns .empty").hidden = Boolean(listed.length);
  box.firstElementChild.style.height = `${ROW * listed.length}px`;
  const index = listed.findIndex((one) => one.id === selected);
  if (keepInSight && index >= 0) {
    const top = index * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
  }
  drawList();
}

function drawList() {
  const box = $("turns");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5);
  const last = Math.min(listed.length, first + Math.ceil((box.clientHeight || 300) / ROW) + 10);
  const rows = [];
  for (let i = first; i < last; i++) {
    const turn = listed[i];
    const dot = element("i");
    dot.style.background = derived.speaker.get(turn.speaker).colour;
    const name = element("span", { className: "name", textContent: nameOf(turn.speaker), dir: "auto" });
    const row = element("div", { role: "option", id: `turn-${turn.id}`, title: source(turn) },
      element("span", { className: "when", textContent: clock(turn.start) }), dot, name,
      element("span", { className: "long", textContent: `${(turn.end - turn.start).toFixed(1)} s` }));
    row.setAttribute("aria-setsize", listed.length);
    row.setAttribute("aria-posinset", i + 1);
    row.setAttribute("aria-selected", turn.id === selected);
    row.style.top = `${i * ROW}px`;
    row.addEventListener("click", () => select(turn.id, { seek: true }));
    row.addEventListener("dblclick", () => playback.playTurn(turn));
    rows.push(row);
  }
  box.firstElementChild.replaceChildren(...rows);
  if (rows.some((row) => row.id === `turn-${selected}`)) box.setAttribute("aria-activedescendant", `turn-${selected}`);
  else box.removeAttribute("aria-activedescendant");
}

function setUpList() {
  $("turns").addEventListener("scroll", drawList);
  $("filter").addEventListener("change", () => {
    filter = $("filter").value;
    refreshList(true);
  });
  $("turns").addEventListener("keydown", (event) => {
    const page = Math.floor($("turns").clientHeight / ROW);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -listed.length, End: listed.length };
    if (!(event.key in steps) || !listed.length) return;
    event.preventDefault();
    event.stopPropagation();
    const now = listed.findIndex((one) => one.id === selected);
    const from = now >= 0 ? now : steps[event.key] > 0 ? -1 : 1;
    const index = Math.min(Math.max(from + steps[event.key], 0), listed.length - 1);
    select(listed[index].id, { seek: true });
  });
}

// --- tabs and report ---

const TABS = ["speakers", "turns", "report"];

function openTab(name) {
  for (const one of TABS) {
    const tab = $(`tab-${one}`);
    tab.setAttribute("aria-selected", one === name);
    tab.tabIndex = one === name ? 0 : -1;
    $(`panel-${one}`).hidden = one !== name;
  }
  if (name === "turns") refreshList(true);
}

function setUpTabs() {
  TABS.forEach((name, i) => {
    const tab = $(`tab-${name}`);
    tab.addEventListener("click", () => openTab(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const next = TABS[(i + step + TABS.length) % TABS.length];
      openTab(next);
      $(`tab-${next}`).focus();
    });
  });
}

function fillReport() {
  const { report } = data;
  const panel = $("panel-report");
  const add = (title, lines) => {
    if (!lines.length) return;
    panel.append(element("h2", { textContent: title }), element("ul", {}, ...lines.map((text) => element("li", { textContent: text, dir: "auto" }))));
  };
  const pairs = (some) => Object.entries(some ?? {}).map(([name, value]) => `${name}: ${typeof value === "number" ? Number(value.toPrecision(4)) : value}`);
  if (!report) return panel.append(element("p", { textContent: "This result has no report." }));
  panel.append(element("p", { className: "verdict", textContent: report.video_used ? "The picture was used." : "The picture was not used: this is the result of the sound." }));
  add("Why", report.reasons ?? []);
  add("What the picture changed", report.changes ?? []);
  add("Problems of the file", report.problems ?? []);
  add("Sound alone", (report.ignored_regions ?? []).map((one) => `${clock(one.start)} to ${clock(one.end)}: ${one.reason}`));
  add("Streams", (report.streams ?? []).map((one) => `${one.kind} ${one.index} (${one.codec}${one.details ? `, ${one.details}` : ""}): ${one.reason}`));
  add("Components", pairs(report.components));
  add("Numbers", pairs(report.numbers));
}

/** Legend of what the data have. */
function fillLegend() {
  const entries = [];
  if (hasFaces) entries.push(["on", "on screen"], ["off", "off screen"]);
  entries.push(["over", "overlap"]);
  if (originalTurns.some((one) => one.confidence !== null)) entries.push(["sure", "taller: surer"]);
  entries.push(["hand", "corrected"]);
  if (audioOnly) entries.push(["plus", "change: added, removed"]);
  $("legend").replaceChildren(...entries.map(([kind, text]) => element("li", {}, element("i", { className: kind }), text)));
}
