// Asks llama.cpp, by way of the npm package node-llama-cpp, for token ids and greedy continuations.
// Usage: node llama.mjs PACKAGE_DIRECTORY MODEL.gguf < {"texts": [...], "prompts": [[id, ...]], "tokens": n}
import {readFileSync} from "node:fs";

const [packageDirectory, path] = process.argv.slice(2);
const {getLlama} = await import(`${packageDirectory}/dist/index.js`);
const asked = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath: path});
const ids = asked.texts.map((text) => model.tokenize(text, false));
const context = await model.createContext({contextSize: 128, sequences: 1});
const sequence = context.getSequence();
const continued = [];
for (const prompt of asked.prompts) {
    await sequence.clearHistory();
    const found = [];
    for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        found.push(token);
        if (found.length >= asked.tokens || model.isEogToken(token)) break;
    }
    continued.push(found);
}
console.log(JSON.stringify({ids, continued}));
process.exit(0);
