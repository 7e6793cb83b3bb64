// Scenes of one video as a contact sheet: play them, or put several into the tray.

import { frameUrl, get } from "../api.js";
import { clock, h, icon } from "../dom.js";
import { load } from "../parts/loading.js";
import { count } from "../parts/words.js";

export const title = "Scenes";

const WIDTH_PX = 320;
const HOW = { cut: "", dissolve: "dissolve", fade: "fade" };

/**
 * Show the scenes of a video.
 *
 * @param {HTMLElement} container
 * @param {Object} app
 * @param {{video_id: string, at_s?: number}} args `at_s`: the scene there is marked
 */
export function mount(container, app, args) {
  const place = h("div", { class: "flow" });
  container.replaceChildren(place);
  const show = (now) =>
    load(
      place,
      "the scenes",
      () => get(`/videos/${now.video_id}/scenes`),
      (answer) => sheet(answer, app, now.at_s),
    ).then(() => place.querySelector("[aria-current]")?.scrollIntoView({ block: "center" }));
  show(args);
  return { update: (next) => next && show(next) };
}

function sheet({ video, scenes }, app, atS) {
  const chosen = new Set(); // places in `scenes`
  let last = 0; // place of the last choice, where a choice with shift begins
  const spanOf = ({ start_s, end_s, number }) => ({
    video_id: video.video_id,
    name: video.name,
    kind: video.kind,
    start_s,
    end_s,
    label: `Scene ${number}`,
  });
  const boxes = [];

  const add = h("button", { type: "button", class: "button main", onclick: addChosen }, icon("add"), h("span", {}, "Add to the tray"));
  const all = h(
    "button",
    { type: "button", class: "button", onclick: () => choose(0, scenes.length - 1, chosen.size < scenes.length) },
    "Choose all",
  );
  const told = h("span", { class: "soft numbers", role: "status" });

  function choose(from, to, on) {
    for (let i = Math.min(from, to); i <= Math.max(from, to); i++) {
      boxes[i].checked = on;
      if (on) chosen.add(i);
      else chosen.delete(i);
    }
    tell();
  }

  function tell() {
    add.disabled = !chosen.size;
    told.textContent = chosen.size ? `${chosen.size} chosen` : "";
    all.textContent = scenes.length && chosen.size === scenes.length ? "Choose none" : "Choose all";
  }

  function addChosen() {
    const places = [...chosen].sort((a, b) => a - b);
    const added = app.tray.addAll(places.map((i) => spanOf(scenes[i])));
    const known = places.length - added;
    app.toast(
      `${count(added, "scene")} added to the tray.${known ? ` ${known} ${known === 1 ? "was" : "were"} there already.` : ""}`,
      added ? "good" : "plain",
    );
    choose(0, scenes.length - 1, false);
    all.focus();
  }

  const cards = scenes.map((scene, i) => {
    const here = atS !== undefined && scene.start_s <= atS && atS < scene.end_s;
    const name = `scene ${scene.number}, ${clock(scene.start_s)} to ${clock(scene.end_s)}`;
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${name}` });
    box.addEventListener("click", (event) => {
      if (event.shiftKey) choose(last, i, box.checked);
      else choose(i, i, box.checked);
      last = i;
    });
    boxes.push(box);
    const image = h("img", {
      src: frameUrl(video.video_id, scene.best_s, WIDTH_PX),
      alt: "",
      loading: "lazy",
      decoding: "async",
      width: 192,
      height: 108,
    });
    const play = h(
      "button",
      { type: "button", class: "scene-play", "aria-label": `Play ${name}`, onclick: () => app.player.play(spanOf(scene)) },
      image,
      icon("play"),
    );
    const how = HOW[scene.kind] ?? scene.kind;
    const bounds = h("span", { class: "numbers" }, `${clock(scene.start_s)} – ${clock(scene.end_s)}`);
    return h(
      "li",
      { class: "scene", "aria-current": here ? "true" : null },
      play,
      h(
        "label",
        {},
        box,
        h("span", {}, h("b", { class: "numbers" }, scene.number), " ", bounds, how ? h("span", { class: "soft" }, ` ${how}`) : null),
      ),
    );
  });
  tell();
  return [
    h("p", { class: "path" }, h("b", {}, video.name), h("span", { class: "soft" }, ` ${count(scenes.length, "scene")}, ${clock(video.duration_s)}`)),
    h("div", { class: "row scenes-bar" }, add, all, told),
    scenes.length ? h("ol", { class: "scenes" }, cards) : h("p", { class: "note" }, "This file has no scenes: it is a photo, or could not be read."),
  ];
}
