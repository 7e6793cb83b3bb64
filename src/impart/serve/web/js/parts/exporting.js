// Export of the spans of the tray: a dialog with the form of the file, the job, and its file.

import { eventsUrl, post } from "../api.js";
import { fill, h } from "../dom.js";
import { dialog } from "./dialog.js";
import { isMissing } from "./loading.js";
import { hasEnded, order, watch } from "./job.js";
import { progress } from "./progress.js";
import { count, size } from "./words.js";

const FORMS = [
  // value, name, explanation, takes photos, takes handles
  ["clips", "Clips", "one MP4 per span", false, true],
  ["reel", "Reel", "all spans in one MP4", false, true],
  ["sheet", "Contact sheet", "an image with a frame of each", true, false],
  ["edl", "EDL", "CMX 3600, for any editor", false, true],
  ["fcp7", "FCP7 XML", "Premiere Pro, Resolve", false, true],
  ["fcpxml", "FCPXML", "Final Cut Pro, Resolve", false, true],
  ["otio", "OTIO", "OpenTimelineIO", false, true],
  ["csv", "CSV", "a table of the spans", false, true],
];
const MOST_SHOWN = 20; // spans that were left out

/**
 * Make the dialog.
 *
 * @param {Object} app
 * @param {function(): Object[]} spansNow
 * @returns {{open: function(): void}}
 */
export function exporting(app, spansNow) {
  let chosen = "clips";
  let stop = null;
  const left = h("p", { class: "note" });
  const amount = h("input", {
    class: "field short",
    type: "number",
    min: "0",
    max: "1000",
    step: "any",
    value: "0",
    required: true,
    "aria-label": "Handles",
  });
  const unit = h(
    "select",
    { class: "field", "aria-label": "Unit of the handles" },
    h("option", { value: "f" }, "frames"),
    h("option", { value: "s" }, "seconds"),
  );
  const handles = h(
    "fieldset",
    { class: "handles" },
    h("legend", {}, "Handles"),
    amount,
    unit,
    h("span", { class: "soft" }, "more on both sides of each span"),
  );
  const start = h("button", { type: "submit", class: "button main" }, "Export");
  const result = h("div", { class: "result" });
  const radios = FORMS.map(([value, name, text]) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "radio", name: "form", value, checked: value === chosen, onchange: () => ((chosen = value), show()) }),
      h("span", {}, h("b", {}, name), h("span", { class: "soft" }, text)),
    ),
  );
  const form = h(
    "form",
    { onsubmit: send },
    h("fieldset", { class: "choices" }, h("legend", {}, "Export as"), radios),
    handles,
    left,
    h("div", { class: "row end" }, start),
  );
  const shown = dialog("Export the tray", form, result);
  unit.addEventListener("change", () => (amount.step = unit.value === "f" ? "1" : "any"));

  function wanted() {
    const [, , , photos] = FORMS.find(([value]) => value === chosen);
    return spansNow().filter((span) => photos || span.kind !== "photo");
  }

  function show() {
    const spans = wanted();
    const photos = spansNow().length - spans.length;
    handles.disabled = !FORMS.find(([value]) => value === chosen)[4];
    start.disabled = stop !== null || !spans.length;
    start.textContent = spans.length
      ? `Export ${count(spans.length, chosen === "sheet" ? "entry" : "span", chosen === "sheet" ? "entries" : "spans")}`
      : "Export";
    left.hidden = !photos;
    left.textContent = `${count(photos, "photo is", "photos are")} left out: photos have no length. The contact sheet shows ${photos === 1 ? "it" : "them"}.`;
  }

  async function send(event) {
    event.preventDefault();
    const sent = wanted();
    const spans = sent.map(({ video_id, start_s, end_s, label }) => ({ video_id, start_s, end_s, label: label ?? "" }));
    const given = handles.disabled ? "0f" : `${Number(amount.value) || 0}${unit.value}`;
    start.disabled = true;
    try {
      const job = await post("/exports", { form: chosen, spans, handles: given });
      follow(job, sent);
    } catch (error) {
      fill(result, h("p", { class: "note bad", role: "alert" }, isMissing(error) ? "This server does not offer exports." : error.message));
      show();
    }
  }

  function follow(job, sent) {
    const bar = progress("Export", app.announce.bind(app));
    const cancel = h(
      "button",
      { type: "button", class: "button", onclick: () => order(job, "cancel").catch((error) => app.toast(error.message, "bad")) },
      "Cancel the export",
    );
    const place = h("div", {}, bar.element, cancel);
    fill(result, place);
    stop = watch(job, (now) => {
      const { spans_done: done = 0, spans_total: total = sent.length } = now.export ?? {};
      if (!hasEnded(now))
        return bar.show(
          now.status === "queued" ? null : done / Math.max(1, total),
          now.status === "queued" ? "Waits for another export" : `${done} of ${count(total, "span")}`,
        );
      stop = null;
      show();
      fill(result, ended(now, sent));
      app.announce(result.firstChild.textContent);
      if (shown.element.open) result.querySelector("a, button")?.focus();
      else app.toast(result.firstChild.textContent, now.export?.file ? "good" : "bad");
      return undefined;
    });
    show();
  }

  function ended(job, sent) {
    const file = job.export?.file;
    const skipped = job.skipped.slice(0, MOST_SHOWN);
    const label = ({ number }) => `${number}. ${sent[number - 1]?.label || sent[number - 1]?.name || "span"}`;
    return [
      job.status === "cancelled" ? h("p", {}, "The export was cancelled.") : null,
      job.error && job.status !== "cancelled" ? h("p", { class: "note bad" }, `The export failed: ${job.error.detail}`) : null,
      file ? h("p", { class: "good" }, `${file.name} is ready, ${size(file.size_bytes)}.`) : null,
      file ? h("a", { class: "button main", href: eventsUrl(`/exports/${job.id}/file`), download: file.name }, "Download") : null,
      (job.export?.notes ?? []).map((note) => h("p", { class: "soft" }, note)),
      job.skipped_count
        ? h(
            "div",
            { class: "note" },
            h("p", {}, `${count(job.skipped_count, "span was", "spans were")} left out:`),
            h(
              "ul",
              {},
              skipped.map((one) => h("li", {}, `${label(one)}: ${one.reason}`)),
            ),
            job.skipped_count > skipped.length ? h("p", {}, `and ${job.skipped_count - skipped.length} more`) : null,
          )
        : null,
      !file && job.status === "done" ? h("p", {}, "The export made no file.") : null,
    ]
      .flat()
      .filter(Boolean);
  }

  return {
    open: () => {
      show();
      shown.open();
    },
  };
}
