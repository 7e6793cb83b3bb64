// Heat strips: where in a video the query is found, one bar per step of time.

import { clock, h } from "./dom.js";
import { post } from "./api.js";

const MOST_VIDEOS = 100; // ids of one request

let unknown = false; // the server has no such route: ask no more

/**
 * Fetch the heat of videos for a search.
 *
 * @param {Object} request a SearchRequest
 * @param {string[]} videoIds
 * @param {AbortSignal} [signal]
 * @returns {Promise<Map<string, {start_s: number, step_s: number, bins: number[]}>>} empty where it is not known
 */
export async function fetchHeat(request, videoIds, signal) {
  const found = new Map();
  if (unknown) return found;
  const { cursor, limit, group, ...query } = request;
  for (let first = 0; first < videoIds.length; first += MOST_VIDEOS) {
    try {
      const answer = await post("/search/heat", { ...query, video_ids: videoIds.slice(first, first + MOST_VIDEOS) }, { signal });
      for (const heat of answer.videos) found.set(heat.video_id, heat);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      unknown = error.status === 404 || error.status === 405;
      return found;
    }
  }
  return found;
}

/**
 * Draw bins on a canvas, from `from_s` to `to_s` of the video.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{start_s: number, step_s: number, bins: number[]} | undefined} heat
 */
export function drawHeat(canvas, heat, from_s, to_s) {
  const scale = Math.min(2, devicePixelRatio || 1);
  const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale)));
  const height = (canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale)));
  if (!heat?.bins.length || to_s <= from_s) return;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x += 1) {
    const first = Math.floor((from_s + ((to_s - from_s) * x) / width - heat.start_s) / heat.step_s);
    const last = Math.floor((from_s + ((to_s - from_s) * (x + 1)) / width - heat.start_s) / heat.step_s);
    let value = 0; // of several bins in one column the highest, so that a short moment stays visible
    for (let bin = first; bin <= Math.max(first, last - 1); bin += 1) value = Math.max(value, heat.bins[bin] ?? 0);
    context.globalAlpha = 0.25 + 0.75 * value;
    context.fillRect(x, height - value * height, 1, value * height);
  }
}

/**
 * Make the strip of a hit's video: its heat, its moments, the time below the pointer.
 *
 * A click plays from there. The same is reached by keyboard through the moments, and the player's own timeline.
 *
 * @param {Object} hit
 * @param {(at_s: number) => void} onplay
 * @returns {{element: HTMLElement, draw: (heat: Object) => void}}
 */
export function heatStrip(hit, onplay) {
  const canvas = h("canvas", { class: "heat-bars" });
  const label = h("span", { class: "heat-time", hidden: true });
  const marks = [hit, ...hit.moments].map((moment) => mark(moment, hit.video_s));
  const at = (event) => {
    const box = element.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * hit.video_s;
  };
  const element = h("div", {
    class: "heat",
    "aria-hidden": "true",
    onclick: (event) => onplay(at(event)),
    onpointermove: (event) => {
      const share = at(event) / hit.video_s;
      label.hidden = false;
      label.textContent = clock(at(event));
      label.style.left = `${Math.max(6, Math.min(94, share * 100))}%`;
    },
    onpointerleave: () => (label.hidden = true),
  }, canvas, marks, label);
  let heat;
  const draw = (given) => {
    heat = given ?? heat;
    if (canvas.isConnected) drawHeat(canvas, heat, 0, hit.video_s);
  };
  return { element, draw };
}

function mark({ start_s, end_s }, length) {
  const element = h("span", { class: "heat-mark" });
  element.style.left = `${(100 * start_s) / length}%`;
  element.style.width = `max(3px, ${(100 * Math.max(0, end_s - start_s)) / length}%)`;
  return element;
}
