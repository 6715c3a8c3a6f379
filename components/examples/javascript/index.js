// Keeps links with the titles of their pages, for each user apart.
import { current } from 'exprsn:ca/caller@1.0.0';
import { execute, query } from 'exprsn:sql/database-sync@1.0.0';

const TITLE_CHARACTERS_MAX = 200;
const LINKS_SHOWN = 100n;

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  try {
    return await route(request);
  } catch (error) {
    return error instanceof Problem ? error.response() : fault(error);
  }
}

async function route(request) {
  const { pathname } = new URL(request.url);
  switch (`${request.method} ${pathname}`) {
    case 'GET /health':
      return json(200, { status: 'healthy' });
    case 'GET /api/links':
      return json(200, list());
    case 'POST /api/links':
      return json(201, await add(await body(request)));
    default:
      throw new Problem(404, 'there is nothing here');
  }
}

function list() {
  const found = query(
    'SELECT url, title, created_at FROM links WHERE owner_id = $1 ORDER BY created_at DESC, url LIMIT $2',
    [text(current().caller.subject), integer(LINKS_SHOWN)],
  );
  return found.rows.map(([url, title, created]) => ({ url: url.val, title: title.val, createdAt: Number(created.val) }));
}

async function add({ url }) {
  if (typeof url !== 'string' || !/^https?:\/\//.test(url)) {
    throw new Problem(422, 'url: an address that begins with http:// or https://');
  }
  const link = { url, title: await titleOf(url), createdAt: Date.now() };
  execute(
    `INSERT INTO links (owner_id, url, title, created_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (owner_id, url) DO UPDATE SET title = excluded.title`,
    [text(current().caller.subject), text(url), text(link.title), integer(link.createdAt)],
  );
  return link;
}

// Goes to whatever the grant `egress` covers; anything else is refused by the host.
async function titleOf(url) {
  let page;
  try {
    page = await fetch(url);
  } catch (error) {
    throw new Problem(502, `${url} could not be fetched, or is not in the grant \`egress\`: ${error.message}`);
  }
  if (!page.ok) {
    throw new Problem(502, `${url} answered ${page.status}`);
  }
  const title = /<title[^>]*>([^<]*)<\/title>/i.exec(await page.text());
  return (title?.[1].trim() || url).slice(0, TITLE_CHARACTERS_MAX);
}

async function body(request) {
  try {
    return await request.json();
  } catch {
    throw new Problem(400, 'the body is not JSON');
  }
}

// An error of the host's interfaces is a variant: { tag: 'access-denied', val: 'why' }.
function fault(error) {
  const { tag, val } = error?.payload ?? error ?? {};
  if (tag === 'access-denied') {
    return new Problem(403, `access-denied: ${val}`).response();
  }
  console.error(error?.stack ?? String(error), tag ?? '');
  return new Problem(500, tag ? `${tag}: ${val?.message ?? val}` : 'an error of bookmarks; its log says which').response();
}

class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  response() {
    return json(this.status, { status: this.status, detail: this.message }, 'application/problem+json');
  }
}

function json(status, value, type = 'application/json') {
  return new Response(JSON.stringify(value), { status, headers: { 'content-type': type } });
}

function text(value) {
  return { tag: 'text', val: value };
}

function integer(value) {
  return { tag: 'integer', val: BigInt(value) };
}
