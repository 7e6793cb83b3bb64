// Names: people, animals, places and things, taught by a few images, and where they are.

import { eventsUrl, get, request } from "../api.js";
import { fill, h, iconButton } from "../dom.js";
import { confirm } from "../parts/dialog.js";
import { load } from "../parts/loading.js";
import { presence } from "../parts/presence.js";
import { teachForm } from "../parts/teach.js";
import { count } from "../parts/words.js";

export const title = "Names";

const ENOUGH = 3; // images that are recommended

// Fields of the API: {names: [{name_id, name, images: [{image_id, source, thumbnail}],
// report: {remarks: [text], images: [{image_id, in_force}]}}]}
const LIST = "/names?check=true";
const imagePath = (name, image) => `/names/${name.name_id}/images/${image.image_id}`;
const isUnlike = (name, image) => name.report?.images.find((one) => one.image_id === image.image_id)?.in_force === false;

/**
 * Show the names.
 *
 * @param {HTMLElement} container
 * @param {Object} app
 * @param {{teach?: {video_id: string, at_s: number}, name?: string}} [args] `teach`: "this is ...", from a hit;
 *     `name`: shown with the places where it is
 */
export function mount(container, app, args) {
  const form = h("div");
  const list = h("div", { class: "flow" });
  container.replaceChildren(h("div", { class: "stack" }, form, list));
  let names = [];
  let open = args?.name ?? null; // name whose places are shown

  const refresh = async (quiet = true) => {
    const answer = await load(
      list,
      "names",
      () => get(LIST),
      (found) => draw(found.names),
      { quiet },
    );
    if (answer) names = answer.names;
    return names;
  };
  const find = (name) => {
    open = name;
    refresh().then(() => container.querySelector(".block.open")?.scrollIntoView({ block: "nearest" }));
  };
  const teach = (moment) => fill(form, teachForm(app, { moment, names: () => names, onsaved: () => refresh(), onfind: find, enough: ENOUGH }));

  function draw(found) {
    names = found;
    if (!found.length) return h("p", { class: "soft" }, "No names yet. Three images of one person, animal, place or thing are enough to find it.");
    return h(
      "ul",
      { class: "plain-list stack", "aria-label": "Names" },
      found.map((name) => card(name)),
    );
  }

  function card(name) {
    const places = h("div", { class: "flow" });
    const isOpen = name.name === open;
    const finding = h(
      "button",
      { type: "button", class: "button", "aria-label": `Where is ${name.name}`, "aria-expanded": String(isOpen), onclick: toggle },
      "Where",
    );
    const title = h("h3", {}, name.name);
    const { images } = name;
    const order = (text, onclick) => h("button", { type: "button", class: "button", "aria-label": `${text} ${name.name}`, onclick }, text);
    const unlike = images.filter((image) => isUnlike(name, image)).length;
    const element = h(
      "li",
      { class: `block${isOpen ? " open" : ""}` },
      h(
        "div",
        { class: "row between" },
        title,
        h("span", { class: "soft numbers" }, count(images.length, "image"), unlike ? `, ${unlike} not used` : ""),
      ),
      h(
        "ul",
        { class: "faces" },
        images.map((image) => face(name, image)),
      ),
      (name.report?.remarks ?? []).map((remark) => h("p", { class: "note" }, remark)),
      images.length < ENOUGH && !name.report?.remarks.length
        ? h("p", { class: "soft" }, `${count(ENOUGH - images.length, "more image")} recommended.`)
        : null,
      h(
        "div",
        { class: "row" },
        finding,
        order("Search", () => app.state.patch({ q: name.name })),
        order("Rename", () => rename(name, title)),
        order("Remove", () => remove(name)),
      ),
      places,
    );
    if (isOpen) presence(places, name, app);
    function toggle() {
      const now = finding.getAttribute("aria-expanded") !== "true";
      finding.setAttribute("aria-expanded", String(now));
      element.classList.toggle("open", now);
      open = now ? name.name : null;
      if (now) presence(places, name, app);
      else fill(places);
    }
    return element;
  }

  function face(name, image) {
    const unused = isUnlike(name, image);
    const source = image.source.split(/[/\\]/).at(-1); // without the folders of a moment
    const shown = h("img", { alt: source, width: 72, height: 72, loading: "lazy", title: image.source });
    if (image.thumbnail) shown.src = eventsUrl(`${imagePath(name, image)}.webp`);
    else shown.classList.add("blank");
    const drop = iconButton("close", `Remove the image ${source}`, () => removeImage(name, image), { class: "button icon small" });
    return h("li", { class: unused ? "face unused" : "face" }, shown, drop, unused ? h("span", { class: "unlike" }, "unlike") : null);
  }

  function rename(name, title) {
    const field = h("input", { class: "field", value: name.name, maxLength: 100, required: true, "aria-label": `New name of ${name.name}` });
    const back = () => form.replaceWith(title);
    const send = async (event) => {
      event.preventDefault();
      const wanted = field.value.trim();
      if (wanted === name.name) return back();
      if (await done(() => request("PATCH", `/names/${name.name_id}`, { json: { name: wanted } }), `${name.name} is now ${wanted}.`)) {
        if (open === name.name) open = wanted;
        await refresh();
      }
      return undefined;
    };
    const form = h(
      "form",
      { class: "row", onsubmit: send },
      field,
      h("button", { type: "submit", class: "button main" }, "Save"),
      h("button", { type: "button", class: "button", onclick: back }, "Cancel"),
    );
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      back();
    });
    title.replaceWith(form);
    field.select();
  }

  async function remove(name) {
    const sure = await confirm({
      title: `Remove ${name.name}?`,
      text: `The name and its ${count(name.images.length, "image")} are deleted from the index. Videos stay as they are.`,
      action: "Remove the name",
    });
    if (sure && (await done(() => request("DELETE", `/names/${name.name_id}`), `${name.name} was removed.`))) await refresh();
  }

  async function removeImage(name, image) {
    const last = name.images.length === 1;
    if (last) return remove(name);
    if (await done(() => request("DELETE", imagePath(name, image)), `An image of ${name.name} was removed.`)) await refresh();
    return undefined;
  }

  async function done(act, text) {
    try {
      await act();
      app.toast(text, "good");
      return true;
    } catch (error) {
      app.toast(error.message, "bad");
      return false;
    }
  }

  teach(args?.teach ?? null);
  refresh(false);
  return {
    update: (next) => {
      if (next?.teach) teach(next.teach);
      if (next?.name) find(next.name);
    },
  };
}
