// The player: opens below the card of a hit, plays its span in a loop, and lets both bounds be moved.
//
// What is open is the value `hit` of the state. A fragment such as `#t=3,5` stops once and does not loop, so the span is
// kept by this code.

import { frameUrl } from "./api.js";
import { clock, fill, h, icon, iconButton, recall, remember } from "./dom.js";
import { momentButtons } from "./hit.js";
import { actionButtons } from "./player/actions.js";
import { photoStage } from "./player/photo.js";
import { Source } from "./player/source.js";
import { Timeline } from "./player/timeline.js";
import { folderOf, formatMoment, lengthText, parseMoment } from "./query.js";

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2];
const FPS = 25; // where the rate is not known
const OPEN_SPAN_S = 5; // length of a span that was given by its start alone
const SETTLE_MS = 250; // after the last move of a bound, the state follows

export class Player {
  #app;
  #key = null; // `hit` of the state that is open
  #span = null; // {video_id, name, kind, start_s, end_s}
  #pending = null; // given to `play`, on its way through the state
  #element = null;
  #card = null;
  #video = null;
  #source = null;
  #timeline = null;
  #controls = {};
  #frame_s = 1 / FPS;
  #loop = true;
  #playOn = false;
  #settling;
  #resized = new ResizeObserver(() => this.redraw());

  constructor(app) {
    this.#app = app;
  }

