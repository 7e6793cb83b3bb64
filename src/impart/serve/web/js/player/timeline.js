// A timeline with heat, scenes, the position, and both bounds of the span; all three are sliders for the keyboard.

import { clock, fill, h } from "../dom.js";
import { drawHeat } from "../heat.js";

const LEAST_SPAN_S = 0.1;
const WHOLE_S = 60; // videos up to this length are shown whole
const AROUND = 6; // else so many lengths of the span
const LEAST_WINDOW_S = 30;

export class Timeline {
  element;
  #duration;
  #frame_s;
  #span;
  #window;
  #time = 0;
  #heat;
  #onseek;
  #onbounds;
  #canvas = h("canvas", { class: "heat-bars" });
  #ticks = h("div", { class: "ticks" });
  #range = h("div", { class: "range" });
  #head = this.#slider("position", "Position", () => this.#time, (at_s) => this.#onseek(at_s));
  #in = this.#slider("bound", "Start of the span", () => this.#span.start_s, (at_s) => this.#bound("start_s", at_s));
  #out = this.#slider("bound", "End of the span", () => this.#span.end_s, (at_s) => this.#bound("end_s", at_s));
  #first = h("span");
  #last = h("span");
  #track;
  #scenes = [];
  #width = 0; // of the track, px

  /**
   * @param {{duration_s: number, frame_s: number, span: Object, heat: Object|undefined, onseek: Function, onbounds: Function}} options
   *   `onbounds(span, at_s)`: a bound was moved to a time
   */
  constructor({ duration_s, frame_s, span, heat, onseek, onbounds }) {
    this.#duration = duration_s;
    this.#frame_s = frame_s;
    this.#span = span;
    this.#heat = heat;
    this.#onseek = onseek;
    this.#onbounds = onbounds;
    this.#in.classList.add("in");
    this.#out.classList.add("out");
    this.#track = h("div", { class: "track" }, this.#range, this.#canvas, this.#ticks, this.#head, this.#in, this.#out);
    this.#track.addEventListener("pointerdown", (event) => this.#drag(event));
    this.element = h("div", { class: "timeline" }, this.#track, h("div", { class: "track-ends soft" }, this.#first, this.#last));
    this.show(duration_s <= WHOLE_S);
  }

  get duration_s() {
    return this.#duration;
  }

  /** Whether the whole video is shown. */
  get isWhole() {
    return this.#window.start_s === 0 && this.#window.end_s === this.#duration;
  }

  get canBeAround() {
    return this.#duration > LEAST_WINDOW_S;
  }

  /** Show the whole video, or what is around the span. */
  show(whole) {
    const { start_s, end_s } = this.#span;
    const length = Math.max(LEAST_WINDOW_S, AROUND * (end_s - start_s));
    const start = Math.max(0, Math.min((start_s + end_s - length) / 2, this.#duration - length));
    this.#window = whole || length >= this.#duration ? { start_s: 0, end_s: this.#duration } : { start_s: start, end_s: start + length };
    this.draw();
  }

  setTime(at_s) {
    this.#time = at_s;
    this.#place(this.#head, at_s);
  }

  setSpan(span) {
    this.#span = span;
    this.draw();
  }

  setScenes(scenes) {
    this.#scenes = scenes;
    this.draw();
  }

  /** Draw everything; also after a change of size. */
  draw() {
    const { start_s, end_s } = this.#window;
    fill(this.#ticks, this.#scenes.filter((scene) => scene.start_s > start_s && scene.start_s < end_s).map((scene) => {
      const tick = h("span", { class: "tick" });
      tick.style.left = `${this.#share(scene.start_s)}%`;
      return tick;
    }));
    this.#width = this.#track.clientWidth;
    const from = Math.max(0, this.#share(this.#span.start_s));
    const to = Math.min(100, this.#share(this.#span.end_s));
    this.#range.style.left = `${from}%`;
    this.#range.style.width = `${Math.max(0, to - from)}%`;
    this.#place(this.#in, this.#span.start_s);
    this.#place(this.#out, this.#span.end_s);
    this.#place(this.#head, this.#time);
    this.#first.textContent = clock(start_s, 0);
    this.#last.textContent = clock(end_s, 0);
    if (this.#canvas.isConnected) drawHeat(this.#canvas, this.#heat, start_s, end_s);
  }

  #share(at_s) {
    const { start_s, end_s } = this.#window;
    return end_s > start_s ? (100 * (at_s - start_s)) / (end_s - start_s) : 0;
  }

  #place(slider, at_s) {
    const share = Math.max(0, Math.min(100, this.#share(at_s)));
    if (slider === this.#head) slider.style.transform = `translateX(${(share / 100) * this.#width}px)`; // moves with each frame: no layout
    else slider.style.left = `${share}%`;
    slider.setAttribute("aria-valuemin", "0");
    slider.setAttribute("aria-valuemax", this.#duration.toFixed(3));
    slider.setAttribute("aria-valuenow", Math.min(at_s, this.#duration).toFixed(3));
    slider.setAttribute("aria-valuetext", clock(at_s, 2));
  }

  #bound(name, at_s) {
    const { start_s, end_s } = this.#span;
    const limited = name === "start_s" ? Math.max(0, Math.min(at_s, end_s - LEAST_SPAN_S)) : Math.min(this.#duration, Math.max(at_s, start_s + LEAST_SPAN_S));
    this.#span = { ...this.#span, [name]: limited };
    this.draw();
    this.#onbounds(this.#span, limited);
  }

  #slider(kind, label, value, change) {
    return h("div", { class: `handle ${kind}`, role: "slider", tabIndex: 0, "aria-label": label, onkeydown: (event) => {
      const step = event.shiftKey ? 1 : kind === "bound" ? this.#frame_s : 0.5;
      const steps = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -5, PageUp: 5 };
      const at_s = event.key === "Home" ? this.#window.start_s : event.key === "End" ? this.#window.end_s : event.key in steps ? value() + steps[event.key] : null;
      if (at_s === null) return;
      event.preventDefault();
      event.stopPropagation();
      change(at_s);
    } });
  }

  #drag(event) {
    if (event.button !== 0) return;
    const change = event.target === this.#in ? (at_s) => this.#bound("start_s", at_s) : event.target === this.#out ? (at_s) => this.#bound("end_s", at_s) : (at_s) => this.#onseek(at_s);
    const box = this.#track.getBoundingClientRect();
    const { start_s, end_s } = this.#window;
    const move = ({ clientX }) => change(start_s + Math.max(0, Math.min(1, (clientX - box.left) / box.width)) * (end_s - start_s));
    const stop = () => this.#track.removeEventListener("pointermove", move);
    event.preventDefault();
    (event.target.closest("[role=slider]") ?? this.#head).focus({ preventScroll: true });
    this.#track.setPointerCapture(event.pointerId);
    if (event.target === this.#track || !event.target.closest("[role=slider]")) move(event);
    this.#track.addEventListener("pointermove", move);
    this.#track.addEventListener("pointerup", stop, { once: true });
    this.#track.addEventListener("pointercancel", stop, { once: true });
  }
}
