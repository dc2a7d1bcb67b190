// Builds the one file that shops load: `npm run build`. The same source gives the same bytes, and
// `make check` compares them with what is committed.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build, transform } from "esbuild";
import { minify } from "terser";

const MOST_BYTES = 15_000; // gzipped
const PLACE = new URL("../gateway/static/inbox/", import.meta.url);
const LICENSED = ["lit", "graphql-ws"];
const LICENCES = "/*! Tidings, with Lit and graphql-ws. Their licences: LICENSES.txt beside this. */";

// A bundler can't see that nobody needs these of graphql-ws: the form of messages, which are our own
// gateway's, is not checked, subscriptions are not iterated, every browser has a WebSocket, and a
// client whose connection has ended is not used again.
const LEFT_OUT = [
  [/^var CloseCode = [^]*?^}\)\(CloseCode .*$/m, constants],
  [/^var MessageType = [^]*?^}\)\(MessageType .*$/m, constants],
  [/^function validateMessage[^]*?^}$/m, "const validateMessage = (message) => message;"],
  [/^ {4}iterate\(request\) {[^]*?^ {4}},$/m, ""],
  [/(?<=^ {2}function shouldRetryConnectOrThrow\((\w+)\) {$)[^]*?(?=^ {2}}$)/m, "throw $1;"],
  [/^ {4}retryWait = [^]*?^ {4}},$/m, ""],
  [/^ {8}if \(retrying\) {[^]*?^ {8}}$/m, ""],
  [/^ {4}shouldRetry = isLikeCloseEvent,$/m, ""],
  [/^ {8}function enqueuePing\(\) {[^]*?^ {8}}$/m, "const enqueuePing = () => {};"],
  [/^ {12}if \(isFinite\(connectionAckWaitTimeout\)[^]*?^ {12}}$/m, ""],
  [/^ {12}if \(isFinite\(lazyCloseTimeoutMs\)[^]*?^ {12}} else/m, ""],
  [/^ {2}let ws;[^]*?(?=^ {2}const WebSocketImpl)/m, "const ws = WebSocket;"],
];
const found = new Set();

/** An enum's members, which a bundler can then put where they are named. */
function constants(text) {
  const members = [...text.matchAll(/\["(\w+)"\] = ("?\w+"?)/g)];
  return `const ${text.split(" ")[1]} = {${members.map(([, name, value]) => `${name}: ${value}`)}};`;
}

const lean = {
  name: "lean",
  setup({ onLoad }) {
    // Indentation says nothing to a browser, but would be kept in templates.
    onLoad({ filter: /inbox\/src\/.*\.ts$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(/^\s+/gm, ""),
      loader: "ts",
    }));
    onLoad({ filter: /graphql-ws\/dist\/.*\.js$/ }, async ({ path }) => {
      let contents = await readFile(path, "utf8");
      for (const [what, instead] of LEFT_OUT.filter(([what]) => what.test(contents))) {
        contents = contents.replace(what, instead);
        found.add(what);
      }
      return { contents };
    });
    onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const options = { loader: "css", minify: true, legalComments: "none" };
      const { code } = await transform(await readFile(path, "utf8"), options);
      return { contents: code.trim(), loader: "text" };
    });
  },
};

async function bundled(name, format) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`src/${name}`, import.meta.url).pathname],
    bundle: true,
    minify: true,
    charset: "utf8",
    format,
    target: "es2022",
    legalComments: "none",
    plugins: [lean],
    write: false,
  });
  return outputFiles[0].text;
}

const script = await bundled("inbox.ts", "iife");
if (found.size < LEFT_OUT.length) throw new Error("graphql-ws is another: look at LEFT_OUT.");
const squeezed = await minify(script, {
  compress: { passes: 3, ecma: 2020 },
  format: { preamble: LICENCES, ecma: 2020 },
});
const built = Buffer.from(`${squeezed.code}\n`);
const bytes = gzipSync(built, { level: 9 }).length;
console.log(`tidings-inbox.js: ${built.length} bytes, ${bytes} gzipped`);
const licences = LICENSED.map(async (name) => {
  const folder = new URL(`node_modules/${name}/`, import.meta.url);
  const [file] = (await readdir(folder)).filter((file) => file.startsWith("LICENSE"));
  return `${name}\n\n${await readFile(new URL(file, folder), "utf8")}`;
});
// For PERSISTED_DOCUMENTS, of gateways that answer nothing else.
const api = encodeURIComponent(await bundled("api.ts", "esm"));
const asked = Object.entries(await import(`data:text/javascript,${api}`));
const documents = asked.filter(([, text]) => typeof text === "string");
const files = {
  "tidings-inbox.js": built,
  "documents.json": Buffer.from(`${JSON.stringify(Object.fromEntries(documents), null, 1)}\n`),
  "LICENSES.txt": Buffer.from((await Promise.all(licences)).join("\n\n")),
};
for (const [name, content] of Object.entries(files)) {
  const file = new URL(name, PLACE);
  if (!process.argv.includes("--check")) await writeFile(file, content);
  else if (!content.equals(await readFile(file))) {
    console.error(`${name} is not what inbox/ says: run \`npm run build\` in inbox/.`);
    process.exitCode = 1;
  }
}
if (bytes > MOST_BYTES) {
  console.error(`That is more than ${MOST_BYTES} bytes gzipped: make it smaller.`);
  process.exitCode = 1;
}
