// Where a name is: a strip per video, and its spans as buttons.

import { get } from "../api.js";
import { clock, fill, h, icon } from "../dom.js";
import { load } from "./loading.js";
import { strip } from "./strip.js";
import { count } from "./words.js";

const MOST_SPANS = 8; // per video, until more are asked for

// Fields of the API: {hits: [{video_id, name, kind, video_s, start_s, end_s, score}], total, next_cursor}
const pagePath = (name, cursor) => `/names/${name.name_id}/spans?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;

/** Fill an element with the spans of a name. */
export function presence(place, name, app) {
  return load(
    place,
    `where ${name.name} is`,
    () => get(pagePath(name)),
    (answer) => drawn(answer, name, app),
  );
}

/** Group hits by video, in the order of the first of each; the spans of a video in order of time. */
function byVideo(hits) {
  const videos = new Map();
  for (const hit of hits) {
    if (!videos.has(hit.video_id)) videos.set(hit.video_id, { ...hit, spans: [] });
    videos.get(hit.video_id).spans.push(hit);
  }
  for (const video of videos.values()) video.spans.sort((one, other) => one.start_s - other.start_s);
  return [...videos.values()];
}

function drawn(first, name, app) {
  if (!first.hits.length)
    return h("p", { class: "note" }, `${name.name} was not found in the index. More images, from other sides and in other light, help.`);
  const list = h("ol", { class: "plain-list stack" });
  const told = h("p", { class: "soft" });
  const more = h("button", { type: "button", class: "button", onclick: grow }, "Show more");
  let { hits, next_cursor: cursor } = first;
  const show = () => {
    const videos = byVideo(hits);
    const spans = cursor ? `the first ${hits.length} of ${count(first.total, "span")}` : count(first.total, "span");
    told.textContent = `${name.name} is in ${count(videos.length, "file")}: ${spans}.`;
    fill(
      list,
      videos.map((video) => card(video, name, app)),
    );
    more.hidden = !cursor;
  };
  async function grow() {
    more.disabled = true;
    try {
      const next = await get(pagePath(name, cursor));
      hits = [...hits, ...next.hits];
      cursor = next.next_cursor;
      show();
    } catch (error) {
      app.toast(error.message, "bad");
    }
    more.disabled = false;
  }
  show();
  return [told, list, more];
}

function card(video, name, app) {
  const spanOf = (span) => ({
    video_id: video.video_id,
    name: video.name,
    kind: video.kind,
    start_s: span.start_s,
    end_s: span.end_s,
    label: name.name,
  });
  const play = (span) => app.player.play(spanOf(span));
  const button = (span) =>
    h(
      "button",
      { type: "button", class: "button", "aria-label": `Play ${video.name} from ${clock(span.start_s)}`, onclick: () => play(span) },
      icon("play"),
      h("span", { class: "numbers" }, clock(span.start_s)),
    );
  const list = h("div", { class: "row wrap" }, video.spans.slice(0, MOST_SPANS).map(button));
  const rest = video.spans.slice(MOST_SPANS);
  if (rest.length) {
    const more = h("button", { type: "button", class: "button" }, `${rest.length} more`);
    more.addEventListener("click", () => {
      more.replaceWith(...rest.map(button));
      list.children[MOST_SPANS].focus();
    });
    list.append(more);
  }
  const add = h(
    "button",
    { type: "button", class: "button", onclick: () => app.toast(`${count(app.tray.addAll(video.spans.map(spanOf)), "span")} added to the tray.`) },
    "All to the tray",
  );
  if (video.kind === "photo")
    return h(
      "li",
      {},
      h(
        "div",
        { class: "row between" },
        h("b", { class: "path" }, video.name),
        h("button", { type: "button", class: "button", onclick: () => play(video.spans[0]) }, "Show"),
      ),
    );
  return h("li", {}, h("div", { class: "row between" }, h("b", { class: "path" }, video.name), add), strip(video.spans, video.video_s, play), list);
}
