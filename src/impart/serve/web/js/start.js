// The page before a search: what the library holds, and ways to begin.

import { frameUrl } from "./api.js";
import { fill, h, icon, recall } from "./dom.js";
import { filtered, folderOf, lengthText } from "./query.js";

const TILES = 12;
const RECENT = 6;

/** Show the start page in an element. */
export async function startPage(app, element, signal) {
  fill(element, heading("Search this library"), h("div", { class: "grid tiles", "aria-hidden": "true" }, Array.from({ length: TILES }, () => h("div", { class: "card" }, h("div", { class: "thumb waiting" })))));
  let videos;
  let photos;
  try {
    [videos, photos] = await Promise.all(["video", "photo"].map((kind) => app.api.get(`/videos?kind=${kind}&sort=added&limit=${TILES}`, { signal })));
  } catch (error) {
    if (error.name !== "AbortError") fill(element, problem(app, error, () => startPage(app, element, signal)));
    return;
  }
  if (signal.aborted) return;
  const counts = [counted(videos.total, "video"), counted(photos.total, "photo")].filter(Boolean);
  if (!counts.length) {
    fill(element, emptyIndex(app));
    return;
  }
  const tiles = mixed(videos.videos, photos.videos);
  const recent = recall("recent", []).slice(0, RECENT);
  fill(
    element,
    heading(`Search ${counts.join(" and ")}`),
    h("p", { class: "soft start-filters", hidden: !filtered(app.state.value) }, "The filters apply to what you search for."),
    recent.length ? h("div", { class: "start-row" }, h("h3", {}, "Recent"), recent.map((text) => h("button", { type: "button", class: "button chip", onclick: () => app.state.set({ q: text }) }, text))) : null,
    h("h3", { class: "start-title" }, "From this library"),
    h("div", { class: "grid tiles" }, tiles.map((video) => tile(app, video))),
  );
}

function heading(text) {
  return h("div", { class: "start" }, h("h2", {}, text), h("p", { class: "soft" }, "Type what is seen, in a few words. Or drop an image, paste one, or pick one with ", icon("image"), "."));
}

function counted(total, word) {
  return total ? `${total.toLocaleString()} ${word}${total === 1 ? "" : "s"}` : null;
}

/** Videos first; photos take a third of the tiles where there are some. */
function mixed(videos, photos) {
  const stills = photos.slice(0, Math.max(TILES / 3, TILES - videos.length));
  return [...videos.slice(0, TILES - stills.length), ...stills];
}

function tile(app, video) {
  const isPhoto = video.kind === "photo";
  const hit = { ...video, start_s: 0, end_s: video.duration_s, best_s: video.duration_s / 3, video_s: video.duration_s, moments: [], steps: [] };
  const image = h("img", { src: frameUrl(video.video_id, hit.best_s, 320), alt: "", width: 320, height: 180, loading: "lazy", decoding: "async",
    onerror: () => image.replaceWith(h("span", { class: "missing" }, icon("image"))) });
  const tag = isPhoto ? "Photo" : lengthText(video.duration_s);
  const button = h("button", { type: "button", class: "thumb best", "data-play": "", "aria-label": `${isPhoto ? "Show" : "Play"} ${video.name}, ${tag}`,
    onclick: () => app.player.play({ video_id: video.video_id, name: video.name, kind: video.kind, start_s: 0, end_s: 0 }) },
    image, h("span", { class: "tag" }, tag));
  button.moment = hit;
  const element = h("article", { class: "card", "data-video": video.video_id, "aria-label": video.name }, button,
    h("p", { class: "card-name", title: video.path }, video.name), h("p", { class: "card-meta" }, h("span", { class: "card-folder" }, h("bdi", {}, folderOf(video.path)))));
  element.hit = hit;
  return element;
}

function emptyIndex(app) {
  return h("div", { class: "notice" }, h("h2", {}, "The index is empty"), h("p", {}, "Add folders with videos and photos, here or with ", h("kbd", {}, "impart index FOLDER"), "."),
    h("div", { class: "notice-buttons" }, h("button", { type: "button", class: "button main", onclick: () => app.openPanel("index") }, "Add folders")));
}

function problem(app, error, retry) {
  const title = error.status === 0 ? "The server does not answer" : "The library cannot be shown";
  return h("div", { class: "notice", role: "alert" }, h("h2", {}, title), h("p", {}, error.message),
    h("div", { class: "notice-buttons" }, h("button", { type: "button", class: "button main", onclick: retry }, "Try again")));
}
