// Words and numbers for people, and times that people write.

/** Write a number with its noun: "1 image", "1,200 images". */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** Write a length of time: "4.2 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "unknown";
  if (seconds < 60) return `${seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60).toLocaleString("en")} h ${minutes % 60} min`;
}

/** Write a size: "3.4 MB". */
export function size(bytes) {
  let value = bytes;
  for (const unit of ["bytes", "kB", "MB", "GB", "TB"]) {
    if (value < 1000 || unit === "TB") return `${unit === "bytes" || value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return "";
}

/** Write a share from 0 to 1 as "45%". */
export const percent = (share) => `${Math.round(100 * share)}%`;

/** Write a Unix time (s) as a local date and time. */
export const when = (unixS) => new Date(1000 * unixS).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** Read seconds, MM:SS or HH:MM:SS, each with a fraction; null where the text is none of them. */
export function parseClock(text) {
  const match = /^\s*(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d*)?)\s*s?\s*$/.exec(text);
  if (!match) return null;
  const [, hours, minutes, rest] = match;
  const seconds = Number(rest.replace(",", "."));
  if (minutes !== undefined && (seconds >= 60 || (hours !== undefined && Number(minutes) >= 60))) return null;
  return Number(hours ?? 0) * 3600 + Number(minutes ?? 0) * 60 + seconds;
}
