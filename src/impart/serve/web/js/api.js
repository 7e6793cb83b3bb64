// The API: every request of the page goes through here. An error is a Problem with the server's code and detail.

const ROOT = "/api/v1";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.code = body.code || "failed";
    this.retryAfterS = body.retryAfterS;
  }
}

/**
 * Send a request.
 *
 * @param {string} method
 * @param {string} path below /api/v1
 * @param {{json?: Object, form?: FormData, signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the JSON of the answer; null where it has none
 * @throws {Problem}
 */
export async function request(method, path, { json, form, signal } = {}) {
  const headers = json === undefined ? {} : { "Content-Type": "application/json" };
  const body = form ?? (json === undefined ? undefined : JSON.stringify(json));
  let answer;
  try {
    answer = await fetch(ROOT + path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "unreachable", detail: "The server does not answer. Is impart serve still running?" });
  }
  const text = await answer.text();
  const isJson = (answer.headers.get("Content-Type") || "").includes("json");
  const value = text && isJson ? JSON.parse(text) : null;
  if (!answer.ok) throw new Problem(answer.status, { ...(value || {}), retryAfterS: Number(answer.headers.get("Retry-After")) || undefined });
  return value;
}

export const get = (path, options) => request("GET", path, options);
export const post = (path, json, options) => request("POST", path, { json, ...options });

/** Address of the frame of a video at a time. */
export function frameUrl(videoId, timeS, width = 320) {
  return `${ROOT}/frames/${videoId}.webp?t=${timeS.toFixed(3)}&w=${width}`;
}

/** Address of the file of a video or photo. */
export const mediaUrl = (videoId) => `${ROOT}/media/${videoId}`;

/** Address of a span, encoded so that every browser plays it; it starts at 0. */
export const previewUrl = (videoId, startS, endS) =>
  `${ROOT}/previews/${videoId}?start_s=${startS.toFixed(3)}&end_s=${endS.toFixed(3)}`;

/** Address of an uploaded query image. */
export const imageUrl = (imageId) => `${ROOT}/images/${imageId}.webp`;

/** Address of server-sent events. */
export const eventsUrl = (path) => ROOT + path;
