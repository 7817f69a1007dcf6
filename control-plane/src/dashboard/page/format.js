// Numbers as people read them.

export const NONE = "–";

export function rate(number) {
  if (number === null || number === undefined) return NONE;
  if (number === 0) return "0";
  return number < 10 ? number.toFixed(1) : number < 10_000 ? Math.round(number).toString() : `${(number / 1000).toFixed(1)}k`;
}

export function percent(share) {
  if (share === null || share === undefined) return NONE;
  if (share === 1) return "100 %";
  // Never rounded up to all.
  return `${Math.min(99.9, Math.round(share * 1000) / 10).toFixed(1)} %`;
}

export function ms(number) {
  if (number === null || number === undefined) return NONE;
  if (number === 0) return "0 ms";
  if (number >= 10_000) return `${(number / 1000).toFixed(0)} s`;
  if (number >= 1000) return `${(number / 1000).toFixed(1)} s`;
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;
}

export function bytes(number) {
  if (!number) return NONE;
  const units = ["B", "kB", "MB", "GB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(number) / 3));
  const scaled = number / 1000 ** power;
  return `${scaled < 10 && power > 0 ? scaled.toFixed(1) : Math.round(scaled)} ${units[power]}/s`;
}

export function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** Nothing went over it within the window. */
export const isIdle = (edge) => typeof edge.idle_seconds === "number";
/** `idle 2 min`: so long ago something did. */
export const quiet = (edge) => (isIdle(edge) ? `idle ${age(edge.idle_seconds)}` : "idle");

/** `good`, `warn`, `bad` or `idle`: by the share of requests, or of connections, that succeeded. */
export function health(edge) {
  if (edge.success_rate !== null) return edge.success_rate >= 0.99 ? "good" : edge.success_rate >= 0.95 ? "warn" : "bad";
  if (edge.tcp_connections || edge.tcp_bytes_per_second) return edge.tcp_failed ? "warn" : "good";
  return "idle";
}

export const carriesRequests = (edge) => edge.requests > 0;
export const tls = (edge) => ({ all: "mutual TLS", some: "partly mutual TLS", none: "no mutual TLS" })[edge.mutual_tls] ?? "not said";
export const short = (id) => id.split("/").slice(2).join("/") || id;
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
