// Results: pages of hits as they are needed, the fold at the relative cut, and states without hits.
//
// A page is one chunk of cards. Chunks far from the viewport are emptied and keep their height, so that 10,000 hits
// cost no more than what is near.

import { fill, h, icon } from "./dom.js";
import { fetchHeat } from "./heat.js";
import { hitCard } from "./hit.js";
import { asks, describe, filtered, keyOf, requestOf, unfiltered } from "./query.js";
import { startPage } from "./start.js";

const NEAR_PX = 1500; // chunks nearer than this are drawn, and further pages loaded
const KEPT_SEARCHES = 8;
const MOST_RESTORED = 1200; // hits that are loaded again to restore the place of the scroll
const SAVE_MS = 120;

export class Results {
  #app;
  #element;
  #head = h("div", { class: "results-head" });
  #good = h("div", { role: "feed", "aria-label": "Hits", class: "feed" });
  #fold = h("button", { type: "button", class: "button fold", hidden: true, onclick: () => this.#toggleFold() });
  #rest = h("div", { role: "feed", "aria-label": "Hits below the cut", class: "feed" });
  #more = h("button", { type: "button", class: "button more", hidden: true, onclick: () => this.#loadMore(true) }, "Load more");
  #key = null;
  #search = null; // {request, pages, next, count, heat}
  #searches = new Map(); // by key, the latest last
  #abort = new AbortController();
  #chunks = new Map(); // element -> {hits, first, cards}
  #near;
  #end;
  #loading = null;

