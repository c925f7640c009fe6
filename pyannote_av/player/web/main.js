// Start of the page: keys, theme, and what follows from a change.

/** The position has changed. */
let saidAt = -1;
function refresh() {
  const { time } = playback;
  $("time").textContent = `${clock(time)} / ${clock(duration())}`;
  if (playback.playing) reveal(time);
  placePlayhead();
  if (!playback.media.requestVideoFrameCallback || !playback.playing) drawBoxes();
  const slider = $("lanes");
  // screen readers read every change: four times a second is enough
  if (Math.floor(4 * time) === saidAt) return;
  saidAt = Math.floor(4 * time);
  const speaking = state.speakers.filter((one) => speaksAt(one.id, time)).map((one) => one.name);
  slider.setAttribute("aria-valuenow", time.toFixed(1));
  slider.setAttribute("aria-valuetext", `${clock(time)}, ${speaking.length ? `${speaking.join(", ")} speaking` : "silence"}`);
}

function resized() {
  $("lanes").setAttribute("aria-valuemax", duration().toFixed(1));
  refreshLanes();
  setView(view.start, view.span);
  drawBoxes();
  drawList();
}

function stateChanged() {
  if (selected !== null && !derived.turn.has(selected)) selected = null;
  if (playback.loop !== null && !derived.turn.has(playback.loop)) playback.loop = null;
  if (playback.solo !== null && !derived.speaker.has(playback.solo)) playback.solo = null;
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  saidAt = -1;
  refreshSpeakers();
  refreshTurn();
  refreshList();
  refreshControls();
  refreshLanes();
  refresh();
  drawTimeline();
  drawBoxes();
}

/** Select and show the next turn (1) or the one before (-1). */
function step(direction) {
  const { turns } = state;
  const now = turns.findIndex((one) => one.id === selected);
  const { time } = playback;
  let index = now + direction;
  if (now < 0 && direction > 0) index = turns.findIndex((one) => one.start > time);
  if (now < 0 && direction < 0) index = turns.filter((one) => one.start < time - 0.1).length - 1;
  const turn = turns[index];
  if (turn) select(turn.id, { seek: true });
  else say(direction > 0 ? "This is the last turn" : "This is the first turn");
}

function toggleBoxes() {
  boxesShown = !boxesShown;
  $("show-boxes").setAttribute("aria-pressed", boxesShown);
  drawBoxes();
}

function toggleMute() {
  playback.media.muted = !playback.media.muted;
  $("mute").setAttribute("aria-pressed", playback.media.muted);
  document.body.classList.toggle("muted", playback.media.muted);
}

function escape() {
  if ($("export").open) $("export").open = false;
  else if (drag) {
    drag = null;
    show(state);
  } else {
    if (playback.solo !== null) setSolo(playback.solo);
    playback.loop = playback.until = null;
    select(null);
  }
}

const PICTURE = 1 / 25;
const withTurn = (act) => () => (derived.turn.has(selected) ? act(derived.turn.get(selected)) : say("Choose a turn first"));
const KEYS = {
  " ": () => playback.toggle(),
  ArrowLeft: (event) => playback.seek(playback.time - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => playback.seek(playback.time + (event.shiftKey ? 10 : 1)),
  ",": () => playback.seek(playback.time - PICTURE),
  ".": () => playback.seek(playback.time + PICTURE),
  Home: () => playback.seek(0),
  End: () => playback.seek(duration()),
  "+": () => zoom(0.5),
  "=": () => zoom(0.5),
  "-": () => zoom(2),
  "0": () => setView(0, duration()),
  n: () => step(1),
  p: () => step(-1),
  Enter: withTurn((turn) => playback.playTurn(turn)),
  l: () => setLoop(playback.loop === null),
  s: withTurn((turn) => setSolo(turn.speaker)),
  a: addAtPosition,
  x: withTurn((turn) => splitTurn(turn.id, playback.time)),
  "[": () => setBoundary("start", playback.time),
  "]": () => setBoundary("end", playback.time),
  Delete: withTurn((turn) => deleteTurn(turn.id)),
  Backspace: withTurn((turn) => deleteTurn(turn.id)),
  u: undo,
  U: redo,
  b: toggleBoxes,
  m: toggleMute,
  "?": () => $("keys").showModal(),
  Escape: escape,
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const { key, target } = event;
  const typing = target.matches("input:not([type=color]), select, textarea");
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    if (typing || !["z", "Z", "y"].includes(key)) return;
    event.preventDefault();
    return key === "z" && !event.shiftKey ? undo() : redo();
  }
  if (event.altKey || typing) return;
  // a button answers to these keys itself
  if ((key === " " || key === "Enter") && target.closest("button, summary, label, input")) return;
  let act = KEYS[key];
  if (/^[1-9]$/.test(key)) {
    act = withTurn((turn) => state.speakers[key - 1] && relabelTurn(turn.id, state.speakers[key - 1].id));
  }
  if (!act) return;
  event.preventDefault();
  act(event);
  if (key.startsWith("Arrow") || key === "Home" || key === "End") reveal(playback.time);
}

