// What a video element plays: the file itself, or a preview of the span where the browser cannot play the file.
//
// A preview is a file of its own whose clock starts at 0: times of the file are `offset_s` later. Some files play their
// sound alone, and some seeks end elsewhere without an error; both are found here.

import { mediaUrl, previewUrl, Problem } from "../api.js";

const BEFORE_S = 2; // of the span, in a preview
const AFTER_S = 4;
const LEAST_S = 12; // length of a preview
const MOST_S = 60;
const SEEK_TOLERANCE_S = 1;

export class Source {
  offset_s = 0;
  end_s;
  isPreview = false;
  #video;
  #info;
  #on;
  #wanted = null; // file time of the seek in progress
  #closed = false;
  #span;
  #why = "";
  #wantsPlay = false;
  #making = null; // the preview that is asked for

  /**
   * @param {HTMLVideoElement} video
   * @param {Object} info a VideoOut
   * @param {{notice: (text: string|null, busy?: boolean) => void, failed: (text: string) => void}} on
   */
  constructor(video, info, on) {
    this.#video = video;
    this.#info = info;
    this.#on = on;
    this.end_s = info.duration_s;
    video.addEventListener("error", () => this.#failed());
    video.addEventListener("loadedmetadata", () => this.#loaded());
    video.addEventListener("seeked", () => this.#seeked());
  }

  /** Load what plays the span, at a time of the file. */
  start(span, at_s) {
    this.#span = span;
    if (this.#info.playable === "preview") this.#usePreview(span.start_s, span.end_s, at_s, this.#info.playable_reason ?? "browsers do not play this format");
    else {
      this.#wanted = at_s;
      this.#video.src = mediaUrl(this.#info.video_id);
    }
  }

  /** Time of the file that is shown. */
  get time_s() {
    return this.#wanted ?? this.#video.currentTime + this.offset_s;
  }

  /** Go to a time of the file; a preview of another span is made where needed. */
  seek(at_s) {
    const time = Math.max(0, Math.min(at_s, this.#info.duration_s || at_s));
    if (this.isPreview && (time < this.offset_s - 0.001 || time >= this.end_s)) {
      this.#usePreview(time, time, time, this.#why);
      return;
    }
    this.#wanted = time;
    this.#video.currentTime = time - this.offset_s;
  }

  /** Whether the file goes on after the end of what is loaded. */
  get goesOn() {
    return this.isPreview && this.end_s < this.#info.duration_s - 0.05;
  }

  close() {
    this.#closed = true;
    this.#making?.abort();
    this.#video.removeAttribute("src");
    this.#video.load();
  }

  /** Play as soon as there is something to play. */
  play() {
    this.#wantsPlay = true;
    if (this.#video.getAttribute("src")) this.#video.play().catch(() => {}); // not allowed: it stays paused
  }

  pause() {
    this.#wantsPlay = false;
    this.#video.pause();
  }


  #usePreview(start_s, end_s, at_s, why) {
    const from = Math.max(0, Math.min(start_s, at_s) - BEFORE_S);
    const length = Math.min(MOST_S, Math.max(LEAST_S, end_s + AFTER_S - from));
    const playing = !this.#video.paused;
    this.#making?.abort();
    this.isPreview = true;
    this.offset_s = from;
    this.end_s = Math.min(this.#info.duration_s, from + length);
    this.#why = why;
    this.#wanted = at_s;
    this.#load(previewUrl(this.#info.video_id, this.offset_s, this.end_s), playing);
  }

  /** Have the preview made, and then play it: so the wait can be told, and a failure has its words. */
  async #load(url, playing) {
    const making = (this.#making = new AbortController());
    this.#on.notice("Making a preview …", true);
    this.#video.removeAttribute("src");
    this.#video.load();
    try {
      const made = await fetch(url, { method: "HEAD", signal: making.signal });
      if (!made.ok) throw await problemOf(url, making.signal);
      if (making !== this.#making || this.#closed) return;
      this.offset_s = Number(made.headers.get("Preview-Start-S") ?? this.offset_s);
      this.end_s = Number(made.headers.get("Preview-End-S") ?? this.end_s);
      this.#video.src = url;
      if (playing || this.#wantsPlay) this.#video.play().catch(() => {});
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error instanceof Problem ? error.message : "the server does not answer");
    }
  }

  #fail(text) {
    this.#wanted = null;
    this.#on.notice(null);
    this.#on.failed(`It cannot be played: ${text}`);
  }

  #loaded() {
    if (this.#video.videoWidth === 0 && !this.isPreview) {
      this.#usePreview(this.#span.start_s, this.#span.end_s, this.#wanted ?? 0, "this browser plays only the sound of the file");
      return;
    }
    this.#on.notice(this.isPreview ? `Preview, since ${this.#why}. The file itself is unchanged.` : null);
    if (this.#wanted !== null) this.#video.currentTime = Math.max(0, this.#wanted - this.offset_s);
  }

  #seeked() {
    const wanted = this.#wanted;
    this.#wanted = null;
    if (wanted === null || this.#closed) return;
    const arrived = this.#video.currentTime + this.offset_s;
    const last = Math.min(wanted, this.offset_s + (this.#video.duration || Infinity));
    if (Math.abs(arrived - last) <= SEEK_TOLERANCE_S) return;
    if (!this.isPreview) this.#usePreview(wanted, wanted, wanted, "this browser cannot seek in the file");
  }

  #failed() {
    if (this.#closed || !this.#video.getAttribute("src")) return;
    const at_s = this.#wanted ?? this.time_s;
    if (this.isPreview) this.#fail("this browser does not play the preview either");
    else this.#usePreview(this.#span.start_s, this.#span.end_s, at_s, "this browser does not play the file");
  }
}

async function problemOf(url, signal) {
  const answer = await fetch(url, { headers: { Range: "bytes=0-0" }, signal });
  return new Problem(answer.status, await answer.json().catch(() => ({})));
}
