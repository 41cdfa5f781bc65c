// The page for browsers: cameras, what is recorded of a day, and playing it. Everything it knows comes from /api/v1.
"use strict";

const $ = (selector) => document.querySelector(selector);
const DAY_MS = 86_400_000;
// A clip that the page plays by itself; the next one follows.
const CLIP_MS = 10 * 60_000;
const REFRESH_MS = 5_000;

const page = {
  session: null,
  cameras: [],
  camera: null,
  day: startOfDay(new Date()),
  view: null, // [from, to] of the timeline, in ms
  spans: [],
  gaps: [],
  clip: null, // {from, to}: the true range of what the video element has, in ms
  asked: 0,
  rtsp: null,
};

function startOfDay(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}

async function api(method, path, body) {
  const options = { method, headers: {}, credentials: "same-origin" };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(`/api/v1/${path}`, options);
  const text = await answer.text();
  const document = text ? JSON.parse(text) : null;
  if (!answer.ok) {
    const problem = document ?? {};
    const words = [problem.detail ?? problem.title ?? `status ${answer.status}`, problem.remedy].filter(Boolean);
    throw Object.assign(new Error(words.join(". ")), { status: answer.status });
  }
  return document;
}

function text(tag, words, classes = "") {
  const element = document.createElement(tag);
  element.textContent = words;
  element.className = classes;
  return element;
}

const may = (right) => page.session?.rights?.includes(right) ?? false;
const iso = (ms) => new Date(ms).toISOString();
const two = (n) => String(n).padStart(2, "0");

function localTime(ms, withDay = true) {
  const d = new Date(ms);
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return withDay ? `${localDay(d)} ${time}` : time;
}

function localDay(d) {
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${bytes < 10 && unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function spanOfTime(seconds) {
  if (seconds >= 2 * 86_400) return `${Math.round(seconds / 86_400)} days`;
  if (seconds >= 2 * 3_600) return `${Math.round(seconds / 3_600)} h`;
  if (seconds >= 120) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds)} s`;
}

// --- who ---

async function begin() {
  try {
    page.session = await api("GET", "session");
  } catch (error) {
    page.session = null;
    if (error.status !== 401) $("#login .wrong").textContent = error.message;
  }
  const inside = page.session !== null && (may("live") || may("playback"));
  const known = Boolean(page.session?.name);
  $("#login").hidden = inside;
  $("#tabs").hidden = !inside;
  $("#logout").hidden = !known;
  $("#login-show").hidden = known || !inside;
  $("#who").textContent = known ? `${page.session.name} (${page.session.role})` : "";
  $("#add").hidden = !may("configure");
  $('#tabs [data-tab="state"]').hidden = !may("status");
  show(inside ? "cameras" : null);
  if (inside) await refresh();
}

function show(tab) {
  for (const name of ["cameras", "state"]) $(`#${name}`).hidden = name !== tab;
  for (const button of document.querySelectorAll("#tabs button")) button.classList.toggle("chosen", button.dataset.tab === tab);
  if (tab === "cameras") draw();
}

$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  try {
    await api("POST", "session", { name: form.get("name"), password: form.get("password") });
    event.target.reset();
    $("#login .wrong").textContent = "";
    await begin();
  } catch (error) {
    $("#login .wrong").textContent = error.message;
  }
});
$("#logout").addEventListener("click", async () => {
  await api("DELETE", "session");
  location.reload();
});
$("#login-show").addEventListener("click", () => {
  show(null);
  $("#login").hidden = false;
});
for (const button of document.querySelectorAll("#tabs button")) button.addEventListener("click", () => { show(button.dataset.tab); refresh(); });

// --- cameras ---

async function allCameras() {
  const found = [];
  let cursor = "";
  do {
    const answer = await api("GET", `cameras?limit=500${cursor}`);
    found.push(...answer.cameras);
    cursor = answer.next ? `&cursor=${encodeURIComponent(answer.next)}` : "";
  } while (cursor);
  return found;
}

async function refresh() {
  if (page.session === null || document.hidden) return;
  try {
    if (!$("#state").hidden) return showState(await api("GET", "status"));
    if ($("#cameras").hidden) return;
    page.cameras = await allCameras();
    listCameras();
    if (page.camera) await loadTimeline();
    else if (page.cameras.length) choose(page.cameras[0].name);
  } catch (error) {
    if (error.status === 401) return begin();
    $("#note").textContent = error.message;
  }
}

