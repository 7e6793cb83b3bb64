// Queries: from the state of the page to a request of the API, and short texts about them.

import { clock } from "./dom.js";

export const PAGE = 24; // hits of one page; a multiple of 1, 2, 3 and 4 columns
export const FILTERS = ["folder", "kind", "since", "until", "min", "max"];
const QUERY = ["q", "image", "like", "name"];
const PARTS = [...QUERY, "not", "then", "within", "group", ...FILTERS];

/** Whether the state asks for anything. */
export const asks = (state) => QUERY.some((part) => state[part]);

/** Text that is equal for states with the same hits. */
export const keyOf = (state) => JSON.stringify(PARTS.map((part) => [state[part] || []].flat()));

/** Whether any filter is set. */
export const filtered = (state) => FILTERS.some((part) => state[part]);

/** A state without its filters. */
export const unfiltered = (state) => ({ ...state, ...Object.fromEntries(FILTERS.map((part) => [part, null])) });

/** Read `VIDEO@12.5` or `VIDEO@12.5-15`; null where it is neither. */
export function parseMoment(text) {
  const match = /^([0-9a-f]{16})@(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?$/.exec(text ?? "");
  return match && { video_id: match[1], start_s: Number(match[2]), end_s: Number(match[3] ?? match[2]) };
}

/** Write a moment so that `parseMoment` reads it. */
export const formatMoment = ({ video_id, start_s, end_s }) => `${video_id}@${tidy(start_s)}${end_s > start_s ? `-${tidy(end_s)}` : ""}`;

const tidy = (seconds) => String(Math.round(seconds * 1000) / 1000);

/** Make the request of a state. */
export function requestOf(state) {
  const request = { group: state.group || "video", limit: PAGE };
  const text = [state.name, state.q].filter(Boolean).join(" ").trim();
  const like = parseMoment(state.like);
  if (like) request.similar = { video_id: like.video_id, at_s: like.start_s };
  else if (text) request.text = text;
  if (state.image && !like) request.image_id = state.image;
  if (!like) {
    const unwanted = (state.not ?? []).filter((one) => one.trim());
    if (unwanted.length) request.not_text = unwanted;
    if (state.then) {
      request.then = state.then;
      if (Number(state.within) > 0) request.within_s = Number(state.within);
    }
  }
  for (const part of ["folder", "kind", "since", "until"]) if (state[part]) request[part] = state[part];
  if (Number(state.min) > 0) request.min_length_s = Number(state.min);
  if (Number(state.max) > 0) request.max_length_s = Number(state.max);
  return request;
}

/** Describe a state in a few words, for titles. */
export function describe(state) {
  const like = parseMoment(state.like);
  if (like) return `like ${clock(like.start_s)}`;
  return [state.name, state.q, state.image && "an image", state.then && `then ${state.then}`].filter(Boolean).join(", ");
}

/** Write a length of time in words: 8 s, 3 min, 1 h 5 min. */
export function lengthText(seconds) {
  if (seconds < 60) return `${seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

/** Folder of a path, both kinds of separators. */
export const folderOf = (path) => path.replace(/[/\\][^/\\]*$/, "");
