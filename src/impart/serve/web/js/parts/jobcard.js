// An indexing job as it runs: file, progress, speed, remaining time, and the orders to it.

import { fill, h } from "../dom.js";
import { hasEnded, order, statusWords, watch } from "./job.js";
import { progress } from "./progress.js";
import { count, duration, percent, size } from "./words.js";

const MOST_FAILURES = 20;
const ORDERS = {
  // status -> [order, text]
  queued: [["cancel", "Cancel"]],
  running: [
    ["pause", "Pause"],
    ["cancel", "Cancel"],
  ],
  pausing: [
    ["resume", "Resume"],
    ["cancel", "Cancel"],
  ],
  paused: [
    ["resume", "Resume"],
    ["cancel", "Cancel"],
  ],
  cancelling: [],
};

/**
 * Make the card of a job, and follow the job.
 *
 * @param {Object} job
 * @param {Object} app
 * @param {{onend: function(Object): void, onretry: function(Object): void}} listeners `onretry` gets the new job
 * @returns {{element: HTMLElement, stop: function(): void}}
 */
export function jobCard(job, app, { onend, onretry }) {
  const status = h("b", {});
  const file = h("p", { class: "path" });
  const bar = progress("Indexing", app.announce.bind(app));
  const buttons = h("div", { class: "row" });
  const failures = h("ul", { class: "plain-list failures" });
  const element = h("div", { class: "block job" }, h("div", { class: "row between" }, status, buttons), file, bar.element, failures);
  let drawn = null; // status that the buttons are for
  let listed = 0;

  async function give(what, button) {
    button.disabled = true;
    try {
      const answer = await order(job, what);
      if (what === "retry") onretry(answer);
    } catch (error) {
      app.toast(error.message, "bad");
    }
    button.disabled = false;
  }

  function orders(now) {
    const wanted = hasEnded(now)
      ? now.status === "done"
        ? []
        : [["retry", now.status === "cancelled" ? "Go on" : "Try again"]]
      : (ORDERS[now.status] ?? []);
    const focused = buttons.contains(document.activeElement);
    fill(
      buttons,
      wanted.map(([what, text]) => h("button", { type: "button", class: "button", onclick: (event) => give(what, event.currentTarget) }, text)),
    );
    if (focused) (buttons.querySelector("button") ?? status).focus();
  }

  function show(now) {
    status.textContent = `Indexing: ${statusWords(now)}`;
    status.tabIndex = -1;
    const done = hasEnded(now);
    file.textContent = now.error ? now.error.detail : done ? "" : (now.index?.current?.name ?? "");
    file.className = now.error ? "bad" : "path";
    file.hidden = !file.textContent && done;
    bar.element.querySelector("progress").hidden = done;
    bar.show(shareOf(now), done ? summary(now) : running(now));
    if (now.status !== drawn) {
      orders(now);
      if (drawn !== null) app.announce(status.textContent);
      drawn = now.status;
    }
    if (now.failures.length !== listed) {
      listed = now.failures.length;
      const shown = now.failures.slice(-MOST_FAILURES);
      fill(
        failures,
        shown.map((one) => h("li", {}, h("b", { class: "path", title: one.path }, one.name), h("p", {}, one.reason))),
        now.failures_count > shown.length ? h("li", { class: "soft" }, `and ${now.failures_count - shown.length} more`) : null,
      );
    }
    if (done) onend(now);
  }

  show(job);
  const stop = hasEnded(job) ? () => {} : watch(job, show);
  return { element, stop };
}

/** Share of the work done, by bytes; null while it is unknown. */
function shareOf({ index, status }) {
  if (!index || index.scanning || status === "queued") return null;
  return index.bytes_total ? index.bytes_done / index.bytes_total : 1;
}

function running({ index, status }) {
  if (status === "queued") return "Waits for another job";
  if (index?.index_paused) return "Waits: indexing was paused by “impart pause”; “impart resume” lets it go on";
  if (!index || index.scanning) return "Finding new and changed files …";
  if (!index.files_total) return "Nothing is new or changed";
  const parts = [
    `${percent(shareOf({ index, status }))} of ${size(index.bytes_total)}`,
    `${index.files_done} of ${count(index.files_total, "file")}`,
  ];
  if (index.speed > 0) parts.push(`${index.speed.toFixed(1)} × real time`);
  if (index.remaining_s !== null && index.remaining_s !== undefined && status === "running") parts.push(`${duration(index.remaining_s)} left`);
  return parts.join(" · ");
}

function summary({ index, failures_count: failures }) {
  const { added = 0, updated = 0, moved = 0, copied = 0, removed = 0, unchanged = 0 } = index?.counts ?? {};
  const parts = [`${added} added`];
  for (const [number, word] of [
    [updated, "updated"],
    [moved, "moved"],
    [copied, "copied"],
    [removed, "removed"],
    [unchanged, "unchanged"],
    [failures, "failed"],
  ])
    if (number) parts.push(`${number} ${word}`);
  return parts.join(", ");
}