function listCameras() {
  const items = page.cameras.map((camera) => {
    const status = camera.status ?? { state: "connecting" };
    const button = document.createElement("button");
    button.className = camera.name === page.camera ? "chosen" : "";
    button.append(text("span", "", `dot ${status.state}`), text("b", camera.name), text("small", words(status)));
    button.addEventListener("click", () => choose(camera.name));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  $("#list").replaceChildren(...items);
  $("#none").hidden = items.length > 0;
  const chosen = page.cameras.find((c) => c.name === page.camera);
  $("#stage").hidden = !chosen;
  if (!chosen) return;
  $("#about").textContent = about(chosen);
  $("#manage").hidden = !may("configure") || chosen.kept_in !== "added";
  $("#export").hidden = !may("export");
  $("#toggle").textContent = chosen.mode === "off" ? "Record it again" : "Stop recording";
}

function words(status) {
  if (status.state !== "recording") return [status.state, status.reason].filter(Boolean).join(": ");
  const c = status.counters ?? {};
  return `recording, ${(c.fps ?? 0).toFixed(0)} pictures/s, ${((c.bitrate_bps ?? 0) / 1e6).toFixed(1)} Mbit/s${c.packets_lost ? `, ${c.packets_lost} packets lost` : ""}`;
}

function about(camera) {
  const streams = (camera.status?.streams ?? []).map((s) => (s.video ? `${s.codec} ${s.width}×${s.height}` : s.codec));
  const parts = [...streams, size(camera.usage.bytes)];
  if (camera.usage.first) parts.push(`since ${localTime(Date.parse(camera.usage.first))}`);
  return parts.join(", ");
}

async function choose(name) {
  page.camera = name;
  page.view = null;
  page.clip = null;
  stopVideo();
  $("#name").textContent = name;
  $("#note").textContent = "";
  listCameras();
  const camera = page.cameras.find((c) => c.name === name);
  const last = camera?.usage.last ? Date.parse(camera.usage.last) : Date.now();
  page.day = startOfDay(new Date(last));
  await loadTimeline();
  showUrl();
}

$("#add form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const wrong = event.target.querySelector(".wrong");
  wrong.textContent = "Trying the camera …";
  try {
    await api("POST", "cameras", { name: form.get("name"), url: form.get("url") });
    wrong.textContent = "";
    event.target.reset();
    await refresh();
    choose(form.get("name"));
  } catch (error) {
    wrong.textContent = error.message;
  }
});
$("#toggle").addEventListener("click", async () => {
  const camera = page.cameras.find((c) => c.name === page.camera);
  await change("PATCH", `cameras/${page.camera}`, { mode: camera.mode === "off" ? "continuous" : "off" });
});
$("#remove").addEventListener("click", async () => {
  if (!confirm(`Remove ${page.camera}? Its recordings stay.`)) return;
  await change("DELETE", `cameras/${page.camera}`);
  page.camera = null;
  await refresh();
});

async function change(method, path, body) {
  try {
    await api(method, path, body);
    await refresh();
  } catch (error) {
    $("#note").textContent = error.message;
  }
}

// --- the day ---

const dayRange = () => [page.day.getTime(), new Date(page.day.getFullYear(), page.day.getMonth(), page.day.getDate() + 1).getTime()];

async function loadTimeline() {
  const [from, to] = dayRange();
  const name = page.camera;
  $("#day").value = localDay(page.day);
  if (!may("playback")) {
    $("#note").textContent = "This account may not see recordings.";
    return;
  }
  const spans = [];
  const gaps = [];
  let start = iso(from);
  do {
    const answer = await api("GET", `cameras/${name}/timeline?from=${start}&to=${iso(to)}`);
    spans.push(...answer.spans);
    gaps.push(...answer.gaps);
    start = answer.more_from;
  } while (start && Date.parse(start) < to);
  if (name !== page.camera || from !== dayRange()[0]) return;
  const inMs = (r) => ({ ...r, from: Date.parse(r.start), to: Date.parse(r.end) });
  page.spans = spans.map(inMs);
  page.gaps = gaps.map(inMs);
  draw();
}

function draw() {
  const canvas = $("#timeline");
  if (!canvas.clientWidth) return;
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const g = canvas.getContext("2d");
  g.scale(scale, scale);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const width = canvas.clientWidth;
  const [from, to] = page.view ?? dayRange();
  const x = (ms) => ((ms - from) / (to - from)) * width;
  const bar = (r, name) => {
    g.fillStyle = colour(name);
    g.fillRect(x(r.from), 22, Math.max(1, x(r.to) - x(r.from)), 34);
  };
  for (const gap of page.gaps) bar(gap, "--bad");
  for (const span of page.spans) bar(span, span.backfilled ? "--warn" : "--good");
  g.fillStyle = colour("--text");
  g.font = "11px system-ui, sans-serif";
  const step = [60e3, 300e3, 600e3, 1800e3, 3600e3, 7200e3, 10800e3].find((s) => x(from + s) > 62) ?? 21600e3;
  const first = page.day.getTime();
  for (let at = first + Math.ceil((from - first) / step) * step; at <= to; at += step) {
    g.fillRect(x(at), 16, 1, 6);
    g.fillText(localTime(at, false).slice(0, 5), x(at) + 3, 13);
  }
  const position = now();
  if (position !== null) {
    g.fillStyle = colour("--mark");
    g.fillRect(x(position) - 1, 14, 2, 48);
  }
}

const at = (event) => {
  const [from, to] = page.view ?? dayRange();
  return from + (event.offsetX / event.target.clientWidth) * (to - from);
};

$("#timeline").addEventListener("click", (event) => play(at(event)));
$("#timeline").addEventListener("mousemove", (event) => {
  const ms = at(event);
  const within = (r) => r.from <= ms && ms < r.to;
  const span = page.spans.find(within);
  const gap = page.gaps.find(within);
  const what = span ? (span.backfilled ? "back-filled from the camera's own archive" : "recorded") : gap ? `not recorded: ${gap.cause}` : "nothing recorded";
  $("#tip").textContent = `${localTime(ms)}  ${what}`;
});
$("#timeline").addEventListener("wheel", (event) => {
  event.preventDefault();
  const [first, last] = dayRange();
  const [from, to] = page.view ?? [first, last];
  const middle = at(event);
  const factor = event.deltaY > 0 ? 1.4 : 1 / 1.4;
  const length = Math.min(last - first, Math.max(120e3, (to - from) * factor));
  const start = Math.min(last - length, Math.max(first, middle - ((middle - from) / (to - from)) * length));
  page.view = length >= last - first ? null : [start, start + length];
  draw();
}, { passive: false });
addEventListener("resize", draw);

function goDay(date) {
  page.day = startOfDay(date);
  page.view = null;
  loadTimeline().catch((error) => { $("#note").textContent = error.message; });
}
$("#back-day").addEventListener("click", () => goDay(new Date(page.day.getTime() - DAY_MS / 2)));
$("#next-day").addEventListener("click", () => goDay(new Date(page.day.getTime() + DAY_MS * 1.5)));
$("#day").addEventListener("change", (event) => {
  const [y, m, d] = event.target.value.split("-").map(Number);
  if (y && m && d) goDay(new Date(y, m - 1, d));
});
$("#newest").addEventListener("click", async () => {
  await refresh();
  const last = page.cameras.find((c) => c.name === page.camera)?.usage.last;
  if (!last) return;
  const end = Date.parse(last);
  page.day = startOfDay(new Date(end));
  await loadTimeline();
  play(end - 30e3);
});

// --- playing ---

const video = $("#video");
const now = () => (page.clip ? page.clip.from + video.currentTime * 1000 : null);

function stopVideo() {
  video.pause();
  video.removeAttribute("src");
  video.load();
}

// Plays from a moment on; from the next footage where there is none. A clip stays within one span, so that its time is the wall's.
async function play(ms) {
  const span = page.spans.find((s) => ms < s.to - 500);
  if (!span) {
    $("#note").textContent = "Nothing is recorded after that on this day.";
    return;
  }
  const from = Math.max(ms, span.from);
  const to = Math.min(from + CLIP_MS, span.to);
  const asked = ++page.asked;
  const url = `/api/v1/cameras/${page.camera}/play.mp4?start=${iso(from)}&end=${iso(to)}`;
  const head = await fetch(url, { method: "HEAD" });
  if (asked !== page.asked) return;
  if (!head.ok) {
    $("#note").textContent = head.status === 422 ? "The stream's format changes within this clip: play it in another player, or export it in parts." : `The clip cannot be had (status ${head.status}).`;
    return;
  }
  const start = Date.parse(head.headers.get("x-corenvr-start") ?? iso(from));
  page.clip = { from: start, to };
  $("#note").textContent = span.backfilled ? "This was back-filled from the camera's own archive, by its clock." : "";
  video.src = url;
  video.currentTime = Math.max(0, (from - start) / 1000);
  video.playbackRate = Number($("#speed").value);
  video.play().catch(() => {});
  showUrl();
}

video.addEventListener("ended", () => { if (page.clip) play(page.clip.to + 1); });
video.addEventListener("error", () => {
  if (video.getAttribute("src")) $("#note").textContent = "This browser cannot show the clip (H.265 is not known to all of them). The URL below works in VLC, mpv and ffplay.";
});
video.addEventListener("timeupdate", () => {
  const position = now();
  $("#clock").textContent = position === null ? "" : localTime(position);
  draw();
});
video.addEventListener("pause", showUrl);

function move(seconds) {
  const position = now();
  if (position === null) return;
  const wanted = position + seconds * 1000;
  if (wanted >= page.clip.from && wanted < page.clip.to) video.currentTime += seconds;
  else play(wanted);
}

function picture(direction) {
  const fps = page.cameras.find((c) => c.name === page.camera)?.status?.counters?.fps || 25;
  video.pause();
  move(direction / fps);
}
$("#back").addEventListener("click", () => move(-10));
$("#on").addEventListener("click", () => move(10));
$("#frame").addEventListener("click", () => picture(1));
$("#frame-back").addEventListener("click", () => picture(-1));
$("#speed").addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || $("#cameras").hidden) return;
  if (event.key === ".") picture(1);
  else if (event.key === ",") picture(-1);
});

