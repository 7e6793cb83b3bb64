// Photos of the index, to be shown or put into the tray.

import { frameUrl, get } from "../api.js";
import { h, icon, iconButton } from "../dom.js";
import { load } from "../parts/loading.js";
import { count } from "../parts/words.js";

export const title = "Photos";

const WIDTH_PX = 320;
const PAGE = 60;

/** Show the photos of the index; those of a search are among its hits. */
export function mount(container, app) {
  const place = h("div", { class: "flow" });
  container.replaceChildren(place);
  load(
    place,
    "the photos",
    () => page(null),
    (answer) => drawn(answer, app),
  );
  return {};
}

const page = (cursor) => get(`/videos?kind=photo&limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);

function drawn(first, app) {
  if (!first.total) return h("p", { class: "note" }, "The index has no photos.");
  const list = h("ul", { class: "scenes" });
  const more = h("button", { type: "button", class: "button fit" }, "Show more");
  let cursor = null;
  const show = (answer) => {
    list.append(...answer.videos.map((photo) => card(photo, app)));
    cursor = answer.next_cursor;
    more.hidden = !cursor;
  };
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      show(await page(cursor));
    } catch (error) {
      app.toast(error.message, "bad");
    }
    more.disabled = false;
  });
  show(first);
  const only = h("button", { type: "button", class: "button", onclick: () => app.state.patch({ kind: "photo" }) }, "Search photos only");
  return [h("div", { class: "row between" }, h("span", { class: "numbers" }, count(first.total, "photo")), only), list, more];
}

function card(photo, app) {
  const span = { video_id: photo.video_id, name: photo.name, kind: "photo", start_s: 0, end_s: 0, label: "" };
  const image = h("img", { src: frameUrl(photo.video_id, 0, WIDTH_PX), alt: "", loading: "lazy", decoding: "async", width: 192, height: 108 });
  const add = iconButton(
    "add",
    `Add ${photo.name} to the tray`,
    () => app.toast(app.tray.add(span) ? `${photo.name} is in the tray.` : "It is in the tray already."),
    { class: "button icon small" },
  );
  return h(
    "li",
    { class: "scene" },
    h(
      "button",
      { type: "button", class: "scene-play", "aria-label": `Show ${photo.name}`, onclick: () => app.player.play(span) },
      image,
      icon("play"),
    ),
    h("div", { class: "row nowrap" }, h("span", { class: "tray-name", title: photo.name }, photo.name), add),
  );
}
