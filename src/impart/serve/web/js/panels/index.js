// The index: its figures, its folders, indexing jobs as they run, what failed and why, and the reference set in force.

import { get, post } from "../api.js";
import { fill, h } from "../dom.js";
import { jobCard } from "../parts/jobcard.js";
import { hasEnded } from "../parts/job.js";
import { isMissing, load } from "../parts/loading.js";
import { count, duration, size, when } from "../parts/words.js";
import * as references from "./references.js";

export const title = "Index";

const FAILURE_KINDS = { partial: "read in part", incomplete: "must be indexed again" };

/** Show the index. */
export function mount(container, app) {
  const figures = h("div");
  const folders = h("div", { class: "flow" });
  const jobs = h("div", { class: "stack" });
  const failures = h("div", { class: "flow" });
  const sets = h("div");
  const cards = new Map(); // of jobs by id
  const part = (name, ...children) => h("section", { class: "part", "aria-label": name }, h("h3", {}, name), children);
  const start = starter(async (request) => {
    try {
      follow(await post("/jobs/index", { paths: null, retry_failed: false, prune: false, ...request })).scrollIntoView({ block: "nearest" });
      app.announce("Indexing started");
      return true;
    } catch (error) {
      app.toast(error.message, "bad");
      return false;
    }
  });
  container.replaceChildren(
    h(
      "div",
      { class: "stack" },
      figures,
      part("Indexing", jobs, start.element),
      part("Folders", folders),
      part("Failures", failures),
      part("Reference sets", sets),
    ),
  );
  const refresh = (quiet) => {
    load(
      figures,
      "the figures of the index",
      () => get("/index"),
      (index) => (start.show(index), drawFigures(index)),
      { quiet },
    );
    load(
      folders,
      "the folders",
      () => get("/folders"),
      (answer) => drawFolders(answer.folders, start.run),
      { quiet },
    );
    load(
      failures,
      "the failures",
      () => get("/failures"),
      (answer) => drawFailures(answer, () => start.run({ retry_failed: true })),
      { quiet },
    );
  };
  const ended = () => {
    refresh(true);
    below.refresh();
    app.libraryChanged();
  };

  function follow(job) {
    if (!cards.has(job.id)) {
      cards.set(job.id, jobCard(job, app, { onend: ended, onretry: follow }));
      jobs.prepend(cards.get(job.id).element);
    }
    return cards.get(job.id).element;
  }

  async function known() {
    try {
      const all = (await get("/jobs")).jobs.filter((job) => job.kind === "index");
      for (const job of all.filter((one) => !hasEnded(one))) follow(job);
      const past = all.filter(hasEnded);
      if (past.length)
        jobs.append(h("details", {}, h("summary", {}, `Past jobs (${past.length})`), h("ul", { class: "plain-list" }, past.map(pastJob))));
    } catch (error) {
      if (error.status === undefined) throw error;
      fill(jobs, h("p", { class: "soft" }, isMissing(error) ? "This server does not run jobs." : error.message));
    }
  }

  refresh(false);
  const below = references.mount(sets, app);
  known();
  return {
    unmount: () => {
      cards.forEach((card) => card.stop());
      below.unmount();
    },
  };
}

