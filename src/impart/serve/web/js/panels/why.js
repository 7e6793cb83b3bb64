// Why a hit was found: the reference pairs that were blended into its frame, with their weights.

import { eventsUrl, frameUrl, get } from "../api.js";
import { clock, h } from "../dom.js";
import { load } from "../parts/loading.js";

export const title = "Why this hit";

const FRAME_PX = 320;

const SAYS = {
  vanilla:
    "These pairs are nearest to the frame. Their images and texts are blended into it with the weights shown; the frame itself has weight 1.",
  ram: "These pairs are nearest to the frame. Their images and texts are blended into it with the weights shown; the frame itself has weight 1. A weight below zero speaks against the name that the others support.",
  solved:
    "These pairs count most for the name that the reference set gives the frame. Each number is what the pair adds to the score of this name; a number below zero speaks against it.",
};

/**
 * Show the reference pairs of a hit.
 *
 * @param {HTMLElement} container
 * @param {Object} app
 * @param {Object} args a hit with `at_s`, or a span: {video_id, at_s, name, kind}
 */
export function mount(container, app, args) {
  const place = h("div", { class: "flow" });
  const top = h("div", { class: "flow" });
  container.replaceChildren(h("div", { class: "stack" }, top, place));
  const show = (hit) => {
    const atS = hit.at_s ?? hit.best_s ?? hit.start_s ?? 0;
    const frame = h("img", { src: frameUrl(hit.video_id, atS, FRAME_PX), alt: "The frame", width: 320, height: 180, class: "frame" });
    top.replaceChildren(
      frame,
      h("p", { class: "path" }, h("b", {}, hit.name ?? ""), hit.kind === "photo" ? null : h("span", { class: "soft" }, ` at ${clock(atS)}`)),
    );
    load(
      place,
      "the reasons",
      () => get(`/videos/${hit.video_id}/why?t=${atS}`),
      (answer) => reasons(answer, hit),
    );
  };
  show(args);
  return { update: (next) => next && show(next) };
}

function reasons({ pairs, references, blending }, hit) {
  const named = hit.names?.length
    ? h("p", { class: "note" }, `Its score is higher because it shows ${hit.names.join(" and ")}, which you taught.`)
    : null;
  if (!pairs.length) {
    const why = references === null ? "No reference set is in force." : `No pair of the reference set ${references} is near enough to it.`;
    return [named, h("p", {}, "Nothing was blended into this frame: the query was compared with the frame alone."), h("p", { class: "soft" }, why)];
  }
  const most = Math.max(...pairs.flatMap((pair) => [pair.weight_img, pair.weight_txt].map(Math.abs)), 1e-9);
  return [
    named,
    h("p", {}, SAYS[blending] ?? SAYS.ram),
    h("p", { class: "soft" }, `Reference set: ${references ?? "none"}`),
    h(
      "ol",
      { class: "pairs" },
      pairs.map((pair) => card(pair, most, blending)),
    ),
  ];
}

function card(pair, most, blending) {
  const image = pair.image
    ? h("img", { src: eventsUrl(`/references/pairs/${pair.row}.webp`), alt: "", width: 96, height: 96, loading: "lazy" })
    : h("div", { class: "no-image soft" }, "text only");
  return h(
    "li",
    { class: "pair" },
    image,
    h(
      "div",
      {},
      h("b", {}, pair.text),
      blending === "solved" ? null : bar("Image", pair.weight_img, most),
      bar(blending === "solved" ? "Adds" : "Text", pair.weight_txt, most),
      h(
        "p",
        { class: "soft" },
        pair.similarity === null ? "similarity no longer known" : `similarity ${pair.similarity.toFixed(2)}`,
        ` · ${pair.source}`,
      ),
    ),
  );
}

function bar(label, weight, most) {
  const fillOf = h("i");
  fillOf.style.setProperty("width", `${(100 * Math.abs(weight)) / most}%`);
  fillOf.classList.toggle("against", weight < 0);
  return h(
    "div",
    { class: "weight" },
    h("span", {}, label),
    h("span", { class: "weight-bar", "aria-hidden": "true" }, fillOf),
    h("span", { class: "numbers" }, weight.toFixed(3)),
  );
}
