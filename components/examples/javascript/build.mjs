// Makes component.wasm of index.js: `npm run build`.
import { componentize } from '@bytecodealliance/componentize-js';
import { mkdir, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';

// componentize-js compiles SpiderMonkey each time, half a minute's work, unless wasmtime in it is given a cache.
const cache = resolve('node_modules/.cache');
await mkdir(`${cache}/wasmtime`, { recursive: true });
await writeFile(`${cache}/wasmtime/config.toml`, `[cache]\ndirectory = ${JSON.stringify(`${cache}/code`)}\n`);

const { component } = await componentize({
  sourcePath: 'index.js',
  witPath: 'wit',
  worldName: 'component',
  env: { XDG_CONFIG_HOME: cache },
});
await writeFile('component.wasm', component);
console.log(`component.wasm: ${Math.ceil(component.length / 1000)} kB`);