/** The form that starts a job: for all folders, or for one that is written. */
function starter(send) {
  const failed = h("input", { type: "checkbox" });
  const prune = h("input", { type: "checkbox" });
  const folder = h("input", {
    class: "field",
    list: "index-roots",
    "aria-label": "A folder inside those of the index",
    spellcheck: false,
    autocomplete: "off",
  });
  const roots = h("datalist", { id: "index-roots" });
  const note = h("p", { class: "soft path" });
  const button = h("button", { type: "button", class: "button main" }, "Index all again");
  const run = async (request = {}) => {
    button.disabled = true;
    const done = await send({ retry_failed: failed.checked, prune: prune.checked, ...request });
    button.disabled = false;
    return done;
  };
  button.addEventListener("click", () => run());
  const one = async (event) => {
    event.preventDefault();
    if (folder.value.trim() && (await run({ paths: [folder.value.trim()] }))) folder.value = "";
  };
  const element = h(
    "div",
    { class: "stack" },
    h("p", { class: "soft" }, "Finds new and changed files in all folders. What is done already is not done again."),
    h(
      "div",
      {},
      h("label", { class: "check" }, failed, "Try files again that failed"),
      h("label", { class: "check" }, prune, "Remove videos whose files are gone"),
    ),
    h("div", { class: "row" }, button),
    h("form", { class: "row", onsubmit: one }, folder, h("button", { type: "submit", class: "button" }, "Index this folder"), roots),
    note,
  );
  const show = ({ roots: known, read_only: readOnly, exists }) => {
    button.textContent = exists ? "Index all again" : "Index all";
    for (const control of element.querySelectorAll("button, input")) control.disabled = readOnly;
    fill(
      roots,
      known.map((root) => h("option", { value: root })),
    );
    folder.placeholder = known.length ? `${known[0]}/…` : "";
    note.textContent = readOnly
      ? "This server is read-only: it does not index."
      : `Folders that may be indexed: ${known.join(", ") || "none yet"}. Others need impart serve --root FOLDER.`;
  };
  return { element, run, show };
}

function drawFigures(index) {
  const rows = [
    ["Videos", index.videos.toLocaleString("en")],
    ["Photos", index.photos.toLocaleString("en")],
    ["Length", duration(index.video_s)],
    ["Scenes", index.scenes.toLocaleString("en")],
    ["Read in part", index.partial || null],
    ["On disk", size(index.size_bytes)],
    ["Encoder", index.encoder_id],
    ["Reference set", index.references ?? "none"],
  ];
  return h(
    "dl",
    { class: "figures" },
    rows
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "numbers" }, value))),
  );
}

function drawFolders(folders, run) {
  if (!folders.length) return h("p", { class: "note" }, "The index has no folders yet.");
  return h(
    "ul",
    { class: "plain-list" },
    folders.map(({ folder, videos }) =>
      h(
        "li",
        { class: "folder" },
        h("span", { class: "path" }, folder),
        h("span", { class: "soft numbers" }, count(videos, "file")),
        h(
          "button",
          { type: "button", class: "button", "aria-label": `Index again: ${folder}`, onclick: () => run({ paths: [folder] }) },
          "Index again",
        ),
      ),
    ),
  );
}

function drawFailures({ failures, total }, retry) {
  if (!total) return h("p", { class: "soft" }, "All files could be indexed completely.");
  return [
    h(
      "div",
      { class: "row between" },
      h("span", {}, `${count(total, "file")} could not be indexed completely.`),
      h("button", { type: "button", class: "button", onclick: retry }, "Try them again"),
    ),
    h(
      "ul",
      { class: "plain-list failures" },
      failures.map((one) =>
        h(
          "li",
          {},
          h("b", { class: "path", title: one.path }, one.name),
          FAILURE_KINDS[one.kind] ? h("span", { class: "soft" }, ` ${FAILURE_KINDS[one.kind]}`) : null,
          h("p", {}, one.reason),
          one.attempts > 1 ? h("p", { class: "soft" }, `tried ${count(one.attempts, "time")}`) : null,
        ),
      ),
    ),
    total > failures.length ? h("p", { class: "soft" }, `and ${count(total - failures.length, "more", "more")}`) : null,
  ];
}

function pastJob(job) {
  const { added = 0, updated = 0, failed = 0 } = job.index?.counts ?? {};
  const parts = [`${added} added`, updated ? `${updated} updated` : null, failed ? `${failed} failed` : null].filter(Boolean).join(", ");
  return h(
    "li",
    {},
    h("b", {}, job.status.replaceAll("_", " ")),
    h("span", { class: "soft numbers" }, ` ${when(job.ended_at ?? job.created_at)}: ${parts}`),
    job.error ? h("p", { class: "bad" }, job.error.detail) : null,
  );
}
