// Who is signed in. OpenID Connect's authorization code with PKCE at exprsn-auth, or a token that an operator issued.
//
// The token lives in this page's memory alone: no cookie, so no other site can use it, and nothing is left behind in the
// browser. Reloading signs in again, which asks nothing while the session at exprsn-auth lasts. What outlives the way
// to exprsn-auth and back is the proof's secret and the state, for that way only.

const PENDING = 'exprsn-console-sign-in';
const SCOPE = 'openid profile read write update delete admin';
const RENEW_BEFORE_MS = 60_000;

let held = null;
let place = null;

export const session = {
  get name() { return held?.name ?? null; },
  get isOpen() { return held !== null; },
  get canSignIn() { return place !== null; },
};

/** Learns where people sign in, and ends a sign-in that is under way. Answers what went wrong, if anything did. */
export async function open() {
  const answer = await fetch(new URL('sign-in.json', import.meta.url));
  place = answer.ok ? await answer.json() : null;
  const query = new URLSearchParams(location.search);
  const pending = take();
  if (!query.has('state')) return null;
  history.replaceState(null, '', location.pathname + (pending?.hash ?? ''));
  if (!pending || !place || query.get('state') !== pending.state || query.get('iss') !== place.issuer) {
    return 'This sign-in was not begun here. Please begin again.';
  }
  if (query.has('error')) return `exprsn-auth did not sign you in: ${query.get('error_description') ?? query.get('error')}`;
  return exchange({ grant_type: 'authorization_code', code: query.get('code'), code_verifier: pending.verifier, redirect_uri: home() });
}

function take() {
  const text = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const home = () => location.origin + location.pathname;

/** Leaves for exprsn-auth. */
export async function begin() {
  // The console's client is registered for localhost, whose port is not free as that of 127.0.0.1 is.
  if (['127.0.0.1', '[::1]'].includes(location.hostname)) {
    location.assign(`${location.protocol}//localhost:${location.port}${location.pathname}#/sign-in`);
    return;
  }
  const verifier = random();
  const state = random();
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  const hash = location.hash === '#/sign-in' ? '' : location.hash;
  sessionStorage.setItem(PENDING, JSON.stringify({ verifier, state, hash }));
  const asked = new URL(place.authorizationEndpoint);
  const parameters = {
    response_type: 'code', client_id: place.clientId, redirect_uri: home(), scope: SCOPE, state,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: 'S256',
  };
  for (const [name, value] of Object.entries(parameters)) asked.searchParams.set(name, value);
  if (!['https:', 'http:'].includes(asked.protocol)) throw new Error('exprsn-auth has no usable address');
  location.assign(asked);
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

async function exchange(form) {
  const body = new URLSearchParams({ client_id: place.clientId, ...form });
  let answer;
  try {
    answer = await fetch(place.tokenEndpoint, { method: 'POST', body, credentials: 'omit', referrerPolicy: 'no-referrer' });
  } catch {
    return 'exprsn-auth does not answer.';
  }
  const given = await answer.json().catch(() => ({}));
  if (!answer.ok) return `exprsn-auth gave no token: ${given.error_description ?? given.error ?? answer.status}`;
  if (!String(given.scope ?? '').split(' ').includes('admin')) {
    return 'This account is no administrator. Another administrator, or the operator, gives the role `admin`.';
  }
  hold(given.access_token, given.refresh_token ?? null, Date.now() + given.expires_in * 1000);
  return null;
}

function hold(token, refresh, expires) {
  const claims = read(token);
  held = { token, refresh, expires, name: claims.username ?? claims.sub ?? 'token' };
}

/** Claims for showing only: the services verify. */
function read(token) {
  try {
    const text = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

/** Takes a token that an operator issued. */
export function accept(token) {
  const claims = read(token);
  hold(token, null, claims.exp ? claims.exp * 1000 : Number.MAX_SAFE_INTEGER);
}

/** The token, renewed where it is about to expire; null without a session. */
export async function token() {
  if (held?.refresh && place && held.expires - Date.now() < RENEW_BEFORE_MS) {
    const refresh = held.refresh;
    held.refresh = null;
    await exchange({ grant_type: 'refresh_token', refresh_token: refresh });
  }
  return held?.token ?? null;
}

/** Forgets the token, and revokes what exprsn-auth gave. */
export async function close() {
  const refresh = held?.refresh;
  held = null;
  if (refresh && place) {
    const body = new URLSearchParams({ client_id: place.clientId, token: refresh });
    await fetch(place.revocationEndpoint, { method: 'POST', body, credentials: 'omit' }).catch(() => null);
  }
}
