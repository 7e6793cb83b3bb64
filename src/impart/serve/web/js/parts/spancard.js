// A span of the tray: its first and last frame, its label, its bounds, and its place in the order.

import { frameUrl } from "../api.js";
import { clock, h, icon, iconButton } from "../dom.js";
import { facts, frameS } from "./facts.js";
import { parseClock } from "./words.js";

const FRAMES_MS = 200; // after the last change of a bound
export const WIDTH_PX = 320; // of frames
let cards = 0;

/**
 * Make the card of a span.
 *
 * @param {Object} item
 * @param {Object} app
 * @param {{edit: function(Object): void, move: function(number): void, remove: function(): void}} actions
 * @returns {{element: HTMLElement, show: function(Object, number, number): void}}
 */
export function spanCard(item, app, actions) {
  const number = ++cards;
  const photo = item.kind === "photo";
  let now = item;
  let video = null;
  let timer = 0;
  let drawn = null;

  const images = (photo ? ["in"] : ["in", "out"]).map(() => h("img", { alt: "", width: 96, height: 54, decoding: "async" }));
  const play = h("button", { type: "button", class: "tray-frames", onclick: () => app.player?.play(now) }, images, icon("play"));
  const place = h("span", { class: "tray-place numbers" });
  const label = h("input", {
    class: "field",
    value: item.label,
    placeholder: "Label",
    maxLength: 200,
    "aria-label": "Label",
    onchange: () => actions.edit({ label: label.value.trim() }),
  });
  const message = h("p", { class: "bad", id: `span-${number}-message`, role: "alert", hidden: true });
  const length = h("span", { class: "soft numbers" });
  const earlier = iconButton("earlier", "Move earlier", () => actions.move(-1), { class: "button icon plain", "data-move": "earlier" });
  const later = iconButton("later", "Move later", () => actions.move(1), { class: "button icon plain", "data-move": "later" });
  const grip = h("span", { class: "grip", "data-grip": true, title: "Drag to reorder" }, icon("grip"));
  const name = h("span", { class: "tray-name", title: item.name }, item.name);
  const remove = iconButton("close", "Remove from the tray", actions.remove, { class: "button icon plain", "data-remove": true });
  const bounds = photo ? [] : [bound("In", "start_s"), bound("Out", "end_s")];
  const element = h(
    "li",
    { class: "tray-card", "data-id": item.id },
    h("div", { class: "tray-head" }, grip, place, name, earlier, later, remove),
    play,
    label,
    photo
      ? h("p", { class: "soft" }, "Photo: for contact sheets only.")
      : h(
          "div",
          { class: "bounds" },
          bounds.map(({ row }) => row),
          length,
        ),
    message,
  );

  facts(item.video_id).then(
    (found) => {
      video = found;
      if (found === null) say("This file is no longer in the index. An export leaves it out.");
      else if (!photo) frames();
    },
    () => {}, // the bounds are then checked by the server alone
  );

  function bound(text, field) {
    const input = h("input", {
      class: "field numbers",
      "aria-label": `${text}, in seconds or minutes:seconds`,
      "aria-describedby": message.id,
      autocomplete: "off",
      spellcheck: false,
    });
    const nudge = (by) => set(field, now[field] + by * frameS(video));
    input.addEventListener("change", () => read(field, input));
    input.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (by) {
        event.preventDefault();
        nudge(by);
      } else if (event.key === "Escape") {
        event.stopPropagation();
        say("");
        write(now);
      } else if (event.key === "Enter") read(field, input);
    });
    const row = h(
      "div",
      { class: "bound" },
      h("span", { class: "soft" }, text),
      iconButton("minus", `${text}: one frame earlier`, () => nudge(-1), { class: "button icon" }),
      input,
      iconButton("add", `${text}: one frame later`, () => nudge(1), { class: "button icon" }),
    );
    return { row, input, field };
  }

  function read(field, input) {
    if (input.value === clock(now[field], 2)) return say("");
    const seconds = parseClock(input.value);
    if (seconds === null)
      return say(`${input.value || "An empty field"} is no time: write seconds or minutes:seconds, such as 12.5 or 1:02.5.`, input);
    return set(field, seconds, input);
  }

  function set(field, seconds, input = null) {
    const next = { ...now, [field]: Math.max(0, Math.round(seconds * 1000) / 1000) };
    const end = video?.duration_s ?? Infinity;
    const given = input ?? bounds.find((one) => one.field === field).input;
    if (next.end_s - next.start_s < 0.5 * frameS(video))
      return say(`In must be before out: ${clock(next.start_s, 2)} is not before ${clock(next.end_s, 2)}.`, given);
    if (next[field] > end + 0.001) return say(`The video ends at ${clock(end, 2)}.`, given);
    say("");
    actions.edit({ [field]: next[field] });
    return undefined;
  }

  function say(text, input = null) {
    message.textContent = text;
    message.hidden = !text;
    for (const one of bounds) one.input.setAttribute("aria-invalid", String(one.input === input));
  }

  function write(span) {
    for (const { input, field } of bounds) input.value = clock(span[field], 2);
    length.textContent = photo ? "" : `${clock(span.end_s - span.start_s, 2)} long`;
  }

  function frames() {
    clearTimeout(timer);
    const last = Math.max(now.start_s, now.end_s - frameS(video));
    [photo ? 0 : now.start_s, last].slice(0, images.length).forEach((at, i) => {
      const address = frameUrl(now.video_id, at, WIDTH_PX);
      if (images[i].getAttribute("src") !== address) images[i].src = address;
    });
  }

  return {
    element,
    show(span, at, of) {
      const state = [span.start_s, span.end_s, span.label, at, of].join("|");
      if (state === drawn) return;
      drawn = state;
      const moved = span.start_s !== now.start_s || span.end_s !== now.end_s || !images[0].src;
      now = { ...span };
      place.textContent = String(at + 1);
      earlier.disabled = at === 0;
      later.disabled = at === of - 1;
      if (document.activeElement !== label) label.value = span.label;
      const shown = span.label || span.name;
      play.setAttribute("aria-label", photo ? `Show ${shown}` : `Play ${shown}`);
      play.title = photo ? "Show" : "Play this span";
      if (!bounds.some(({ input }) => input.getAttribute("aria-invalid") === "true")) write(span);
      if (!images[0].src) frames();
      else if (moved) {
        clearTimeout(timer);
        timer = setTimeout(frames, FRAMES_MS);
      }
    },
  };
}