  constructor(app, element) {
    this.#app = app;
    this.#element = element;
    this.#near = new IntersectionObserver((entries) => entries.forEach((entry) => this.#nearChanged(entry)), { rootMargin: `${NEAR_PX}px 0px` });
    this.#end = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#loadMore(), { rootMargin: `${NEAR_PX}px 0px` });
    let saving;
    addEventListener("scroll", () => {
      clearTimeout(saving);
      saving = setTimeout(() => app.state.keep({ y: Math.round(scrollY), count: this.#search?.count ?? 0 }), SAVE_MS);
    }, { passive: true });
    let drawing;
    new ResizeObserver(() => {
      cancelAnimationFrame(drawing);
      drawing = requestAnimationFrame(() => this.#drawHeat());
    }).observe(element);
    app.state.on((state, change) => this.show(state, change));
  }

  /** Show what a state asks for; `moved` restores the place of the scroll, `again` searches anew. */
  async show(state, { moved = false, again = false } = {}) {
    const key = asks(state) ? keyOf(state) : "";
    document.title = key ? `${describe(state)} – IMPART` : "IMPART";
    if (key === this.#key && !again) {
      this.#showFold();
      this.#app.player.follow(state);
      return;
    }
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#key = key;
    if (again) this.#searches.delete(key);
    const kept = this.#app.state.kept;
    if (!key) {
      this.#clear();
      await startPage(this.#app, this.#element, signal);
      if (!signal.aborted) this.#arrive(state, moved, kept);
      return;
    }
    this.wait();
    try {
      const search = this.#searches.get(key) ?? (await this.#begin(state, signal));
      this.#searches.delete(key);
      this.#searches.set(key, search);
      if (this.#searches.size > KEPT_SEARCHES) this.#searches.delete(this.#searches.keys().next().value);
      while (moved && search.next && search.count < Math.min(kept.count ?? 0, MOST_RESTORED)) await this.#fetchPage(search, signal);
      if (signal.aborted) return;
      this.#clear();
      this.#search = search;
      this.#draw(state);
      this.#arrive(state, moved, kept);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#clear();
      this.#key = null;
      this.#showError(error);
    }
  }

  /** Search anew after the library has changed; hits that are shown stay. */
  renew() {
    this.#searches.clear();
    if (!this.#element.querySelector(".card")) this.show(this.#app.state.value, { moved: true, again: true });
  }

  /** Mark the results as about to change. */
  wait() {
    this.#element.setAttribute("aria-busy", "true");
  }

  /** Keep the first page of a search that was asked elsewhere, such as with an uploaded image. */
  seed(key, answer) {
    this.#searches.set(key, this.#started(null, answer));
  }

  /** Move the focus to the first hit; false where there is none. */
  focusFirst() {
    const first = this.#element.querySelector("[data-play]");
    first?.focus();
    return Boolean(first);
  }

  /** Card of a video that shows a span, or else its first card; null where none is shown. */
  cardOf({ video_id, start_s }) {
    const cards = [...this.#element.querySelectorAll(`.card[data-video="${video_id}"]`)].filter((card) => card.offsetParent !== null);
    const shows = ({ hit }) => [hit, ...hit.moments, ...hit.steps].some((moment) => Math.abs(moment.start_s - start_s) < 0.002);
    return cards.find(shows) ?? cards[0] ?? null;
  }

  async #begin(state, signal) {
    const request = requestOf(state);
    const answer = await this.#app.api.post("/search", request, { signal });
    return this.#started(request, answer);
  }

  #started(request, answer) {
    return { request, pages: [answer.hits], next: answer.next_cursor, count: answer.hits.length, tookMs: answer.took_ms, names: answer.names ?? [], heat: new Map() };
  }

  async #fetchPage(search, signal) {
    const request = { ...(search.request ?? requestOf(this.#app.state.value)), cursor: search.next };
    const answer = await this.#app.api.post("/search", request, { signal });
    search.pages.push(answer.hits);
    search.next = answer.next_cursor;
    search.count += answer.hits.length;
    return answer.hits;
  }

  async #loadMore(wanted = false) {
    const search = this.#search;
    if (!search?.next || this.#loading || (this.#folded && this.#weakCount && !wanted)) return;
    this.#more.disabled = true;
    this.#loading = this.#fetchPage(search, this.#abort.signal);
    try {
      const first = search.count + 1;
      const hits = await this.#loading;
      if (this.#search !== search) return;
      this.#addPage(hits, first);
      this.#showFold();
      if (wanted) this.#element.querySelector(`#hit-${first} [data-play]`)?.focus({ preventScroll: true });
    } catch (error) {
      if (error.name !== "AbortError") this.#app.toast(`Further hits cannot be loaded: ${error.message}`, "bad");
    } finally {
      this.#loading = null;
      this.#more.disabled = false;
    }
    this.#end.unobserve(this.#more); // observed anew, it tells whether still more is needed
    this.#end.observe(this.#more);
  }

  #clear() {
    this.#app.player.close();
    this.#near.disconnect();
    this.#end.disconnect();
    this.#chunks.clear();
    this.#search = null;
    this.#loading = null;
    this.#element.removeAttribute("aria-busy");
    fill(this.#good);
    fill(this.#rest);
    fill(this.#element);
  }

  #draw(state) {
    const { pages, count, next, tookMs } = this.#search;
    if (!count) {
      this.#showNone(state);
      return;
    }
    let first = 1;
    for (const hits of pages) {
      this.#addPage(hits, first);
      first += hits.length;
    }
    const unit = { moment: "moment", scene: "scene", frame: "frame" }[state.group] ?? "result";
    const words = (number, open) => `${number}${open ? "+" : ""} ${unit}${number === 1 && !open ? "" : "s"}`;
    const strong = count - this.#weakCount;
    const weak = strong === 0;
    const counted = weak || strong === count ? words(count, next) : `${words(strong)}, ${count - strong}${next ? "+" : ""} more below the cut`;
    fill(this.#head, h("p", {}, weak ? "No good match. These come nearest." : counted), h("p", { class: "soft" }, tookMs < 1000 ? `${Math.round(tookMs)} ms` : `${(tookMs / 1000).toFixed(1)} s`));
    fill(this.#element, this.#head, this.#good, this.#fold, this.#rest, h("div", { class: "more-row" }, this.#more));
    this.#good.hidden = weak;
    this.#showFold();
    this.#end.observe(this.#more);
    const best = pages[0][0];
    this.#app.announce(`${counted}. Best: ${best.name}`);
  }

  #addPage(hits, first) {
    const numbered = hits.map((hit, number) => ({ hit, place: first + number }));
    this.#addChunk(this.#good, numbered.filter(({ hit }) => hit.strong));
    this.#addChunk(this.#rest, numbered.filter(({ hit }) => !hit.strong));
    this.#fetchHeat(hits);
  }

  #addChunk(feed, numbered) {
    if (!numbered.length) return;
    const element = h("div", { class: "grid" });
    const chunk = { numbered, cards: [] };
    this.#chunks.set(element, chunk);
    this.#fillChunk(element, chunk);
    feed.append(element);
    this.#near.observe(element);
  }

  #fillChunk(element, chunk) {
    chunk.cards = chunk.numbered.map(({ hit, place }) => hitCard(this.#app, hit, place));
    element.append(...chunk.cards.map((card) => card.element));
    element.style.height = "";
  }

  #nearChanged({ target, isIntersecting, boundingClientRect }) {
    const chunk = this.#chunks.get(target);
    if (!chunk || target.closest("[hidden]")) return;
    if (isIntersecting && !chunk.cards.length) {
      this.#fillChunk(target, chunk);
      requestAnimationFrame(() => this.#drawHeat([chunk]));
    } else if (!isIntersecting && chunk.cards.length && !target.contains(document.activeElement) && !target.querySelector(".player")) {
      target.style.height = `${boundingClientRect.height}px`;
      chunk.cards = [];
      target.replaceChildren();
    }
  }

  get #weakCount() {
    return [...this.#chunks].reduce((sum, [element, { numbered }]) => sum + (element.parentElement === this.#rest ? numbered.length : 0), 0);
  }

  get #folded() {
    return this.#app.state.value.all !== "1" && this.#good.childElementCount > 0;
  }

  #showFold() {
    if (!this.#search) return;
    const weak = this.#weakCount;
    const folded = this.#folded && weak > 0;
    this.#fold.hidden = !weak || !this.#good.childElementCount;
    this.#fold.setAttribute("aria-expanded", String(!folded));
    this.#rest.hidden = folded || !weak;
    this.#more.hidden = !this.#search.next || folded;
    fill(this.#fold, icon("more"), folded ? `${weak}${this.#search.next ? "+" : ""} more below` : "Below the cut");
    if (!folded) requestAnimationFrame(() => this.#drawHeat());
  }

  #toggleFold() {
    this.#app.state.patch({ all: this.#folded ? "1" : null }, { replace: true });
  }

  async #fetchHeat(hits) {
    const search = this.#search;
    const ids = [...new Set(hits.filter((hit) => hit.kind === "video").map((hit) => hit.video_id))].filter((id) => !search.heat.has(id));
    if (ids.length) {
      try {
        for (const [id, heat] of await fetchHeat(search.request ?? requestOf(this.#app.state.value), ids, this.#abort.signal)) search.heat.set(id, heat);
      } catch {
        return; // another search began
      }
    }
    if (this.#search === search) this.#drawHeat();
  }

  #drawHeat(chunks = this.#chunks.values()) {
    if (!this.#search) return;
    for (const { numbered, cards } of chunks) cards.forEach((card, number) => card.draw(this.#search.heat.get(numbered[number].hit.video_id)));
  }

  /** Draw the heat again, such as in other colours. */
  redraw() {
    this.#drawHeat();
  }

  /** Heat of a video for the present search, for the player. */
  heatOf(videoId) {
    return this.#search?.heat.get(videoId);
  }

  #arrive(state, moved, kept) {
    scrollTo({ top: moved ? (kept.y ?? 0) : 0, behavior: "instant" });
    this.#app.player.follow(state, { reveal: kept.y === undefined });
  }

  #showNone(state) {
    const remove = (text, next) => h("button", { type: "button", class: "button", onclick: () => this.#app.state.set(next) }, text);
    const ways = [
      filtered(state) ? remove("Remove the filters", unfiltered(state)) : null,
      state.not?.length ? remove("Remove what must not be in it", { ...state, not: null }) : null,
      state.then ? remove("Remove what must follow", { ...state, then: null, within: null }) : null,
      remove("Start page", {}),
    ];
    const hint = filtered(state) ? "No video or photo passes these filters." : "The index has nothing to show for this.";
    fill(this.#element, h("div", { class: "notice" }, h("h2", {}, "No hits"), h("p", {}, hint), h("div", { class: "notice-buttons" }, ways)));
    this.#app.announce("No hits");
  }

  #showError(error) {
    const retry = () => this.show(this.#app.state.value, { moved: true, again: true });
    const title = error.status === 0 ? "The server does not answer" : error.status === 503 && error.code === "no_index" ? "There is no index yet" : "The search failed";
    fill(this.#element, h("div", { class: "notice", role: "alert" }, h("h2", {}, title), h("p", {}, error.message), h("div", { class: "notice-buttons" },
      h("button", { type: "button", class: "button main", onclick: retry }, "Try again"), h("button", { type: "button", class: "button", onclick: () => this.#app.openPanel("index") }, "Open the index"))));
  }
}
