// Jobs of the server: follow one by server-sent events, or by asking again where these do not come.

import { eventsUrl, get, post } from "../api.js";

const ENDED = ["done", "partly_failed", "failed", "cancelled"];
const STATUS_WORDS = {
  queued: "waiting",
  running: "running",
  pausing: "pausing",
  paused: "paused",
  cancelling: "being cancelled",
  cancelled: "cancelled",
  done: "done",
  partly_failed: "done, with failures",
  failed: "failed",
};
const ASK_MS = 1000;
const MOST_ERRORS = 4; // without an event between; half as many before the first

export const hasEnded = (job) => ENDED.includes(job.status);

export const statusWords = (job) => STATUS_WORDS[job.status] ?? job.status;

/** Give a job an order: cancel, pause, resume or retry; the answer of retry is another job. */
export const order = (job, what) => post(`/jobs/${job.id}/${what}`);

/** Merge an event into a job: `progress` is about its `index` or `export`, `status` and `snapshot` are fields of it. */
export function merged(job, kind, data) {
  if (kind === "progress") return { ...job, [job.kind]: data };
  if (kind === "video") return { ...job, last: data };
  if (kind === "failure") {
    const list = job.kind === "export" ? "skipped" : "failures";
    return { ...job, [list]: [...job[list], data], [`${list}_count`]: job[`${list}_count`] + 1 };
  }
  return { ...job, ...data };
}

/**
 * Follow a job until it ends.
 *
 * @param {Object} job as the server gave it
 * @param {function(Object): void} onchange called with the whole job after each change
 * @returns {function(): void} stops following
 */
export function watch(job, onchange) {
  let now = job;
  let errors = MOST_ERRORS / 2;
  let timer = 0;
  let source = null;
  let stopped = false;
  const stop = () => {
    stopped = true;
    clearTimeout(timer);
    source?.close();
  };
  const change = (next) => {
    if (stopped) return;
    now = next;
    if (hasEnded(now)) stop();
    onchange(now);
  };
  const ask = async () => {
    try {
      const next = await get(`/jobs/${job.id}`);
      errors = 0;
      change(next);
    } catch (error) {
      errors += 1;
      const gone = { code: "job_not_found", detail: "The server no longer knows this job: it was started again." };
      if (error.status === 404) change({ ...now, status: "failed", error: gone });
    }
    if (!stopped) timer = setTimeout(ask, ASK_MS * Math.min(10, 1 + errors));
  };
  const take = (kind) => (event) => {
    errors = 0;
    change(merged(now, kind, JSON.parse(event.data)));
  };
  const listen = () => {
    source = new EventSource(eventsUrl(`/jobs/${job.id}/events`)); // it resumes with Last-Event-ID by itself
    for (const kind of ["snapshot", "progress", "video", "failure", "done"]) source.addEventListener(kind, take(kind));
    source.addEventListener("status", (event) => {
      const { status, error } = JSON.parse(event.data);
      errors = 0;
      if (!ENDED.includes(status)) change({ ...now, status, error }); // the end comes with `done`, which has all of it
    });
    source.onerror = () => {
      errors += 1;
      if (stopped || (source.readyState !== EventSource.CLOSED && errors < MOST_ERRORS)) return;
      source.close();
      errors = 0;
      ask();
    };
  };
  if (hasEnded(job)) queueMicrotask(() => change(job));
  else listen();
  return stop;
}