async function showUrl() {
  if (!page.camera) return;
  if (page.rtsp === null && may("status")) page.rtsp = (await api("GET", "status")).rtsp?.[0] ?? "";
  const port = page.rtsp?.match(/:(\d+)$/)?.[1];
  // Only the status tells the port, and who has not logged in is not told that.
  $(".url").hidden = port === undefined;
  const position = now();
  const query = position === null ? "" : `?start=${iso(position)}`;
  $("#rtsp").textContent = `rtsp://${location.hostname}:${port}/${page.camera}${query}`;
  if (position !== null) {
    const form = $("#export");
    if (!form.from.value) {
      form.from.value = `${localDay(new Date(position))}T${localTime(position, false)}`;
      form.to.value = `${localDay(new Date(position + 60e3))}T${localTime(position + 60e3, false)}`;
    }
  }
}

$("#export").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  const kind = event.submitter.value;
  const [from, to] = [new Date(form.from.value), new Date(form.to.value)];
  if (!(from < to)) {
    $("#note").textContent = "The end has to be after the beginning.";
    return;
  }
  const link = document.createElement("a");
  link.href = `/api/v1/cameras/${page.camera}/clip.${kind}?start=${from.toISOString()}&end=${to.toISOString()}`;
  link.download = "";
  link.click();
});

