// The form that teaches a name: by images, by a moment of a video ("this is ..."), or by the spans of the tray.

import { frameUrl, post, request } from "../api.js";
import { clock, fill, h, iconButton } from "../dom.js";
import { dropzone, takePasted } from "./dropzone.js";
import { isMissing } from "./loading.js";
import { count } from "./words.js";

const SIDE_PX = 72;
const MOST_AT_ONCE = 20; // images in one form
let forms = 0;

const timeOf = (moment) => moment.at_s ?? (moment.start_s + moment.end_s) / 2;

// Fields of the API: {name, added: number, known: [source], failed: [{source, reason}], notes: [text], reports: [{name, images}]}
const joined = (results) => ({
  name: results.at(-1).name,
  images: results.at(-1).reports.find((report) => report.name === results.at(-1).name)?.images.length ?? null,
  added: results.reduce((sum, one) => sum + one.added, 0),
  known: results.flatMap((one) => one.known),
  failed: results.flatMap((one) => one.failed),
  notes: [...new Set(results.flatMap((one) => one.notes))],
});

/**
 * Make the form.
 *
 * @param {Object} app
 * @param {Object} options `moment`: {video_id, at_s} or null; `names()`: known names; `onsaved(name)`; `onfind(name)`;
 *     `enough`: images that are recommended
 * @returns {HTMLElement}
 */
export function teachForm(app, { moment, names, onsaved, onfind, enough }) {
  const number = ++forms;
  let files = [];
  let moments = moment ? [moment] : [];
  const known = h("datalist", { id: `names-${number}` });
  const field = h("input", {
    class: "field",
    id: `name-${number}`,
    list: `names-${number}`,
    maxLength: 100,
    required: true,
    autocomplete: "off",
    placeholder: "Rex",
  });
  field.addEventListener("focus", () =>
    fill(
      known,
      names().map((one) => h("option", { value: one.name })),
    ),
  );
  const chosen = h("ul", { class: "faces", "aria-label": "Chosen images" });
  const title = h("label", { for: field.id }, h("b", {}, moment ? "This is" : "Teach a name"));
  const save = h("button", { type: "submit", class: "button main" }, "Save");
  const result = h("div", { role: "status", class: "flow" });
  const take = (given) => {
    files = [...files, ...given];
    show();
  };
  const fromTray = h("button", { type: "button", class: "button", onclick: takeTray }, "Take the tray");
  const zone = dropzone("Drop or paste images here", take);
  zone.append(fromTray);
  const form = h(
    "form",
    { class: "block", "aria-label": "Teach a name", onsubmit: send },
    title,
    h("div", { class: "row" }, field, save),
    known,
    chosen,
    zone,
    result,
  );
  takePasted(form, take);
  fromTray.hidden = !app.tray?.spans.length;
  show();
  if (moment) queueMicrotask(() => field.focus());
  return form;

  function takeTray() {
    const here = (one) => moments.some((other) => other.video_id === one.video_id && timeOf(other) === timeOf(one));
    const spans = app.tray.spans.map(({ video_id, start_s, end_s }) => ({ video_id, start_s, end_s })); // the best frame of each
    moments = [...moments, ...spans.filter((one) => !here(one))];
    show();
  }

  function show() {
    save.disabled = !files.length && !moments.length;
    chosen.hidden = save.disabled;
    const drop = (label, act) =>
      iconButton("close", label, () => (act(), show(), (chosen.querySelector("button") ?? field).focus()), { class: "button icon small" });
    fill(
      chosen,
      moments.map((one) =>
        h(
          "li",
          { class: "face" },
          h("img", { src: frameUrl(one.video_id, timeOf(one), 160), alt: `Frame at ${clock(timeOf(one))}`, width: SIDE_PX, height: SIDE_PX }),
          drop(`Leave out the frame at ${clock(timeOf(one))}`, () => (moments = moments.filter((other) => other !== one))),
        ),
      ),
      files.map((file) =>
        h(
          "li",
          { class: "face" },
          preview(file),
          drop(`Leave out ${file.name}`, () => (files = files.filter((other) => other !== file))),
        ),
      ),
    );
  }

  async function send(event) {
    event.preventDefault();
    const name = field.value.trim();
    if (!name) return;
    save.disabled = true;
    fill(result, h("p", { class: "soft" }, "Saving …"));
    const results = [];
    try {
      if (moments.length) results.push(await post("/names", { name, moments }));
      moments = [];
      for (; files.length; files = files.slice(MOST_AT_ONCE))
        results.push(await request("POST", "/names", { form: formData(name, files.slice(0, MOST_AT_ONCE)) }));
      const all = joined(results);
      fill(result, told(all));
      field.value = "";
      title.textContent = "Teach another name";
      onsaved(all.name);
      result.querySelector("button").focus();
    } catch (error) {
      fill(result, h("p", { class: "bad" }, isMissing(error) ? "This server does not offer names." : error.message));
    }
    show();
  }

  function told({ name, images, added, known: before, failed, notes }) {
    const has = images === null ? "" : `: ${name} has ${count(images, "image")} now`;
    const lack = images === null ? 0 : enough - images;
    return [
      h("p", { class: added ? "good" : "" }, added ? `${count(added, "image")} added${has}.` : `No new image${has}.`),
      before.length ? h("p", { class: "soft" }, `${count(before.length, "image was", "images were")} there already.`) : null,
      failed.length
        ? h(
            "ul",
            { class: "failures plain-list" },
            failed.map((one) => h("li", {}, h("b", {}, one.source), h("p", {}, one.reason))),
          )
        : null,
      notes.map((note) => h("p", { class: "soft" }, note)),
      lack > 0 ? h("p", { class: "soft" }, `${count(lack, "more image")} recommended: ${enough} in all make it safer.`) : null,
      h("button", { type: "button", class: "button fit", onclick: () => onfind(name) }, `Find ${name}`),
    ];
  }
}

function formData(name, files) {
  const form = new FormData();
  form.append("name", name);
  for (const file of files) form.append("images", file, file.name);
  return form;
}

/** Draw a chosen file on a canvas: no address of it is needed, which the page's rules would refuse. */
function preview(file) {
  const canvas = h("canvas", { width: 2 * SIDE_PX, height: 2 * SIDE_PX, role: "img", "aria-label": file.name });
  createImageBitmap(file).then(
    (image) => {
      const side = Math.min(image.width, image.height);
      canvas.getContext("2d").drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, canvas.width, canvas.height);
      image.close();
    },
    () => canvas.classList.add("blank"), // such as HEIC: the server reads it
  );
  return canvas;
}
