// One hit as a card: thumbnails that play, the heat strip, what is known of the file.

import { frameUrl } from "./api.js";
import { clock, h, icon } from "./dom.js";
import { heatStrip } from "./heat.js";
import { actionButtons } from "./player/actions.js";
import { folderOf, lengthText } from "./query.js";

const MOST_MOMENTS = 4; // small thumbnails of one card
const EAGER = 6; // first cards whose thumbnails do not wait for the scroll

/**
 * Make the card of a hit.
 *
 * @param {Object} app
 * @param {Object} hit
 * @param {number} place from 1
 * @returns {{element: HTMLElement, draw: (heat?: Object) => void}}
 */
export function hitCard(app, hit, place) {
  const play = (span) => app.player.play({ video_id: hit.video_id, name: hit.name, kind: hit.kind, ...span });
  const eager = place <= EAGER;
  const isPhoto = hit.kind === "photo";
  const strip = !isPhoto && hit.video_s > 0 ? heatStrip(hit, (at_s) => play(spanAt(hit, at_s))) : null;
  const id = `hit-${place}`;
  const tag = isPhoto ? "Photo" : spanText(hit);
  const best = h(
    "button",
    { type: "button", class: "thumb best", "data-play": "", "aria-label": playLabel(hit, tag), onclick: () => play(hit) },
    frame(hit.video_id, hit.best_s, 480, eager),
    h("span", { class: "tag" }, tag),
  );
  best.moment = hit;
  const element = h(
    "article",
    { class: "card", id, "data-video": hit.video_id, "aria-labelledby": `${id}-name`, "aria-posinset": place, "aria-setsize": -1 },
    h("div", { class: "card-top" }, best, actionButtons(app, () => ({ ...hit, at_s: hit.best_s }), { compact: true })),
    strip?.element ?? (isPhoto ? null : h("div", { class: "heat" })),
    h("div", { class: "card-line" }, h("h2", { class: "card-name", id: `${id}-name`, title: hit.path }, shortName(hit.name)),
      h("span", { class: "score", title: "Score, comparable within one search" }, hit.score.toFixed(3))),
    h("p", { class: "card-meta" }, meta(hit)),
    badges(hit, play),
    momentButtons(hit, play, MOST_MOMENTS),
  );
  element.hit = hit;
  return { element, draw: (heat) => strip?.draw(heat) };
}

/** The moment of a hit that contains a time, or the seconds from there on. */
function spanAt(hit, at_s) {
  const inside = [hit, ...hit.moments].find((moment) => at_s >= moment.start_s && at_s <= moment.end_s);
  return inside ? { start_s: inside.start_s, end_s: inside.end_s, at_s } : { start_s: at_s, end_s: at_s };
}

/** Make the thumbnails of the further moments of a hit, or of the parts of a sequence; null where it has none. */
export function momentButtons(hit, play, most) {
  const steps = hit.steps.length > 0;
  const listed = (steps ? hit.steps : hit.moments).slice(0, most);
  if (!listed.length) return null;
  return h("div", { class: "moments" }, listed.map((moment, number) => {
    const tag = steps ? `${number + 1} · ${clock(moment.start_s, 0)}` : clock(moment.start_s, 0);
    const button = h(
      "button",
      { type: "button", class: "thumb", "data-play": "", "aria-label": playLabel(hit, tag), onclick: () => play({ start_s: moment.start_s, end_s: moment.end_s }) },
      frame(hit.video_id, moment.best_s, 160),
      h("span", { class: "tag" }, tag),
    );
    button.moment = moment;
    return button;
  }));
}

/** Image of a frame; a placeholder stays where the server has none. */
function frame(videoId, atS, width, eager = false) {
  const image = h("img", {
    src: frameUrl(videoId, atS, width),
    alt: "",
    width,
    height: Math.round((width * 9) / 16),
    loading: eager ? "eager" : "lazy",
    decoding: "async",
    onerror: () => image.replaceWith(h("span", { class: "missing" }, icon("image"))),
  });
  return image;
}

/** Name of a button for screen readers and voice; it contains the text that is seen. */
function playLabel(hit, tag) {
  return `${hit.kind === "photo" ? "Show" : "Play"} ${hit.name}, ${tag}`;
}

function spanText({ start_s, end_s }) {
  return `${clock(start_s, 1)} – ${clock(end_s, 1)}`;
}

function meta(hit) {
  const date = hit.recorded_at === null ? null : new Date(hit.recorded_at * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
  const folder = folderOf(hit.path);
  return [
    h("span", { class: "card-folder", title: folder }, h("bdi", {}, folder)),
    hit.kind === "photo" ? null : h("span", {}, lengthText(hit.video_s)),
    date ? h("span", {}, date) : null,
  ];
}

function badges(hit, play) {
  const copies = hit.near_copies;
  const places = hit.also_at;
  const list = [
    ...hit.names.map((name) => h("span", { class: "badge name" }, icon("names"), name)),
    copies.length ? h("details", { class: "badge" }, h("summary", {}, `${copies.length} near ${copies.length > 1 ? "copies" : "copy"}`), h("ul", {}, copies.map((copy) =>
      h("li", {}, h("button", { type: "button", class: "button plain", title: copy.path, onclick: () => play(copy) }, icon("play"), copy.name))))) : null,
    places.length ? h("details", { class: "badge" }, h("summary", {}, `also at ${places.length} other ${places.length > 1 ? "places" : "place"}`), h("ul", {}, places.map((path) => h("li", {}, path)))) : null,
  ].filter(Boolean);
  return list.length ? h("div", { class: "badges" }, list) : null;
}

/** A name whose end stays visible: the middle gives way, since names often differ at the end. */
function shortName(name) {
  const keep = 12;
  if (name.length <= 2 * keep) return name;
  return [h("span", { class: "name-start" }, name.slice(0, -keep)), h("span", { class: "name-end" }, name.slice(-keep))];
}
