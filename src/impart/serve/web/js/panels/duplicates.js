// Videos that share content: exact copies, and others that show the same.

import { frameUrl, get } from "../api.js";
import { clock, h, icon } from "../dom.js";
import { load } from "../parts/loading.js";
import { count, percent } from "../parts/words.js";

export const title = "Duplicates";

const ASK_MS = 2000;
const SHOWN = 30; // groups at once
const MOST_SPANS = 6;

/** Show groups of videos that share content. */
export function mount(container, app) {
  const place = h("div", { class: "flow" });
  const intro = h("p", { class: "soft" }, "Videos that show the same, as a whole or in part. Nothing is deleted here.");
  container.replaceChildren(h("div", { class: "flow" }, intro, place));
  let timer = 0;
  let closed = false;
  const show = async (quiet) => {
    const answer = await load(place, "the duplicates", () => get("/duplicates"), (found) => drawn(found, app), { quiet });
    if (!closed && answer && isComputing(answer)) timer = setTimeout(() => show(true), ASK_MS);
  };
  show(false);
  return {
    unmount: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

// Fields of the API
const isComputing = (answer) => answer.status === "computing";
const progressOf = (answer) => answer.progress ?? null; // 0 to 1

function drawn(answer, app) {
  if (isComputing(answer)) {
    const bar = h("progress", { max: 1, "aria-label": "Comparing the videos" });
    if (progressOf(answer) !== null) bar.value = progressOf(answer);
    return [h("p", { role: "status" }, "The videos are being compared …"), bar];
  }
  const groups = answer.groups ?? [];
  if (!groups.length) return h("p", { class: "note" }, "No videos share content.");
  const list = h("ol", { class: "groups" });
  const more = h("button", { type: "button", class: "button" });
  const grow = () => {
    const from = list.children.length;
    list.append(...groups.slice(from, from + SHOWN).map((group) => groupCard(group, app)));
    const left = groups.length - list.children.length;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(left, SHOWN)} more of ${left}`;
  };
  more.addEventListener("click", grow);
  grow();
  return [h("p", {}, `${count(groups.length, "group")} of videos that share content.`), list, more];
}

function groupCard(group, app) {
  const videos = new Map(group.videos.map((video) => [video.video_id, video]));
  const list = group.videos.map((video) =>
    h(
      "li",
      { class: "twin" },
      h("img", { src: frameUrl(video.video_id, (video.duration_s ?? 0) / 2, 128), alt: "", width: 96, height: 54, loading: "lazy" }),
      h("div", {}, h("b", {}, video.name), h("span", { class: "soft numbers" }, ` ${clock(video.duration_s ?? 0)}`), h("p", { class: "soft path" }, video.path)),
    ),
  );
  const copy = h("button", { type: "button", class: "button fit", onclick: () => copyPaths(group.videos, app) }, "Copy the paths");
  return h("li", { class: "block" }, h("ul", { class: "plain-list" }, list), group.duplicates.map((pair) => pairCard(pair, videos, app)), copy);
}

function pairCard(pair, videos, app) {
  const first = videos.get(pair.video_id);
  const second = videos.get(pair.other_video_id);
  const words = pair.exact ? `${first.name} and ${second.name} are equal, byte by byte.` : `${percent(pair.share)} of ${first.name} and ${percent(pair.other_share)} of ${second.name} show the same.`;
  const play = (video, start_s, end_s) =>
    h("button", { type: "button", class: "button", "aria-label": `Play ${video.name} from ${clock(start_s)}`, onclick: () => app.player.play({ video_id: video.video_id, name: video.name, kind: video.kind ?? "video", start_s, end_s }) }, icon("play"), h("span", { class: "numbers" }, `${clock(start_s)} – ${clock(end_s)}`));
  const spans = pair.exact ? [] : pair.spans.slice(0, MOST_SPANS);
  return h(
    "div",
    { class: "pair-of" },
    h("p", {}, words),
    spans.map((span) => h("div", { class: "row" }, play(first, span.start_s, span.end_s), h("span", { class: "soft" }, "is"), play(second, span.video_start_s, span.video_end_s))),
    pair.spans.length > spans.length && !pair.exact ? h("p", { class: "soft" }, `and ${count(pair.spans.length - spans.length, "further span")}`) : null,
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