// --- state ---

function row(...cells) {
  const line = document.createElement("tr");
  line.append(...cells.map((c) => text("td", c)));
  return line;
}

function showState(status) {
  const share = (shard, name) => `${(shard.classes.find((c) => c.class === name)?.cpu_percent ?? 0).toFixed(1)} %`;
  $("#shards tbody").replaceChildren(...status.shards.map((s) => row(
    s.name, `${s.cpu_percent.toFixed(1)} %`, share(s, "recording"), share(s, "live"), share(s, "playback"), share(s, "maintenance"),
    s.stalls ? `${s.stalls}, at most ${s.stall_max_ms} ms` : "none", `${s.silent_ms} ms ago`)));
  $("#disks tbody").replaceChildren(...status.disks.map((d) => row(
    d.path, `${size(d.free)} of ${size(d.total)}`, `${size(d.used)} in ${d.segments} files`, d.oldest ? localTime(Date.parse(d.oldest)) : "",
    d.horizon_s == null ? "" : spanOfTime(d.horizon_s), d.failed ?? "in use")));
  const sessions = status.playback?.sessions ?? [];
  $("#viewers tbody").replaceChildren(...sessions.map((s) => row(s.user ?? "", s.peer ?? "", s.camera ?? "", s.kind ?? "", s.agent ?? "")));
}

begin();
setInterval(refresh, REFRESH_MS);