  /**
   * Play a span in place; without an end it plays on from the start.
   *
   * @param {{video_id: string, start_s: number, end_s: number, name?: string, kind?: string, at_s?: number}} span
   */
  play(span) {
    const hit = formatMoment(span);
    if (isCovered()) this.#app.closePanel();
    if (hit === this.#key && this.#element?.isConnected) {
      this.#source?.seek(span.at_s ?? span.start_s);
      this.#start();
      this.#reveal();
      return;
    }
    this.#pending = span;
    this.#app.state.patch({ hit }, { replace: Boolean(this.#app.state.value.hit) });
    if (this.#pending) this.follow(this.#app.state.value); // the state was the same already
  }

  /** Open or close what the state says; `reveal` scrolls to it. */
  async follow(state, { reveal = false } = {}) {
    const moment = parseMoment(state.hit);
    if (!moment) {
      this.close();
      return;
    }
    if (state.hit === this.#key && (this.#element?.isConnected || !this.#pending)) return;
    const pending = this.#pending;
    this.#pending = null;
    this.close();
    this.#key = state.hit;
    let info;
    try {
      info = await this.#app.api.get(`/videos/${moment.video_id}`);
    } catch (error) {
      if (this.#key !== state.hit) return;
      this.#key = null;
      this.#app.toast(`It cannot be shown: ${error.message}`, "bad");
      return;
    }
    if (this.#key === state.hit) this.#open({ ...moment, name: info.name, kind: info.kind }, info, pending);
    if (pending || reveal) this.#reveal();
  }

  /** Close it; the state keeps its value. */
  close() {
    this.#source?.close();
    this.#resized.disconnect();
    clearTimeout(this.#settling);
    if (this.#card) this.#card.classList.remove("open");
    this.#element?.remove();
    document.querySelector("#player").hidden = true;
    this.#key = this.#span = this.#element = this.#card = this.#video = this.#source = this.#timeline = null;
  }

  /** Close it for good: the state forgets it, and the focus returns to the hit. */
  dismiss() {
    const card = this.#card;
    const inside = this.#element?.contains(document.activeElement);
    this.#app.state.patch({ hit: null }, { replace: true });
    if (inside) card?.querySelector("[data-play]")?.focus();
  }

  get isOpen() {
    return this.#element !== null;
  }

  /** Whether an element is in the player. */
  contains(element) {
    return Boolean(this.#element?.contains(element));
  }

  /** Whether the player shows this video. */
  shows(videoId) {
    return this.#span?.video_id === videoId;
  }

  /** The span with both bounds as they are now, and the time that is shown. */
  get span() {
    return this.#span && { ...this.#span, at_s: this.#source?.time_s ?? 0 };
  }

  toggle() {
    if (!this.#video) return;
    if (this.#video.paused) this.#start();
    else this.#source.pause();
  }

  /** Go on or back by frames. */
  step(frames) {
    if (!this.#video) return;
    this.#source.pause();
    this.#seek(this.#source.time_s + frames * this.#frame_s);
  }

  /** Begin (`start_s`) or end (`end_s`) the span at the time that is shown. */
  bound(name) {
    if (!this.#video) return;
    const at_s = this.#source.time_s;
    const { start_s, end_s } = this.#span;
    const length = end_s - start_s;
    const span = name === "start_s" ? { start_s: at_s, end_s: end_s > at_s ? end_s : at_s + length } : { start_s: start_s < at_s ? start_s : Math.max(0, at_s - length), end_s: at_s };
    this.#setSpan({ ...this.#span, ...span });
    this.#app.announce(`${name === "start_s" ? "Start" : "End"} at ${clock(at_s, 2)}`);
  }

  toggleLoop() {
    this.#loop = !this.#loop;
    this.#showModes();
  }

  togglePlayOn() {
    this.#playOn = !this.#playOn;
    this.#showModes();
  }

  toggleMute() {
    if (this.#video) this.#video.muted = !this.#video.muted;
  }

  toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.#element?.requestFullscreen().catch(() => {});
  }

  /** Draw the timeline again, such as in other colours. */
  redraw() {
    this.#timeline?.draw();
  }

  #open(span, info, pending) {
    const open = span.end_s <= span.start_s;
    this.#playOn = open && info.kind === "video";
    this.#span = open ? { ...span, end_s: Math.min(info.duration_s || OPEN_SPAN_S, span.start_s + OPEN_SPAN_S) } : span;
    this.#frame_s = 1 / (info.fps || FPS);
    this.#element = h("article", { class: "player", "aria-label": `Player: ${info.name}` });
    this.#card = this.#app.results.cardOf(span);
    const side = this.#side(info);
    if (info.kind === "photo") {
      const { stage, buttons } = photoStage(info);
      this.#element.append(h("div", { class: "player-main" }, stage, h("div", { class: "controls" }, buttons)), side);
    } else this.#element.append(this.#main(info), side);
    this.#place();
    if (info.kind === "video") {
      this.#resized.observe(this.#element);
      this.#source.start(this.#span, pending?.at_s ?? span.start_s);
      if (pending) this.#start();
      this.#loadScenes(info.video_id);
      this.#showModes();
    }
    this.#app.announce(info.kind === "photo" ? `Shows ${info.name}` : `Plays ${info.name} from ${clock(span.start_s)}`);
  }

  #place() {
    this.#card?.classList.add("open");
    if (this.#card) this.#card.after(this.#element);
    else {
      const host = document.querySelector("#player");
      host.hidden = false;
      fill(host, this.#element);
    }
  }

  #reveal() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#element?.scrollIntoView({ block: "nearest", behavior: calm ? "instant" : "smooth" });
  }

  #side(info) {
    const close = iconButton("close", "Close the player (Escape)", () => this.dismiss(), { class: "button icon plain" });
    const facts = [info.kind === "video" ? lengthText(info.duration_s) : null, `${info.width} × ${info.height}`, info.codec, info.fps && info.kind === "video" ? `${Math.round(info.fps * 100) / 100} fps` : null];
    return h("div", { class: "player-side" },
      h("div", { class: "player-title" }, h("h3", { title: info.path }, breakable(info.name)), close),
      h("p", { class: "soft player-folder" }, folderOf(info.path)),
      h("p", { class: "soft" }, facts.filter(Boolean).join(" · ")),
      info.file === "changed" ? h("p", { class: "bad" }, "The file has changed since it was indexed, so that moments may be elsewhere. Index its folder again.") : null,
      info.problem ? h("p", { class: "bad" }, info.problem) : null,
      actionButtons(this.#app, () => this.span),
      this.#moments(info));
  }

  /** Further moments of the open hit, so that they can be compared while one plays. */
  #moments(info) {
    const hit = this.#card?.hit;
    if (!hit || info.kind === "photo") return null;
    const play = (span) => this.play({ video_id: info.video_id, name: info.name, kind: info.kind, ...span });
    const buttons = momentButtons({ ...hit, moments: [hit, ...hit.moments] }, play);
    return hit.moments.length || hit.steps.length ? h("div", { class: "player-moments" }, h("h4", {}, hit.steps.length ? "Parts" : "Moments"), buttons) : null;
  }

  #main(info) {
    const notice = h("p", { class: "player-notice", role: "status" });
    const video = (this.#video = h("video", { playsInline: true, preload: "auto", poster: frameUrl(info.video_id, this.#span.start_s, 480), tabIndex: -1, "aria-label": info.name, onclick: () => this.toggle() }));
    video.volume = recall("volume", 1);
    video.muted = recall("muted", false);
    this.#source = new Source(video, info, {
      notice: (text, busy = false) => {
        notice.textContent = text ?? "";
        notice.classList.toggle("busy", busy);
      },
      failed: (text) => {
        notice.textContent = text;
        notice.classList.add("bad");
      },
    });
    this.#timeline = new Timeline({
      duration_s: info.duration_s,
      frame_s: this.#frame_s,
      span: this.#span,
      heat: this.#app.results.heatOf(info.video_id),
      onseek: (at_s) => this.#seek(at_s),
      onbounds: (span, at_s) => {
        this.#source.pause();
        this.#setSpan(span);
        this.#source.seek(at_s);
      },
    });
    const tick = () => this.#tick();
    for (const event of ["timeupdate", "seeked", "seeking"]) video.addEventListener(event, tick);
    for (const event of ["play", "pause"]) video.addEventListener(event, () => this.#showModes());
    video.addEventListener("ended", () => this.#ended());
    video.addEventListener("volumechange", () => {
      remember("volume", video.volume);
      remember("muted", video.muted);
      this.#showModes();
    });
    const everyFrame = () => {
      if (this.#video !== video) return;
      tick();
      video.requestVideoFrameCallback(everyFrame);
    };
    video.requestVideoFrameCallback?.(everyFrame);
    return h("div", { class: "player-main" }, h("div", { class: "stage" }, video), notice, this.#timeline.element, this.#buttons());
  }

  #buttons() {
    const press = (glyph, label, run) => iconButton(glyph, label, run);
    const c = (this.#controls = {
      play: press("play", "Play (Space)", () => this.toggle()),
      loop: press("loop", "Loop the span (l)", () => this.toggleLoop()),
      playOn: press("play-on", "Play on to the end of the file", () => this.togglePlayOn()),
      mute: press("volume", "Mute (m)", () => this.toggleMute()),
      volume: h("input", { class: "volume", type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Volume", oninput: (event) => {
        this.#video.volume = Number(event.target.value);
        this.#video.muted = false;
      } }),
      whole: press("whole", "Show the whole video in the timeline", () => {
        this.#timeline.show(!this.#timeline.isWhole);
        this.#showModes();
      }),
      time: h("output", { class: "time", "aria-live": "off" }),
      speed: h("select", { class: "button", "aria-label": "Speed", title: "Speed", onchange: (event) => (this.#video.playbackRate = this.#video.defaultPlaybackRate = Number(event.target.value)) },
        SPEEDS.map((speed) => h("option", { value: String(speed), selected: speed === 1 }, `${speed}×`))),
    });
    c.volume.value = String(this.#video.volume);
    const inButton = press("in", "Begin the span here ([)", () => this.bound("start_s"));
    const outButton = press("out", "End the span here (])", () => this.bound("end_s"));
    return h("div", { class: "controls" }, c.play, press("step-back", "One frame back (,)", () => this.step(-1)), press("step-on", "One frame on (.)", () => this.step(1)), c.time,
      h("span", { class: "controls-group" }, c.mute, c.volume, press("full", "Full screen (f)", () => this.toggleFull())),
      h("span", { class: "controls-group" }, inButton, outButton, c.loop, c.playOn, c.whole, c.speed));
  }

  #start() {
    const { start_s, end_s } = this.#span;
    if (!this.#video) return;
    if (!this.#playOn && this.#source.time_s >= end_s - this.#frame_s) this.#source.seek(start_s);
    this.#source.play();
  }

  #seek(at_s) {
    if (at_s > this.#span.end_s && !this.#playOn) this.togglePlayOn(); // beyond the span: it would jump back at once
    this.#source.seek(at_s);
    this.#tick();
  }

  #tick() {
    if (!this.#source) return;
    const at_s = this.#source.time_s;
    this.#timeline.setTime(at_s);
    this.#controls.time.textContent = `${clock(at_s, 2)} / ${clock(this.#timeline.duration_s, 1)}`;
    if (this.#playOn || this.#video.paused || at_s < this.#span.end_s - this.#frame_s / 2) return;
    if (this.#loop) this.#source.seek(this.#span.start_s);
    else this.#source.pause();
  }

  #ended() {
    if (this.#playOn && this.#source.goesOn) this.#source.seek(this.#source.end_s);
    else if (this.#loop && !this.#playOn) this.#source.seek(this.#span.start_s);
    else return;
    this.#source.play();
  }

  #setSpan(span) {
    this.#span = span;
    this.#timeline.setSpan(span);
    this.#key = formatMoment(span);
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#app.state.patch({ hit: this.#key }, { replace: true }), SETTLE_MS);
  }

  #showModes() {
    if (!this.#video) return;
    const { play, loop, playOn, mute, volume, whole } = this.#controls;
    const playing = !this.#video.paused;
    fill(play, icon(playing ? "pause" : "play"));
    play.title = playing ? "Pause (Space)" : "Play (Space)";
    play.setAttribute("aria-label", play.title);
    loop.setAttribute("aria-pressed", String(this.#loop && !this.#playOn));
    playOn.setAttribute("aria-pressed", String(this.#playOn));
    whole.setAttribute("aria-pressed", String(this.#timeline.isWhole));
    whole.hidden = !this.#timeline.canBeAround;
    const silent = this.#video.muted || this.#video.volume === 0;
    fill(mute, icon(silent ? "muted" : "volume"));
    mute.setAttribute("aria-pressed", String(silent));
    volume.value = String(this.#video.muted ? 0 : this.#video.volume);
  }

  async #loadScenes(videoId) {
    const timeline = this.#timeline;
    try {
      const { scenes } = await this.#app.api.get(`/videos/${videoId}/scenes`);
      if (this.#timeline === timeline) timeline.setScenes(scenes);
    } catch {
      // the timeline is of use without scenes
    }
  }
}

/** A name that is broken after signs rather than within words. */
const breakable = (name) => name.split(/(?<=[_.-])/).map((part) => [part, h("wbr")]);

/** Whether a panel lies over the results, so that the player would not be seen. */
function isCovered() {
  const panel = document.querySelector("#panel");
  return !panel.hidden && getComputedStyle(panel).position === "fixed";
}
