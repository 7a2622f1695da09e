// The way to the server: the same host that the page came from, with the token if one is needed.

const KEPT = "rustpbx.token";

/** Thrown when the server wants a token, or another one. */
export class TokenNeeded extends Error {}

/** Thrown when nobody answers. */
export class ServerGone extends Error {}

/** Take a token out of the address (`?token=`), so that it is neither bookmarked nor shown. */
export function takeTokenFromAddress() {
  const url = new URL(location.href);
  const given = url.searchParams.get("token");
  if (given === null) return;
  setToken(given);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
}

export function token() {
  return sessionStorage.getItem(KEPT) ?? "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(KEPT, value);
  else sessionStorage.removeItem(KEPT);
}

/** The JSON that `path` answers with. Throws `TokenNeeded`, `ServerGone`, or an Error with what the server said. */
export async function ask(path, method = "GET") {
  const headers = token() ? { authorization: `Bearer ${token()}` } : {};
  let response;
  try {
    response = await fetch(path, { method, headers, cache: "no-store" });
  } catch {
    throw new ServerGone("the server does not answer");
  }
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const why = body?.message ?? body?.error ?? `${response.status} ${response.statusText}`;
  if (response.status === 401) throw new TokenNeeded(why);
  throw new Error(why);
}

/** A WebSocket's URL. A browser cannot give it headers, so the token is in the query. */
export function socketUrl(path, query = {}) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = new URLSearchParams(token() ? { ...query, token: token() } : query);
  return url.href;
}
