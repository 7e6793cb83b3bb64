// A strip of presence: a line as long as a video, with the spans in which something is found.
// It is for the eye and the mouse; the same spans are also listed as buttons.

import { h } from "../dom.js";

/**
 * Make a strip.
 *
 * @param {{start_s: number, end_s: number, score?: number}[]} spans
 * @param {number} lengthS of the video
 * @param {function(Object, number): void} onpick called with the nearest span and the time that was clicked
 * @returns {HTMLElement}
 */
export function strip(spans, lengthS, onpick) {
  const length = Math.max(lengthS, ...spans.map((span) => span.end_s), 0.001);
  const marks = spans.map((span) => {
    const mark = h("i");
    mark.style.setProperty("left", `${(100 * span.start_s) / length}%`);
    mark.style.setProperty("width", `${(100 * (span.end_s - span.start_s)) / length}%`);
    mark.style.setProperty("opacity", String(0.45 + 0.55 * Math.min(1, Math.max(0, span.score ?? 1))));
    return mark;
  });
  const element = h("div", { class: "strip", "aria-hidden": "true" }, marks);
  element.addEventListener("click", (event) => {
    const box = element.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * length;
    const away = (span) => Math.max(span.start_s - at, at - span.end_s, 0);
    const nearest = spans.reduce((best, span) => (away(span) < away(best) ? span : best), spans[0]);
    if (nearest) onpick(nearest, at);
  });
  return element;
}
