// Facts about videos of the index, asked once each.

import { get } from "../api.js";

const FRAME_S = 0.04; // where the rate is unknown
const asked = new Map();

/** Ask for a video or photo; null where the index has it no longer. */
export function facts(videoId) {
  if (!asked.has(videoId)) {
    const answer = get(`/videos/${videoId}`).catch((error) => {
      if (error.status === 404) return null;
      asked.delete(videoId); // ask again later
      throw error;
    });
    asked.set(videoId, answer);
  }
  return asked.get(videoId);
}

/** Seconds of one frame. */
export const frameS = (video) => (video?.fps > 0 ? 1 / video.fps : FRAME_S);
