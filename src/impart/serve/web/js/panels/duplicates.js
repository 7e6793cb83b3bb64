// Videos that share content: equal files, and others that show the same.

import { frameUrl, get } from "../api.js";
import { clock, h, icon } from "../dom.js";
import { load } from "../parts/loading.js";
import { count, percent, size } from "../parts/words.js";

export const title = "Duplicates";

const ASK_MS = 2000;
const PAGE = 30; // groups
const MOST_SPANS = 6; // per pair

const pagePath = (cursor) => `/duplicates?limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;

/** Show groups of videos that share content. */
export function mount(container, app) {
  const place = h("div", { class: "flow" });
  const state = h("div", { class: "flow" });
  container.replaceChildren(
    h(
      "div",
      { class: "flow" },
      h("p", { class: "soft" }, "Videos that show the same, as a whole or in part. Nothing is deleted here."),
      state,
      place,
    ),
  );
  let timer = 0;
  let closed = false;
  let known = null; // groups that are shown, as a text
  const show = async (quiet) => {
    const answer = await load(state, "the duplicates", () => get(pagePath()), drawnState, { quiet });
    if (closed || !answer) return;
    if (answer.status === "computing") timer = setTimeout(() => show(true), ASK_MS);
    const groups = JSON.stringify([answer.status === "computing", answer.groups]);
    if (groups !== known) place.replaceChildren(...drawnGroups(answer, app));
    known = groups;
  };
  show(false);
  return {
    unmount: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

function drawnState({ status, done, total_steps: steps, problem, groups }) {
  if (status === "failed") return h("p", { class: "note bad", role: "alert" }, `The videos could not be compared: ${problem}`);
  if (status !== "computing") return [];
  const bar = h("progress", { max: 1, "aria-label": "Comparing the videos" });
  if (steps) bar.value = done / steps;
  return [h("p", { role: "status" }, groups.length ? "The index has changed: its videos are compared again …" : "The videos are compared …"), bar];
}

function drawnGroups(first, app) {
  if (!first.groups.length) return first.status === "ready" ? [h("p", { class: "note" }, "No videos share content.")] : [];
  const list = h("ol", { class: "groups" });
  const more = h("button", { type: "button", class: "button fit" }, "Show more");
  let cursor = null;
  const add = (answer) => {
    list.append(...answer.groups.map((group) => groupCard(group, app)));
    cursor = answer.next_cursor;
    more.hidden = !cursor;
  };
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      add(await get(pagePath(cursor)));
    } catch (error) {
      app.toast(error.message, "bad");
    }
    more.disabled = false;
  });
  add(first);
  return [h("p", {}, `${count(first.total, "group")} of videos that share content.`), list, more];
}

function groupCard(group, app) {
  const videos = new Map(group.videos.map((video) => [video.video_id, video]));
  const list = group.videos.map((video) =>
    h(
      "li",
      { class: "twin" },
      h("img", { src: frameUrl(video.video_id, video.duration_s / 2, 160), alt: "", width: 96, height: 54, loading: "lazy" }),
      h(
        "div",
        {},
        h("b", { class: "path" }, video.name),
        h("span", { class: "soft numbers" }, ` ${video.kind === "photo" ? "" : `${clock(video.duration_s)} · `}${size(video.size_bytes)}`),
        h("p", { class: "soft path" }, video.path),
      ),
    ),
  );
  const copy = h("button", { type: "button", class: "button fit", onclick: () => copyPaths(group.videos, app) }, "Copy the paths");
  return h(
    "li",
    { class: "block" },
    h("ul", { class: "plain-list" }, list),
    group.pairs.map((pair) => pairCard(pair, videos, app)),
    copy,
  );
}

function pairCard(pair, videos, app) {
  const first = videos.get(pair.video_id);
  const second = videos.get(pair.other_video_id);
  const words = pair.exact
    ? `${first.name} and ${second.name} are equal, byte by byte.`
    : `${percent(pair.share)} of ${first.name} and ${percent(pair.other_share)} of ${second.name} show the same.`;
  const play = (video, start_s, end_s) =>
    h(
      "button",
      {
        type: "button",
        class: "button",
        "aria-label": `Play ${video.name}, ${clock(start_s)} – ${clock(end_s)}`,
        onclick: () => app.player.play({ video_id: video.video_id, name: video.name, kind: video.kind, start_s, end_s }),
      },
      icon("play"),
      h("span", { class: "numbers" }, `${clock(start_s)} – ${clock(end_s)}`),
    );
  const spans = pair.exact ? [] : pair.spans;
  const rest = spans.length - MOST_SPANS;
  return h(
    "div",
    { class: "pair-of" },
    h("p", { class: "path" }, words),
    spans
      .slice(0, MOST_SPANS)
      .map((span) =>
        h(
          "div",
          { class: "row" },
          play(first, span.start_s, span.end_s),
          h("span", { class: "soft" }, "is"),
          play(second, span.other_start_s, span.other_end_s),
        ),
      ),
    rest > 0 ? h("p", { class: "soft" }, `and ${count(rest, "further span")}`) : null,
  );
}

async function copyPaths(videos, app) {
  try {
    await navigator.clipboard.writeText(videos.map((video) => video.path).join("\n"));
    app.toast(`${count(videos.length, "path")} copied.`, "good");
  } catch {
    app.toast("The browser does not let this page use the clipboard.", "bad");
  }
}
