// The recording: playback, and the faces that are drawn over the picture.

const $ = (id) => document.getElementById(id);

/** Time as h:mm:ss.d; minutes always, hours if there are any. */
function clock(seconds, digits = 1) {
  const unit = 10 ** digits;
  const ticks = Math.max(0, Math.floor(seconds * unit + 1e-6));
  const whole = Math.floor(ticks / unit);
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const head = hours ? `${hours}:${two(minutes)}` : `${minutes}`;
  const tail = digits ? `.${String(ticks % unit).padStart(digits, "0")}` : "";
  return `${head}:${two(whole % 60)}${tail}`;
}

/** Tell everybody, screen readers included, what happened. */
function say(message) {
  $("status").textContent = message;
}

const playback = {
  media: document.createElement(data.media.kind === "audio" ? "audio" : "video"),
  ready: false,
  position: 0, // while there is no media
  shown: null, // time of the picture that is on the screen, where the browser tells
  loop: null, // id of the turn that is repeated
  solo: null, // id of the only speaker that is played
  until: null, // time at which playback pauses

  get time() {
    return this.ready ? this.media.currentTime : this.position;
  },
  get playing() {
    return this.ready && !this.media.paused;
  },
  seek(time) {
    this.position = Math.min(Math.max(0, time), duration());
    this.until = null;
    if (this.ready) this.media.currentTime = this.position;
    refresh();
  },
  play() {
    if (!this.ready) return say("There is nothing to play: choose the file");
    this.media.play().catch((error) => say(`This cannot be played: ${error.message}`));
  },
  toggle() {
    if (this.playing) this.media.pause();
    else {
      this.until = null;
      this.play();
    }
  },
  /** Play a turn, and pause at its end. */
  playTurn(turn) {
    this.seek(turn.start);
    this.until = turn.end;
    this.play();
  },
  /** Keep to the looped turn, to the only speaker, or to the end that was asked for. */
  steer() {
    if (!this.playing || this.media.seeking) return;
    const time = this.media.currentTime;
    const looped = this.loop === null ? null : derived.turn.get(this.loop);
    if (looped) {
      if (time >= looped.end || time < looped.start - 0.3) this.media.currentTime = looped.start;
    } else if (this.until !== null) {
      if (time >= this.until) {
        this.media.pause();
        this.until = null;
      }
    } else if (this.solo !== null) {
      const turns = derived.lanes.get(this.solo) ?? [];
      if (turns.some((one) => one.start - 0.05 <= time && time < one.end)) return;
      const next = turns.find((one) => one.start > time);
      if (next) this.media.currentTime = next.start;
      else this.media.pause();
    }
  },
};

/** Seconds of the recording: of the result, or of the media if these are longer. */
function duration() {
  const media = playback.ready && Number.isFinite(playback.media.duration) ? playback.media.duration : 0;
  return Math.max(data.duration, media, 0.1);
}

function setSolo(speaker) {
  playback.solo = playback.solo === speaker ? null : speaker;
  playback.loop = playback.until = null;
  refreshControls();
  say(playback.solo === null ? "Everybody is played" : `Only ${nameOf(playback.solo)} is played`);
}

function setLoop(on) {
  if (on && selected === null) return say("Choose a turn to loop");
  playback.loop = on ? selected : null;
  refreshControls();
  if (!on) return say("No loop");
  const turn = derived.turn.get(selected);
  playback.seek(turn.start);
  playback.play();
  say(`Looping ${spanOf(turn)}`);
}

function refreshControls() {
  const { loop, solo } = playback;
  document.body.classList.toggle("playing", playback.playing);
  $("play").lastElementChild.textContent = playback.playing ? "Pause" : "Play";
  $("loop").setAttribute("aria-pressed", loop !== null);
  $("solo").hidden = solo === null;
  $("solo").firstElementChild.textContent = solo === null ? "" : `Only ${nameOf(solo)}`;
  for (const button of document.querySelectorAll("[data-solo]")) {
    button.setAttribute("aria-pressed", Number(button.dataset.solo) === solo);
  }
}

// --- media ---

/** Address of the media: a file next to the page, or the bytes that are embedded in it. */
function addressOf() {
  const embedded = document.getElementById("media");
  if (!embedded) return data.media.src;
  return URL.createObjectURL(new Blob([bytesOf(embedded.textContent)], { type: data.media.type }));
}

function openMedia(address) {
  const { media } = playback;
  media.src = address;
  media.load();
}

function mediaIsMissing() {
  playback.ready = false;
  const { name, src } = data.media;
  $("missing").hidden = false;
  document.body.classList.add("no-media");
  $("missing").querySelector("p").textContent = !name
    ? "This page was made without its recording."
    : `“${name}” cannot be played: it is no longer where it was (${src || "in this page"}), or this browser does not know its format.`;
  refreshControls();
}

function mediaIsReady() {
  const { media, position } = playback;
  playback.ready = true;
  document.body.classList.remove("no-media");
  $("missing").hidden = true;
  if (media.videoWidth) $("stage").style.aspectRatio = `${media.videoWidth} / ${media.videoHeight}`;
  if (position) media.currentTime = position;
  resized();
}

