// What AsyncAPI's official parser says of the document in the file of the first argument, as JSON.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const [file] = process.argv.slice(2);
const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file });
const channels = document?.channels().all() ?? [];
console.log(
  JSON.stringify({
    valid: document !== undefined,
    problems: diagnostics.map(({ code, message, path, severity }) => ({ code, message, path, severity })),
    channels: channels.map((channel) => channel.address()),
    partitions: channels.map((channel) => channel.bindings().get("kafka")?.value().partitions),
    operations: (document?.operations().all() ?? []).map((operation) => operation.action()),
    messages: (document?.components().messages().all() ?? []).map((message) => message.id()),
  }),
);