/** Dark or light: as the system has it, until the button is used. */
function setUpTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("pyannote-av:theme");
  } catch {
    // no storage: the system decides
  }
  const apply = () => {
    root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    patterns.clear();
    readColours();
    drawTimeline();
  };
  $("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("pyannote-av:theme", chosen);
    } catch {
      // it holds until the page is closed
    }
    apply();
  });
  dark.addEventListener("change", apply);
  apply();
}

function offerToRestore() {
  const content = kept();
  if (!content) return;
  const banner = $("restore");
  banner.hidden = false;
  banner.querySelector("p").textContent = `This browser has kept corrections of ${new Date(content.saved).toLocaleString()}.`;
  banner.addEventListener("click", (event) => {
    const { answer } = event.target.dataset;
    if (!answer) return;
    banner.hidden = true;
    if (answer === "restore") restore(content);
    else discard();
  });
}

function start() {
  document.title = `${data.title} · speakers`;
  $("title").textContent = data.title;
  document.body.classList.toggle("no-faces", !hasFaces);
  view.span = Math.min(duration(), 600);
  setUpMedia();
  setUpPointer();
  setUpTurn();
  setUpList();
  setUpTabs();
  fillReport();
  fillLegend();
  setUpTheme();
  onChange(stateChanged);
  stateChanged();
  setView(0, view.span);
  refreshTurn();
  const actions = {
    play: () => playback.toggle(), previous: () => step(-1), next: () => step(1), undo, redo,
    loop: () => setLoop(playback.loop === null), solo: () => setSolo(playback.solo),
    "show-boxes": toggleBoxes, mute: toggleMute, help: KEYS["?"],
    "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2), "zoom-all": KEYS["0"],
    "new-speaker": () => {
      const id = addSpeaker();
      $("speakers").querySelector(`[data-speaker="${id}"] input`).select();
    },
  };
  for (const [id, act] of Object.entries(actions)) $(id).addEventListener("click", act);
  $("speed").addEventListener("change", () => (playback.media.playbackRate = Number($("speed").value)));
  $("export").addEventListener("click", (event) => {
    const kind = event.target.closest("[data-export]")?.dataset.export;
    if (!kind) return;
    $("export").open = false;
    download(kind);
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("#export")) $("export").open = false;
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("pagehide", keepNow);
  new ResizeObserver(resized).observe($("timeline"));
  new ResizeObserver(drawBoxes).observe($("stage"));
  narrow.addEventListener("change", resized);
  offerToRestore();
}

start();

/** For scripts and tests: what is shown, and the texts that are exported. */
window.pyannoteAV = {
  get time() { return playback.time; },
  get state() { return state; },
  get drawn() { return drawn; },
  get view() { return view; },
  get media() { return playback.media; },
  changes,
  seek: (time) => playback.seek(time),
  textOf: (kind) => EXPORTS[kind].make(),
};