function setUpMedia() {
  const { media } = playback;
  media.preload = "auto";
  media.playsInline = true;
  media.tabIndex = -1;
  if (media.tagName === "VIDEO") {
    $("stage").prepend(media);
    media.addEventListener("click", () => playback.toggle());
  } else {
    document.body.classList.add("sound-only");
    $("stage").append(media);
  }
  media.addEventListener("loadedmetadata", mediaIsReady);
  media.addEventListener("error", mediaIsMissing);
  for (const event of ["play", "pause", "ended"]) media.addEventListener(event, refreshControls);
  media.addEventListener("play", tick);
  for (const event of ["seeked", "timeupdate", "loadeddata"]) media.addEventListener(event, () => {
    playback.steer(); // also while the page is in the background
    refresh();
  });
  if (media.requestVideoFrameCallback) {
    const onPicture = (now, picture) => {
      playback.shown = picture.mediaTime;
      drawBoxes();
      media.requestVideoFrameCallback(onPicture);
    };
    media.requestVideoFrameCallback(onPicture);
  }
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) openMedia(URL.createObjectURL(file));
  });
  const address = addressOf();
  if (address) openMedia(address);
  else mediaIsMissing();
}

/** While the recording plays, the position follows it. */
function tick() {
  playback.steer();
  refresh();
  if (playback.playing) requestAnimationFrame(tick);
}

// --- faces ---

let boxesShown = true;
/** Boxes of the last drawing, in pixels of the stage, and the time that they belong to. */
const drawn = { time: null, boxes: [], count: 0 };

/** Where the picture is on the stage: it keeps its shape, between bars if need be. */
function pictureArea() {
  const { media } = playback;
  const stage = $("boxes").getBoundingClientRect();
  const [width, height] = [media.videoWidth || 16, media.videoHeight || 9];
  const scale = Math.min(stage.width / width, stage.height / height);
  const area = { width: width * scale, height: height * scale };
  return { ...area, x: (stage.width - area.width) / 2, y: (stage.height - area.height) / 2 };
}

function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Draw the faces of the picture that is on the screen. */
function drawBoxes() {
  const { media } = playback;
  if (media.tagName !== "VIDEO") return;
  const canvas = $("boxes");
  const context = fitCanvas(canvas, canvas.clientWidth, canvas.clientHeight);
  drawn.boxes = [];
  if (!hasFaces || !boxesShown || !playback.ready || !media.videoWidth) return;
  // while seeking, the old picture stays until the new one arrives
  const rough = playback.shown === null || Math.abs(playback.shown - media.currentTime) > 0.5;
  const time = rough && !media.seeking ? media.currentTime : playback.shown ?? media.currentTime;
  const area = pictureArea();
  drawn.time = time;
  drawn.count += 1;
  const size = Math.max(11, Math.min(16, area.height / 24));
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { track, box } of tracks.at(time)) {
    const speaker = derived.speaker.get(state.owner[track]);
    const speaks = Boolean(speaker) && speaksAt(speaker.id, time);
    const x = area.x + box[0] * area.width;
    const y = area.y + box[1] * area.height;
    const width = (box[2] - box[0]) * area.width;
    const height = (box[3] - box[1]) * area.height;
    const name = speaker ? speaker.name : "";
    drawn.boxes.push({ track: tracks.ids[track], name, speaks, x, y, width, height });
    context.setLineDash(speaker ? [] : [4, 4]);
    for (const [colour, line] of [["#000a", 2], [speaker?.colour ?? "#ddd", 0]]) {
      context.strokeStyle = colour;
      context.lineWidth = (speaks ? 3.5 : 1.5) + line;
      context.strokeRect(x, y, width, height);
    }
    if (speaker) drawLabel(context, speaker, speaks, { x, y, height, size, area });
  }
}

/** Name of a face: above its box, or inside where there is no room; with a dot while it speaks. */
function drawLabel(context, speaker, speaks, { x, y, height, size, area }) {
  const text = speaks ? `● ${speaker.name}` : speaker.name;
  const short = text.length > 32 ? `${[...text].slice(0, 31).join("")}…` : text;
  const width = Math.min(context.measureText(short).width + size, area.width);
  const tall = size * 1.5;
  const top = y - tall >= area.y ? y - tall : Math.max(area.y, y + Math.min(0, height - tall));
  const left = Math.max(area.x, Math.min(x, area.x + area.width - width));
  context.globalAlpha = speaks ? 1 : 0.75;
  context.fillStyle = speaker.colour;
  context.fillRect(left, top, width, tall);
  context.globalAlpha = 1;
  context.fillStyle = inkOn(speaker.colour);
  context.fillText(short, left + size / 2, top + tall / 2, width - size);
}

/** Index of the first turn of a list that ends after a time (lists are sorted by start). */
function firstAfter(turns, time) {
  let low = 0;
  let high = turns.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (turns[middle].end <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

function speaksAt(speaker, time) {
  const turns = derived.lanes.get(speaker) ?? [];
  const one = turns[firstAfter(turns, time)];
  return Boolean(one) && one.start <= time;
}
